//! The only unsafe code of this program: what happens between `fork` and `exec`, and one call that
//! names a dead child without reaping it.
//!
//! Between `fork` and `exec` the child may only make async-signal-safe calls: no allocation, no lock, no
//! panic. Everything here is a plain system call on values that were made before the fork.

#![expect(
    unsafe_code,
    reason = "fork hooks and waitid have no safe interface; each block says why it is sound"
)]

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Gid, Pid, Resource, Rlimit, Uid};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// What a child becomes before it runs its program, in this order.
#[derive(Debug, Default)]
pub(crate) struct ChildSetup {
    /// Whether it leads a session of its own, and with it a process group.
    pub(crate) session: bool,
    /// The files through which it enters its control groups, open to be written.
    pub(crate) cgroups: Vec<OwnedFd>,
    /// The network namespace to move into.
    pub(crate) netns: Option<OwnedFd>,
    /// The limit of open files to set.
    pub(crate) open_files: Option<Rlimit>,
    /// Supplementary groups to have.
    pub(crate) groups: Option<Vec<u32>>,
    /// The group to become.
    pub(crate) gid: Option<u32>,
    /// The user to become.
    pub(crate) uid: Option<u32>,
    /// Whether programs with the setuid bit lose their effect.
    pub(crate) no_new_privs: bool,
}

/// The step of [`ChildSetup`] that failed. The standard library hands only an error number from the
/// child to us, so the step is put into it, above every number that the kernel uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Session,
    Cgroups,
    Netns,
    OpenFiles,
    Groups,
    Gid,
    Uid,
    NoNewPrivs,
}

const STEPS: [Step; 8] = [
    Step::Session,
    Step::Cgroups,
    Step::Netns,
    Step::OpenFiles,
    Step::Groups,
    Step::Gid,
    Step::Uid,
    Step::NoNewPrivs,
];
const STEP_FACTOR: i32 = 0x1_0000;

impl Step {
    fn failed(self, errno: rustix::io::Errno) -> io::Error {
        io::Error::from_raw_os_error((self as i32 + 1) * STEP_FACTOR + errno.raw_os_error())
    }

    /// The step that an error of [`Command::spawn`] came from, and its real error.
    pub(crate) fn of(error: &io::Error) -> Option<(Self, io::Error)> {
        let code = error.raw_os_error()?;
        let index = usize::try_from(code / STEP_FACTOR - 1).ok()?;
        Some((*STEPS.get(index)?, io::Error::from_raw_os_error(code % STEP_FACTOR)))
    }
}

/// Makes `command` apply `setup` in the child, and start with every signal at its default and no descriptor
/// but its standard three.
pub(crate) fn prepare(command: &mut Command, setup: ChildSetup) {
    let groups: Option<Vec<Gid>> =
        setup.groups.as_ref().map(|groups| groups.iter().map(|gid| Gid::from_raw(*gid)).collect());
    let hook = move || {
        reset_signals();
        close_descriptors_on_exec();
        if setup.session {
            rustix::process::setsid().map_err(|errno| Step::Session.failed(errno))?;
        }
        for entrance in &setup.cgroups {
            // 0 is who writes it.
            rustix::io::write(entrance, b"0").map_err(|errno| Step::Cgroups.failed(errno))?;
        }
        if let Some(netns) = &setup.netns {
            move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(|errno| Step::Netns.failed(errno))?;
        }
        if let Some(limit) = setup.open_files {
            let limit = Rlimit { current: limit.current, maximum: limit.maximum };
            rustix::process::setrlimit(Resource::Nofile, limit)
                .map_err(|errno| Step::OpenFiles.failed(errno))?;
        }
        // Groups first: they need the rights that changing the user gives away.
        if let Some(groups) = &groups {
            rustix::thread::set_thread_groups(groups).map_err(|errno| Step::Groups.failed(errno))?;
        }
        if let Some(gid) = setup.gid.map(Gid::from_raw) {
            rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(|errno| Step::Gid.failed(errno))?;
        }
        if let Some(uid) = setup.uid.map(Uid::from_raw) {
            rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(|errno| Step::Uid.failed(errno))?;
        }
        if setup.no_new_privs {
            rustix::thread::set_no_new_privs(true).map_err(|errno| Step::NoNewPrivs.failed(errno))?;
        }
        Ok(())
    };
    // SAFETY: the hook runs in the forked child. It only makes system calls through rustix (which issues them
    // directly) and libc's `signal` and `syscall`, all async-signal-safe, on values captured before the fork;
    // it allocates nothing (`io::Error::from_raw_os_error` does not), locks nothing and cannot panic.
    unsafe {
        command.pre_exec(hook);
    }
}

/// A daemon may be started with signals ignored (`nohup`, a shell's `&`), and `exec` keeps that.
fn reset_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: `signal` with SIG_DFL installs no handler, touches no memory of ours and is async-signal-safe.
        // It fails for SIGKILL, SIGSTOP and the two that the C library keeps; they are not changed by anyone.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
        }
    }
}

/// Whoever started us may have left descriptors open; ours are all close-on-exec already.
fn close_descriptors_on_exec() {
    const FIRST: libc::c_uint = 3;
    // SAFETY: marks descriptors of the child close-on-exec; none is closed here. An old kernel refuses, then only
    // descriptors that our starter leaked are inherited.
    unsafe {
        libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
    }
}

/// The pid of some child that has ended and is not yet reaped. It stays so: its pid, and the number of the
/// group that it leads, belong to nobody else until it is reaped.
pub(crate) fn peek_dead_child() -> io::Result<Option<Pid>> {
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: an all-zero siginfo_t is a valid value: it is a plain C struct of integers and pointers.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: `info` is a valid place to write to for the time of the call.
    let result = unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, options) };
    if result != 0 {
        let error = io::Error::last_os_error();
        return if error.raw_os_error() == Some(libc::ECHILD) { Ok(None) } else { Err(error) };
    }
    // SAFETY: waitid succeeded, so it filled in `si_pid`, or left it zero when no child has ended.
    Ok(Pid::from_raw(unsafe { info.si_pid() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_is_told_from_a_failed_exec() {
        let error = Step::Uid.failed(rustix::io::Errno::PERM);
        let (step, cause) = Step::of(&error).unwrap();
        assert_eq!(step, Step::Uid);
        assert_eq!(cause.kind(), io::ErrorKind::PermissionDenied);
        assert!(Step::of(&io::Error::from_raw_os_error(libc::ENOENT)).is_none());
    }
}
