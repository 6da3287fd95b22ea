//! Where groups can be made.
//!
//! Owns: reading how this host has its controllers, and choosing a directory for each. Never: limits anything.
//!
//! On version 1 groups are made below the daemon's own. Version 2 lets a group hand controllers down only while no
//! process is in it, so there the choice is, in this order:
//!
//! ```text
//! the root of all groups is the daemon's own       ─▶ bulsa/ in it
//! nobody but this daemon is in its own             ─▶ the daemon moves to bulsa-daemon/, replicas come beside it
//! the daemon is root                               ─▶ bulsa/ in the root of all groups
//! otherwise                                        ─▶ none: it needs a group of its own (systemd: Delegate=yes)
//! ```

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{Controller, at};
use crate::keeper::KEEPER_ENV;

/// What groups are made in, where the daemon's own group isn't theirs alone.
const BASE: &str = "bulsa";
/// Where the daemon goes.
const DAEMON: &str = "bulsa-daemon";

/// Which of the kernel's two interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    One,
    Two,
}

/// Where groups of one controller are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) version: Version,
    pub(super) base: PathBuf,
    /// Version 2: hands the controllers down in these, from above.
    opens: Vec<PathBuf>,
    /// Version 2: everybody in this one goes to [`DAEMON`] in it first.
    clears: Option<PathBuf>,
    controller: Controller,
}

/// Where groups can be made, for each controller; else why not.
#[derive(Clone, Debug)]
pub(crate) struct Cgroups(Vec<(Controller, Result<Place, String>)>);

impl Cgroups {
    /// Looks at this host. Changes nothing.
    pub(crate) fn find() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let host = Host {
            mounts: mounts(&read("/proc/self/mountinfo")),
            own: own(&read("/proc/self/cgroup")),
            is_root: rustix::process::geteuid().is_root(),
        };
        Self::of(&host, &is_ours)
    }

    fn of(host: &Host, is_ours: &dyn Fn(i32) -> bool) -> Self {
        let place = |controller: Controller| (controller, host.place(controller, is_ours));
        Self(Controller::ALL.into_iter().map(place).collect())
    }

    /// Where groups of a controller are made.
    ///
    /// # Errors
    /// Why they can't be.
    pub(super) fn place(&self, controller: Controller) -> Result<&Place, String> {
        let found = self.0.iter().find(|(one, _)| *one == controller).map(|(_, place)| place);
        found.map_or_else(|| Err("unknown".to_owned()), |place| place.as_ref().map_err(Clone::clone))
    }
}

/// Nothing but this daemon, its agent and its replicas has its mark; the keeper, our parent, has none.
fn is_ours(pid: i32) -> bool {
    let parent = rustix::process::getppid().map(|parent| parent.as_raw_pid());
    if Some(pid) == parent || pid == std::process::id().cast_signed() {
        return true;
    }
    let Some(mark) = std::env::var_os(KEEPER_ENV) else { return false };
    let wanted = [KEEPER_ENV.as_bytes(), b"=", mark.as_encoded_bytes()].concat();
    let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environ.split(|byte| *byte == 0).any(|variable| variable == wanted)
}

/// A mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    /// What of the hierarchy is at `point`.
    root: String,
    point: PathBuf,
    /// Its controllers; `None` is version 2.
    controllers: Option<Vec<String>>,
}

/// How a host has its controllers, for this process.
#[derive(Clone, Debug)]
struct Host {
    mounts: Vec<Mount>,
    /// This process's group: by the controllers of version 1, none for version 2.
    own: Vec<(Vec<String>, String)>,
    is_root: bool,
}

impl Host {
    fn place(&self, controller: Controller, is_ours: &dyn Fn(i32) -> bool) -> Result<Place, String> {
        let has = |names: &[String]| names.iter().any(|name| name == controller.name());
        let first = self.mounts.iter().find(|mount| mount.controllers.as_ref().is_some_and(|all| has(all)));
        if let Some(mount) = first {
            let own = self.own.iter().find(|(names, _)| has(names));
            let own = own.ok_or("this process is in none of its groups")?;
            let base = inside(mount, &own.1).join(BASE);
            let (opens, clears) = (Vec::new(), None);
            return Ok(Place { version: Version::One, base, opens, clears, controller });
        }
        let mount = self.mounts.iter().find(|mount| mount.controllers.is_none());
        let mount = mount.ok_or("no control groups are mounted here")?;
        let own = self.own.iter().find(|(names, _)| names.is_empty());
        let own = inside(mount, &own.ok_or("this process is in no group of version 2")?.1);
        self.second(controller, &mount.point, &own, is_ours)
    }

