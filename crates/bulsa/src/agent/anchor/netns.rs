//! Listening sockets inside an anchor's network namespace.
//!
//! A socket belongs to the namespace in which it was made, for ever; who accepts on it, and where, doesn't matter. So a
//! thread of its own enters the namespace, opens the sockets and ends: no other thread ever leaves the host's.
//!
//! Owns: that thread. Never: keeps a namespace; when the anchor is started again its namespace is another, and sockets of
//! the former one still look open while nobody can reach them.

use std::{fs::File, io, net::TcpListener, os::fd::AsFd};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::Anchor;
use crate::link::listeners::{ListenAddr, open_listeners};

/// Whether this process may enter network namespaces: the kernel asks for the same right where the namespace is its own.
///
/// # Errors
/// The reason.
pub async fn may_enter() -> Result<(), String> {
    let tried = tokio::task::spawn_blocking(|| std::thread::spawn(|| enter(std::process::id())).join()).await;
    match tried {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err("the thread that should try it ended badly".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Opens `count` listening sockets for each of `ports` inside an anchor's namespace, for IPv4 and IPv6.
///
/// # Errors
/// When the anchor is gone, or this process may not enter its namespace (that takes root).
pub async fn open(
    anchor: &Anchor,
    ports: Vec<u16>,
    count: usize,
) -> Result<Vec<(u16, Vec<TcpListener>)>, String> {
    let (pid, service) = (anchor.pid, anchor.service.clone());
    let opened = tokio::task::spawn_blocking(move || {
        // The pool's thread stays where it is: what enters the namespace is a thread that ends.
        std::thread::spawn(move || open_here(pid, &ports, count)).join()
    });
    let failed = |why: String| format!("the anchor of `{service}` can't be listened in: {why}");
    match opened.await {
        Ok(Ok(result)) => result.map_err(failed),
        Ok(Err(_)) => Err(failed("the thread that should do it ended badly".to_owned())),
        Err(error) => Err(failed(error.to_string())),
    }
}

/// The calling thread leaves its namespace for another process's.
fn enter(pid: u32) -> Result<(), String> {
    let told = |what: &str| {
        let what = what.to_owned();
        move |error: io::Error| format!("{what}: {error}")
    };
    let namespace = match File::open(format!("/proc/{pid}/ns/net")) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(format!("its namespace can't be looked into: {error}"));
        }
        opened => opened.map_err(told("its namespace is gone"))?,
    };
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(io::Error::from)
        .map_err(told("its namespace can't be entered"))
}

fn open_here(pid: u32, ports: &[u16], count: usize) -> Result<Vec<(u16, Vec<TcpListener>)>, String> {
    enter(pid)?;
    let mut all = Vec::new();
    for port in ports {
        // Over both families: a network with IPv6 gives the anchor an address of each, and Docker's DNS answers with
        // both. Where the namespace has no IPv6 it is IPv4 alone.
        let addr = ListenAddr { host: None, port: *port };
        all.push((*port, open_listeners(addr, count).map_err(|error| error.to_string())?));
    }
    Ok(all)
}
