//! Control groups: what a process may take of the host.
//!
//! Owns: finding where groups can be made ([`place`]), a group for each replica that has limits, what the kernel counted
//! in it, and removing it. Never: moves a replica into its group; the keeper does that to what it starts, through the
//! files that [`Group::entrances`] names.
//!
//! Both versions are used as they are found, each controller where it is: version 1 has a hierarchy for each
//! ([cgroup-v1](https://docs.kernel.org/admin-guide/cgroup-v1/)), version 2 one for all
//! ([cgroup-v2](https://docs.kernel.org/admin-guide/cgroup-v2.html)). A group's name follows from owner and replica, as
//! a network namespace's does ([`super::netns::name_of`]), so that what a killed agent left is found.

use std::{
    collections::BTreeSet,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use bulsa_core::{ids::ReplicaId, spec::ResourceLimits};

use super::netns::{name_of, prefix_of};

mod place;

pub(crate) use self::place::Cgroups;
use self::place::{Place, Version};

/// The time in which a replica's share of the processors is counted, in microseconds: the kernel's default.
const CPU_PERIOD: u64 = 100_000;

/// What a controller limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Controller {
    Cpu,
    Memory,
    Pids,
}

impl Controller {
    pub(crate) const ALL: [Self; 3] = [Self::Cpu, Self::Memory, Self::Pids];

    /// The kernel's name of it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Pids => "pids",
        }
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A replica's group: a directory in each hierarchy that is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Group(BTreeSet<PathBuf>);

impl Group {
    /// The directories.
    pub(crate) fn directories(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(PathBuf::as_path)
    }

    /// The files through which a process enters it.
    pub(crate) fn entrances(&self) -> impl Iterator<Item = PathBuf> {
        self.0.iter().map(|directory| directory.join("cgroup.procs"))
    }
}

/// Makes the group of a replica with its limits. Says which of them it can't have, and why; the others hold.
pub(crate) fn make(
    cgroups: &Cgroups,
    owner: &str,
    replica: &ReplicaId,
    limits: &ResourceLimits,
) -> (Group, Vec<String>) {
    let name = name_of(owner, replica);
    let (mut group, mut missing) = (Group::default(), Vec::new());
    for controller in Controller::ALL {
        let settings = |version| settings(controller, version, limits);
        if settings(Version::Two).is_empty() {
            continue;
        }
        let made = cgroups.place(controller).and_then(|place| {
            let directory = limited(place, &name, &settings(place.version)).map_err(|e| e.to_string())?;
            Ok(directory)
        });
        match made {
            Ok(directory) => {
                group.0.insert(directory);
            }
            Err(why) => missing.push(format!("{controller} ({why})")),
        }
    }
    (group, missing)
}