    fn second(
        &self,
        controller: Controller,
        top: &Path,
        own: &Path,
        is_ours: &dyn Fn(i32) -> bool,
    ) -> Result<Place, String> {
        let place = |base: PathBuf, opens: Vec<PathBuf>, clears| {
            let above = opens.first().map_or(base.as_path(), PathBuf::as_path);
            let here = fs::read_to_string(above.join("cgroup.controllers")).unwrap_or_default();
            if !here.split_whitespace().any(|name| name == controller.name()) {
                return Err(format!("{} has no such controller", above.display()));
            }
            Ok(Place { version: Version::Two, base, opens, clears, controller })
        };
        let own_name = own.file_name().and_then(|name| name.to_str());
        if let (Some(DAEMON), Some(parent)) = (own_name, own.parent()) {
            return place(parent.to_owned(), vec![parent.to_owned()], None);
        }
        // Only the root of all groups has no type.
        if !own.join("cgroup.type").exists() {
            return place(own.join(BASE), vec![own.to_owned(), own.join(BASE)], None);
        }
        let members = fs::read_to_string(own.join("cgroup.procs")).unwrap_or_default();
        let mut members = members.lines().filter_map(|line| line.trim().parse().ok());
        if members.all(is_ours) {
            return place(own.to_owned(), vec![own.to_owned()], Some(own.to_owned()));
        }
        if self.is_root && top.join("cgroup.controllers").exists() {
            return place(top.join(BASE), vec![top.to_owned(), top.join(BASE)], None);
        }
        Err("others are in this daemon's group: start it as a service of its own, with Delegate=yes"
            .to_owned())
    }
}

impl Place {
    /// Makes what groups are made in, and has its controllers handed down.
    pub(super) fn ensure(&self) -> io::Result<()> {
        if let Some(own) = &self.clears {
            let aside = own.join(DAEMON);
            create(&aside)?;
            let members = own.join("cgroup.procs");
            for pid in fs::read_to_string(&members).map_err(|error| at(&members, &error))?.lines() {
                let entrance = aside.join("cgroup.procs");
                match fs::write(&entrance, pid) {
                    // It has ended meanwhile.
                    Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                    Err(error) => return Err(at(&entrance, &error)),
                    Ok(()) => {}
                }
            }
        }
        if self.version == Version::One {
            return create(&self.base);
        }
        for directory in &self.opens {
            create(directory)?;
            let file = directory.join("cgroup.subtree_control");
            let given = fs::read_to_string(&file).map_err(|error| at(&file, &error))?;
            if !given.split_whitespace().any(|name| name == self.controller.name()) {
                fs::write(&file, format!("+{}", self.controller)).map_err(|error| at(&file, &error))?;
            }
        }
        Ok(())
    }
}

fn create(directory: &Path) -> io::Result<()> {
    match fs::create_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(at(directory, &error)),
        _ => Ok(()),
    }
}

/// The directory of a group that `/proc/self/cgroup` names. What is mounted may begin below the hierarchy's root.
fn inside(mount: &Mount, path: &str) -> PathBuf {
    let below = path.strip_prefix(mount.root.trim_end_matches('/')).unwrap_or(path);
    mount.point.join(below.trim_start_matches('/'))
}

/// `ID PARENT MAJOR:MINOR ROOT POINT OPTIONS … - TYPE SOURCE OPTIONS` (proc_pid_mountinfo(5)).
fn mounts(mountinfo: &str) -> Vec<Mount> {
    let of = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let (mut left, mut right) = (left.split(' '), right.split(' '));
        let (root, point) = (left.nth(3)?.to_owned(), PathBuf::from(left.next()?));
        let controllers = match right.next()? {
            "cgroup2" => None,
            "cgroup" => Some(right.nth(1)?.split(',').map(str::to_owned).collect()),
            _ => return None,
        };
        Some(Mount { root, point, controllers })
    };
    mountinfo.lines().filter_map(of).collect()
}

