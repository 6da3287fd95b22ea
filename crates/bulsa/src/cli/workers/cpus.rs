//! How many processors are ours to use: affinity (and with it cpusets), and the quotas of our cgroup and of those above
//! it, of either version.
//!
//! Owns: finding and reading the quota. Never: rounds it down, as the standard library does: with `--cpus 1.5` a second
//! worker has half a processor to use, and one worker alone would leave it.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Cgroups above each other are at most so deep that we look at them.
const DEPTH_MAX: usize = 64;

/// Processors that may be used here, at least 1.
pub(super) fn here() -> u32 {
    let read = |path: &Path| fs::read_to_string(path).ok();
    // Without a `/proc` there is no quota to be found either.
    let mounts = read(Path::new("/proc/self/mountinfo")).unwrap_or_default();
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    usable(affinity(), quota(&mounts, &groups, &read))
}

fn affinity() -> u32 {
    let set = rustix::thread::sched_getaffinity(None).map(|set| set.count());
    // A kernel with more processors than the set holds refuses: then their number is asked for.
    set.unwrap_or_else(|_| {
        std::thread::available_parallelism().map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(u32::MAX))
    })
}

/// Processors of an affinity and a quota in thousandths of a processor: a part of one is one.
fn usable(affinity: u32, quota_milli: Option<u64>) -> u32 {
    let by_quota = quota_milli.map_or(u64::MAX, |quota| quota.div_ceil(1000));
    affinity.min(u32::try_from(by_quota).unwrap_or(u32::MAX)).max(1)
}

/// The smallest quota of our cgroups and those above them, in thousandths of a processor.
fn quota(mounts: &str, groups: &str, read: &dyn Fn(&Path) -> Option<String>) -> Option<u64> {
    let mut smallest: Option<u64> = None;
    for mount in mounts.lines().filter_map(Mount::parse) {
        let Some(group) = groups.lines().find_map(|line| mount.group(line)) else { continue };
        // As seen through the mount; a group outside of what is mounted is one that we can't see.
        let below = Path::new(group).strip_prefix(&mount.root).unwrap_or(Path::new(""));
        for below in below.ancestors().take(DEPTH_MAX) {
            let quota = mount.quota(&mount.point.join(below), read);
            smallest = [smallest, quota].into_iter().flatten().min();
        }
    }
    smallest
}

/// A mounted hierarchy of cgroups that has the CPU controller.
#[derive(Debug)]
struct Mount {
    root: PathBuf,
    point: PathBuf,
    is_v2: bool,
}

impl Mount {
    /// From a line of `/proc/self/mountinfo` (proc_pid_mountinfo(5)): `36 35 98:0 /root /point rw,… optional… - type
    /// source options`.
    fn parse(line: &str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(3);
        let (root, point) = (before.next()?, before.next()?);
        let mut after = after.split(' ');
        let (kind, options) = (after.next()?, after.nth(1)?);
        let is_v2 = kind == "cgroup2";
        let has_cpu = kind == "cgroup" && options.split(',').any(|option| option == "cpu");
        (is_v2 || has_cpu).then(|| Self { root: unescaped(root), point: unescaped(point), is_v2 })
    }

    /// Our group in this hierarchy, if a line of `/proc/self/cgroup` is about it: `4:cpu,cpuacct:/a`, `0::/a`.
    fn group<'a>(&self, line: &'a str) -> Option<&'a str> {
        let mut fields = line.splitn(3, ':');
        let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let is_it = if self.is_v2 {
            number == "0" && controllers.is_empty()
        } else {
            controllers.split(',').any(|controller| controller == "cpu")
        };
        is_it.then_some(path)
    }

    /// The quota of one group, in thousandths of a processor.
    fn quota(&self, group: &Path, read: &dyn Fn(&Path) -> Option<String>) -> Option<u64> {
        let number = |name: &str| read(&group.join(name))?.trim().parse::<u64>().ok();
        let (quota, period) = if self.is_v2 {
            let text = read(&group.join("cpu.max"))?;
            let mut words = text.split_whitespace();
            (words.next()?.parse().ok()?, words.next()?.parse().ok()?)
        } else {
            // Without a quota it is -1, which is no such number.
            (number("cpu.cfs_quota_us")?, number("cpu.cfs_period_us")?)
        };
        quota.checked_mul(1000)?.checked_div(period).filter(|quota| *quota > 0)
    }
}

