//! The processes that this binary can be.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;

use bulsa::keeper::{self, Config};
use bulsa::link::Link;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

/// `__keeper STATE_DIR SOCKET`
pub(crate) fn keeper(arguments: Vec<String>) -> ExitCode {
    let own = std::env::current_exe().unwrap().into_os_string();
    let agent = vec![own.clone(), OsString::from("__agent"), OsString::from(&arguments[1])];
    let proxy = vec![OsString::from("/proc/self/exe"), OsString::from("__proxy")];
    let config = Config { state_dir: PathBuf::from(&arguments[0]), agent, proxy, init: None };
    match keeper::run(config) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(1)
        }
    }
}

/// `__agent SOCKET`: gives its keeper link to the test and lives until it is killed, or the test ends.
pub(crate) fn agent(arguments: Vec<String>) -> ExitCode {
    let link = Link::from_stdin().unwrap();
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    if connect(&socket, &SocketAddrUnix::new(arguments[0].as_str()).unwrap()).is_err() {
        return ExitCode::FAILURE;
    }
    let test = Link::new(socket).unwrap();
    test.send(&std::process::id(), &[link.as_fd()]).unwrap();
    drop(link);
    let mut fds = [rustix::event::PollFd::new(&test, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut fds, None).unwrap();
    ExitCode::SUCCESS
}

/// `__proxy`
pub(crate) fn proxy() -> ExitCode {
    match bulsa::proxy_process::run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
