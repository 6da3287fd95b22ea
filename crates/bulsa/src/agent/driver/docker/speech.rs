//! What is spoken on a published port: HTTP, or anything else.
//!
//! Owns: asking a replica that is ready, once per port of each release. A port is HTTP if the file says so, if it is checked over HTTP,
//! or if a replica answers HTTP/1 on it; else it is passed through as plain TCP. Never: asks a port whose protocol the
//! file gives; changes its mind while a release serves.

use std::{net::SocketAddr, time::Duration};

use bulsa_core::{
    ids::{ReleaseId, ReplicaId},
    spec::{Check, Protocol, Service},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

use super::{DockerInput, Driver};

/// A server that says nothing for so long after a request doesn't speak HTTP.
const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// A port on which nobody listens yet is asked again after this long,
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// and so often: some programs open a further port late. After that the next replica that gets ready is asked.
const ASKS_MAX: u32 = 30;

/// What was found on a port.
pub(in crate::agent) struct Spoken {
    project: String,
    release: ReleaseId,
    service: String,
    port: u16,
    /// `None`: nobody listens on it.
    protocol: Option<Protocol>,
}

impl Driver {
    /// A replica is ready: asks it what it speaks on the ports of which that isn't known.
    pub(in crate::agent::driver) fn ask_what_is_spoken(&mut self, name: &str, id: &ReplicaId) {
        let Some(project) = self.projects.get_mut(name) else { return };
        let Some(service) = project.desired.service(id.release, &id.service) else { return };
        if !super::is_container(service) {
            return;
        }
        let Some(addr) = project.observed.replica(id).and_then(|replica| replica.addr) else { return };
        let unknown: Vec<u16> = ports(service)
            .filter(|port| known(service, *port).is_none())
            .filter(|port| {
                let found = project.spoken.get(&(id.service.clone(), *port));
                found.is_none_or(|found| !found.contains_key(&id.release))
            })
            .collect();
        for port in unknown {
            let asked = (name.to_owned(), id.service.clone(), port, id.release);
            if !self.docker.asking_what_is_spoken.insert(asked) {
                continue;
            }
            let (inbox, project) = (self.inbox.clone(), name.to_owned());
            let (release, service) = (id.release, id.service.clone());
            let addr = SocketAddr::new(addr.ip(), port);
            self.tasks.spawn(async move {
                let mut protocol = None;
                for _ in 0..ASKS_MAX {
                    protocol = ask(addr).await;
                    if protocol.is_some() {
                        break;
                    }
                    sleep(ASK_AGAIN).await;
                }
                let spoken = Spoken { project, release, service, port, protocol };
                inbox.send(DockerInput::Spoken(spoken).into()).await.ok();
            });
        }
    }

    pub(super) fn spoken(&mut self, spoken: &Spoken) {
        let asked = (spoken.project.clone(), spoken.service.clone(), spoken.port, spoken.release);
        self.docker.asking_what_is_spoken.remove(&asked);
        let (Some(project), Some(protocol)) = (self.projects.get_mut(&spoken.project), spoken.protocol)
        else {
            return;
        };
        let found = project.spoken.entry((spoken.service.clone(), spoken.port)).or_default();
        found.retain(|release, _| project.desired.releases.contains_key(release));
        found.insert(spoken.release, protocol);
        // It changes nothing for a release that isn't live yet.
        self.republish = true;
    }
}

/// Every port that the proxy may listen for.
fn ports(service: &Service) -> impl Iterator<Item = u16> {
    let anchored = service.container.iter().flat_map(|container| container.anchor.iter().copied());
    service.ports.iter().map(|port| port.target).chain(anchored)
}

/// What the file says of a port, or what its check shows.
pub(in crate::agent::driver) fn known(service: &Service, target: u16) -> Option<Protocol> {
    let said = service.ports.iter().find(|port| port.target == target).map(|port| port.protocol);
    match said {
        Some(protocol @ (Protocol::Http | Protocol::Tcp)) => return Some(protocol),
        Some(Protocol::Detect) | None => {}
    }
    let first = ports(service).next();
    match &service.probe.check {
        Check::Http { port, .. } if port.or(first) == Some(target) => Some(Protocol::Http),
        _ => None,
    }
}

/// What the first bytes of an answer are; `None` where nobody takes the connection.
async fn ask(addr: SocketAddr) -> Option<Protocol> {
    let mut stream = timeout(ANSWER_WAIT, TcpStream::connect(addr)).await.ok()?.ok()?;
    let answer = async {
        let head =
            format!("GET / HTTP/1.1\r\nHost: {addr}\r\nUser-Agent: bulsa-probe\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.ok()?;
        let mut first = [0_u8; 7];
        stream.read_exact(&mut first).await.ok()?;
        Some(first == *b"HTTP/1.")
    };
    let is_http = timeout(ANSWER_WAIT, answer).await.ok().flatten().unwrap_or(false);
    Some(if is_http { Protocol::Http } else { Protocol::Tcp })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    async fn server(says: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(says).await.unwrap();
            let mut rest = Vec::new();
            drop(stream.read_to_end(&mut rest).await);
        });
        addr
    }

    #[tokio::test]
    async fn a_web_server_and_a_database_are_told_apart() {
        assert_eq!(ask(server(b"HTTP/1.1 404 Not Found\r\n\r\n").await).await, Some(Protocol::Http));
        assert_eq!(ask(server(b"5.7.30-log\0 greeting").await).await, Some(Protocol::Tcp));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_waits_for_its_own_protocol_speaks_no_http() {
        assert_eq!(ask(server(b"").await).await, Some(Protocol::Tcp));
    }

    #[tokio::test]
    async fn where_nobody_listens_nothing_is_known() {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        assert_eq!(ask(free).await, None);
    }
}