/// Spaces and the like are octal there: `\040`.
fn unescaped(text: &str) -> PathBuf {
    let mut parts = text.split('\\');
    let mut path = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..3).and_then(|code| u8::from_str_radix(code, 8).ok()).filter(u8::is_ascii);
        match code {
            Some(code) => {
                path.push(char::from(code));
                path.push_str(&part[3..]);
            }
            None => {
                path.push('\\');
                path.push_str(part);
            }
        }
    }
    path.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str = "25 30 0:23 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
    const V1: &str = "733 720 0:29 /docker/ab /sys/fs/cgroup/cpu ro,nosuid master:11 - cgroup cgroup rw,cpu,cpuacct\n\
                      734 720 0:30 /docker/ab /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";

    fn found(mounts: &str, groups: &str, files: &[(&str, &str)]) -> Option<u64> {
        let read = |path: &Path| {
            let file = files.iter().find(|(name, _)| Path::new(name) == path);
            file.map(|(_, text)| (*text).to_owned())
        };
        quota(mounts, groups, &read)
    }

    #[test]
    fn a_part_of_a_processor_is_one() {
        for (affinity, quota, cpus) in [
            (8, None, 8),
            (8, Some(1500), 2),
            (8, Some(1000), 1),
            (8, Some(1001), 2),
            (8, Some(10), 1),
            (1, Some(4000), 1),
            (0, None, 1),
        ] {
            assert_eq!(usable(affinity, quota), cpus, "{affinity} {quota:?}");
        }
    }

    #[test]
    fn the_tightest_quota_of_ours_and_those_above_counts() {
        let files = [
            ("/sys/fs/cgroup/a/b/cpu.max", "max 100000\n"),
            ("/sys/fs/cgroup/a/cpu.max", "150000 100000\n"),
            ("/sys/fs/cgroup/cpu.max", "400000 100000\n"),
        ];
        assert_eq!(found(V2, "0::/a/b\n", &files), Some(1500));
        assert_eq!(found(V2, "0::/\n", &files), Some(4000));
        assert_eq!(found(V2, "0::/\n", &[]), None, "the root of all has no quota");
    }

    #[test]
    fn in_a_container_of_either_version_the_group_is_where_it_is_mounted() {
        let v1 = [
            ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000\n"),
            ("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
        ];
        let ours = "5:memory:/docker/ab\n4:cpu,cpuacct:/docker/ab\n";
        assert_eq!(found(V1, ours, &v1), Some(500));
        // A namespace of cgroups, in which ours is the root.
        let private = "7 6 0:29 / /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n";
        assert_eq!(found(private, "4:cpu:/\n", &v1), Some(500));
        let unlimited = [
            ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n"),
            ("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
        ];
        assert_eq!(found(V1, ours, &unlimited), None);
        // Of a group outside of what is mounted only the mount itself is seen.
        assert_eq!(found(V1, "4:cpu:/elsewhere\n", &v1), Some(500));
    }

    #[test]
    fn both_versions_side_by_side_are_both_asked() {
        let both = format!("{V2}{V1}");
        let files = [
            ("/sys/fs/cgroup/cpu.max", "300000 100000\n"),
            ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "200000\n"),
            ("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
        ];
        assert_eq!(found(&both, "4:cpu:/docker/ab\n0::/\n", &files), Some(2000));
    }

    #[test]
    fn nonsense_is_no_quota() {
        for text in ["", "max", "1", "x y", "100 0", "18446744073709551615 1", "0 100000"] {
            assert_eq!(found(V2, "0::/\n", &[("/sys/fs/cgroup/cpu.max", text)]), None, "{text:?}");
        }
        assert_eq!(found("a b c\n - \n", "x\n", &[]), None);
        assert_eq!(unescaped(r"/a\040b\134\9"), Path::new(r"/a b\\9"));
    }

    #[test]
    fn here_is_at_least_one_and_at_most_what_the_kernel_lets_us_run_on() {
        assert!((1..=affinity()).contains(&here()));
    }
}