/// `ID:CONTROLLERS:PATH` (cgroups(7)).
fn own(cgroup: &str) -> Vec<(Vec<String>, String)> {
    let of = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let controllers = parts.next()?.split(',').filter(|name| !name.is_empty());
        Some((controllers.map(str::to_owned).collect(), parts.next()?.to_owned()))
    };
    cgroup.lines().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(mountinfo: &str, cgroup: &str, is_root: bool) -> Host {
        Host { mounts: mounts(mountinfo), own: own(cgroup), is_root }
    }

    /// A tree that looks like version 2, mounted at a temporary directory.
    fn second(own_path: &str, members: &str, is_root: bool) -> (tempfile::TempDir, Host) {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join(own_path.trim_start_matches('/'));
        fs::create_dir_all(&own).unwrap();
        for directory in own.ancestors().take_while(|one| one.starts_with(dir.path())) {
            fs::write(directory.join("cgroup.controllers"), "cpuset cpu io memory pids\n").unwrap();
            fs::write(directory.join("cgroup.subtree_control"), "").unwrap();
            if directory != dir.path() {
                fs::write(directory.join("cgroup.type"), "domain\n").unwrap();
            }
        }
        fs::write(own.join("cgroup.procs"), members).unwrap();
        let info = format!("30 23 0:26 / {} rw,nosuid - cgroup2 cgroup2 rw\n", dir.path().display());
        let host = host(&info, &format!("0::{own_path}\n"), is_root);
        (dir, host)
    }

    fn base(host: &Host) -> Result<PathBuf, String> {
        host.place(Controller::Memory, &|pid| pid == 7).map(|place| place.base)
    }

    #[test]
    fn each_controller_of_version_1_has_a_place_of_its_own() {
        let info = "32 24 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                    33 24 0:28 /docker/ab /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                    34 24 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let cgroup = "4:cpu,cpuacct:/system.slice/bulsa.service\n3:memory:/docker/ab/x\n0::/system.slice\n";
        let host = host(info, cgroup, false);
        let place = |controller| host.place(controller, &|_| true).map(|place| (place.version, place.base));
        assert_eq!(
            place(Controller::Cpu),
            Ok((Version::One, PathBuf::from("/sys/fs/cgroup/cpu,cpuacct/system.slice/bulsa.service/bulsa")))
        );
        assert_eq!(
            place(Controller::Memory),
            Ok((Version::One, PathBuf::from("/sys/fs/cgroup/memory/x/bulsa")))
        );
        let why = place(Controller::Pids).unwrap_err();
        assert!(why.ends_with("has no such controller"), "{why}");
    }

    #[test]
    fn a_daemon_alone_in_its_group_makes_room_in_it() {
        let (dir, host) = second("/user.slice/bulsa.service", "7\n", false);
        let own = dir.path().join("user.slice/bulsa.service");
        assert_eq!(base(&host), Ok(own.clone()));
        host.place(Controller::Memory, &|_| true).unwrap().ensure().unwrap();
        assert_eq!(fs::read_to_string(own.join("bulsa-daemon/cgroup.procs")).unwrap(), "7");
        assert_eq!(fs::read_to_string(own.join("cgroup.subtree_control")).unwrap(), "+memory");
        // And the agent after it finds the same place.
        fs::write(own.join("bulsa-daemon/cgroup.type"), "domain\n").unwrap();
        let host =
            Host { own: vec![(Vec::new(), "/user.slice/bulsa.service/bulsa-daemon".to_owned())], ..host };
        assert_eq!(base(&host), Ok(own));
    }

    #[test]
    fn among_others_it_takes_root_to_have_a_place_above() {
        let (dir, host) = second("/user.slice/session-3.scope", "7\n8\n", true);
        assert_eq!(base(&host), Ok(dir.path().join("bulsa")));
        let (_dir, host) = second("/user.slice/session-3.scope", "7\n8\n", false);
        assert!(base(&host).unwrap_err().contains("Delegate=yes"));
    }

    #[test]
    fn in_the_root_of_all_groups_nobody_has_to_move() {
        let (dir, host) = second("/", "1\n7\n", true);
        assert_eq!(base(&host), Ok(dir.path().join("bulsa")));
    }

    #[test]
    fn without_any_there_is_a_word() {
        assert_eq!(base(&host("", "", true)), Err("no control groups are mounted here".to_owned()));
    }
}