/// A file of a group, what is written to it, and whether a kernel without the file is none to complain of.
type Setting = (&'static str, String, bool);

/// Memory alone would only move a program to swap: as with the Engine's containers it may take as much of that again.
fn settings(controller: Controller, version: Version, limits: &ResourceLimits) -> Vec<Setting> {
    let needed = |file, value: u64| (file, value.to_string(), false);
    match (controller, version) {
        (Controller::Cpu, _) => {
            let Some(millicpus) = limits.millicpus else { return Vec::new() };
            let quota = millicpus.saturating_mul(CPU_PERIOD / 1000);
            match version {
                Version::One => {
                    vec![needed("cpu.cfs_period_us", CPU_PERIOD), needed("cpu.cfs_quota_us", quota)]
                }
                Version::Two => vec![("cpu.max", format!("{quota} {CPU_PERIOD}"), false)],
            }
        }
        (Controller::Memory, _) => {
            let Some(memory) = limits.memory else { return Vec::new() };
            match version {
                Version::One => vec![
                    needed("memory.limit_in_bytes", memory),
                    ("memory.memsw.limit_in_bytes", memory.saturating_mul(2).to_string(), true),
                ],
                Version::Two => vec![
                    needed("memory.max", memory),
                    ("memory.swap.max", memory.to_string(), true),
                    // Half a replica serves nobody.
                    ("memory.oom.group", "1".to_owned(), true),
                ],
            }
        }
        (Controller::Pids, _) => limits.pids.map(|pids| needed("pids.max", pids)).into_iter().collect(),
    }
}

/// A directory with these settings.
fn limited(place: &Place, name: &str, settings: &[Setting]) -> io::Result<PathBuf> {
    place.ensure()?;
    let directory = place.base.join(name);
    match fs::create_dir(&directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(at(&directory, &error)),
        _ => {}
    }
    match set(&directory, settings) {
        Ok(()) => Ok(directory),
        Err(error) => {
            // Half a group holds nobody to anything. One that stays all the same is found by its name.
            fs::remove_dir(&directory).ok();
            Err(error)
        }
    }
}

fn set(directory: &Path, settings: &[Setting]) -> io::Result<()> {
    for (file, value, is_optional) in settings {
        let file = directory.join(file);
        match fs::write(&file, value) {
            Err(error) if !is_optional || error.kind() != io::ErrorKind::NotFound => {
                return Err(at(&file, &error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Whether the kernel killed anything in these groups for want of memory; `None` where it doesn't say.
pub(crate) fn ran_out_of_memory(directories: &[PathBuf]) -> Option<bool> {
    let of = |directory: &PathBuf| {
        let text = fs::read_to_string(directory.join("memory.events"))
            .or_else(|_| fs::read_to_string(directory.join("memory.oom_control")))
            .ok()?;
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "))?;
        count.trim().parse::<u64>().ok()
    };
    directories.iter().find_map(of).map(|count| 0 < count)
}

/// Removes a group that nobody is in any more.
///
/// # Errors
/// If somebody is; what is gone already is none.
pub(crate) fn remove(directories: &[PathBuf]) -> io::Result<()> {
    let mut result = Ok(());
    for directory in directories {
        match fs::remove_dir(directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => result = Err(at(directory, &error)),
            _ => {}
        }
    }
    result
}

/// An owner's groups that aren't in `keep`.
pub(crate) fn leftovers(cgroups: &Cgroups, owner: &str, keep: &BTreeSet<PathBuf>) -> Vec<PathBuf> {
    let prefix = prefix_of(owner);
    let bases: BTreeSet<&Path> = Controller::ALL
        .iter()
        .filter_map(|controller| Some(cgroups.place(*controller).ok()?.base.as_path()))
        .collect();
    let entries = bases.into_iter().filter_map(|base| fs::read_dir(base).ok()).flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix)))
        .map(|entry| entry.path())
        .filter(|path| path.is_dir() && !keep.contains(path))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ResourceLimits =
        ResourceLimits { millicpus: Some(500), memory: Some(64 << 20), pids: Some(20) };

    fn texts(controller: Controller, version: Version) -> Vec<(&'static str, String)> {
        settings(controller, version, &LIMITS).into_iter().map(|(file, value, _)| (file, value)).collect()
    }

    #[test]
    fn the_same_limits_are_said_in_the_words_of_each_version() {
        let owned = |pairs: &[(&'static str, &str)]| -> Vec<(&'static str, String)> {
            pairs.iter().map(|(file, value)| (*file, (*value).to_owned())).collect()
        };
        assert_eq!(
            texts(Controller::Cpu, Version::One),
            owned(&[("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "50000")])
        );
        assert_eq!(texts(Controller::Cpu, Version::Two), owned(&[("cpu.max", "50000 100000")]));
        assert_eq!(
            texts(Controller::Memory, Version::One),
            owned(&[("memory.limit_in_bytes", "67108864"), ("memory.memsw.limit_in_bytes", "134217728")])
        );
        assert_eq!(
            texts(Controller::Memory, Version::Two),
            owned(&[("memory.max", "67108864"), ("memory.swap.max", "67108864"), ("memory.oom.group", "1")])
        );
        for version in [Version::One, Version::Two] {
            assert_eq!(texts(Controller::Pids, version), owned(&[("pids.max", "20")]));
            assert!(settings(Controller::Cpu, version, &ResourceLimits::default()).is_empty());
        }
    }

    #[test]
    fn what_the_kernel_killed_is_read_in_both_versions() {
        let dir = tempfile::tempdir().unwrap();
        let group = [dir.path().to_owned()];
        assert_eq!(ran_out_of_memory(&group), None);
        fs::write(dir.path().join("memory.oom_control"), "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n")
            .unwrap();
        assert_eq!(ran_out_of_memory(&group), Some(true));
        fs::write(dir.path().join("memory.events"), "low 0\nmax 7\noom 1\noom_kill 0\n").unwrap();
        assert_eq!(ran_out_of_memory(&group), Some(false));
    }
}
