//! Network namespaces: an Engine of one's own lives in one, so that its firewall rules, bridges and ports are no
//! concern of the machine's.

use std::{
    fs::File,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::support::{ran::Ran, unique};

/// A network namespace of our own, with loopback and no way out. Removed when dropped.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    pub(crate) fn new() -> Self {
        let this = Self { name: unique("bulsa") };
        let ip = |words: &[&str]| drop(Ran::of(Command::new("ip").args(words)).exits(0));
        ip(&["netns", "add", &this.name]);
        ip(&["-n", &this.name, "link", "set", "lo", "up"]);
        // What asks for a registry hears at once that there is no way, instead of waiting for an answer.
        ip(&["-n", &this.name, "route", "add", "unreachable", "default"]);
        this
    }

    pub(crate) fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        Command::new("ip").args(["netns", "del", &self.name]).status().ok();
    }
}

/// Does something in another network namespace, in a thread of its own. Threads that it starts are there too.
pub(crate) fn within<T: Send + 'static>(
    namespace: Option<PathBuf>,
    act: impl FnOnce() -> T + Send + 'static,
) -> T {
    let thread = std::thread::spawn(move || {
        if let Some(path) = namespace {
            let file = File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network))
                .unwrap_or_else(|error| panic!("entering {}: {error}", path.display()));
        }
        act()
    });
    thread.join().unwrap()
}

/// What comes back for `GET path`, head and body; an error where nobody answers in time.
pub(crate) fn get(namespace: Option<PathBuf>, at: SocketAddr, path: &str) -> io::Result<String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n");
    within(namespace, move || {
        let limit = Duration::from_secs(10);
        let mut stream = TcpStream::connect_timeout(&at, limit)?;
        stream.set_read_timeout(Some(limit))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    })
}

/// A port where nothing listens, below those that replicas and outgoing connections get.
pub(crate) fn free_port() -> u16 {
    static TRIED: AtomicU16 = AtomicU16::new(0);
    // Tests run as processes side by side: each begins at another place.
    let start = std::process::id().wrapping_mul(41);
    loop {
        let tried = TRIED.fetch_add(1, Ordering::Relaxed);
        let port = 20_000 + u16::try_from((start + u32::from(tried)) % 9_900).unwrap();
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return port;
        }
    }
}
