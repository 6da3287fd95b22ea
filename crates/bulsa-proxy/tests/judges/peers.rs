//! The same bytes through nginx and HAProxy: where they refuse and the proxy doesn't, there is a reason.
//!
//! The reasons are in `docs/strictness.md`, those for which the proxy refuses what they don't, too. `--no-capture` shows
//! every difference.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Stdio;

use bulsa_proxy::Target;
use tokio::net::TcpStream;
use tokio::process::Child;
use tokio::time::{Duration, sleep};

use crate::client::{Came, Then, send};
use crate::corpus::{self, Payload};
use crate::programs::{command, debian_or_skip};
use crate::recorder::Recorder;
use crate::support::{Rig, patient, table};

/// A kind of difference that is meant.
struct Reason {
    /// As `docs/strictness.md` has it.
    name: &'static str,
    is: fn(&[u8], &Difference) -> bool,
}

/// What differs.
#[derive(Debug)]
struct Difference {
    /// What the proxy forwards.
    ours: Vec<String>,
    /// What the peer forwards.
    theirs: Vec<String>,
    /// The peer has forwarded something that the backend's narrow reading refuses.
    is_garbled: bool,
}

/// Why a peer refuses, or reads otherwise, what the proxy forwards.
const REASONS: &[Reason] = &[
    Reason { name: "methods of any name", is: |_, it| it.ours.iter().any(|line| !is_usual_method(line)) },
    Reason { name: "tabs around a value", is: |bytes, _| has(bytes, b"\t\r\n") || has(bytes, b": \t") },
    Reason { name: "`OPTIONS *`", is: |bytes, _| bytes.starts_with(b"OPTIONS * ") },
    Reason {
        name: "another host in the target",
        is: |bytes, _| bytes.to_ascii_lowercase().starts_with(b"get http://"),
    },
    Reason { name: "trailers and letter case", is: |_, it| it.is_garbled },
];

/// Whether a line of [`Difference`] begins with a method in capitals.
fn is_usual_method(line: &str) -> bool {
    line.split(' ').next().is_some_and(|method| method.bytes().all(|b| b.is_ascii_uppercase()))
}

fn has(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

const PAGE: &str = include_str!("../../../../docs/strictness.md");

/// What the proxy says when it refuses what a peer forwards.
const REFUSALS: &[&str] = &[
    "This is no request that can be read in one way only.",
    "It cannot be told where the request ends.",
    "The request's body could not be read.",
    "The request needs exactly one valid Host.",
    "The request's target is none.",
    "Only HTTP/1.1 and HTTP/1.0 are served here.",
    "CONNECT is not served here.",
];

/// What the proxy has said to a request that it does not forward. The answer to `HEAD` has no words.
fn refusal(bytes: &[u8], our: &Came) -> Option<&'static str> {
    if bytes.starts_with(b"HEAD ") && our.statuses.first() == Some(&400) && !has(bytes, b"Host:") {
        return REFUSALS.iter().copied().find(|said| said.contains("Host"));
    }
    REFUSALS.iter().copied().find(|said| our.answers.contains(said))
}

/// What a proxy forwards: lines with bodies.
fn forwarded(came: &Came) -> Vec<String> {
    came.asked.iter().map(|asked| format!("{} [{}]", asked.line(), asked.body.escape_ascii())).collect()
}

/// A peer that runs, in front of a backend of its own.
struct Peer {
    addr: SocketAddr,
    backend: Recorder,
    /// What its clients do, so that it soon decides.
    then: Then,
    _child: Child,
    _directory: tempfile::TempDir,
}

impl Peer {
    async fn nginx() -> Option<Self> {
        let program = debian_or_skip("usr/sbin/nginx")?;
        let config = |port: u16, backend: SocketAddr, place: &str| {
            let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                .map(|what| format!("{what}_temp_path {place}/{what};\n"))
                .concat();
            format!(
                "daemon off; master_process off; pid {place}/pid; error_log {place}/errors;\n\
                 events {{ worker_connections 256; }}\n\
                 http {{ access_log off; {temporary} upstream app {{ server {backend}; keepalive 4; }}\n\
                 server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://app; proxy_http_version 1.1;\n\
                 proxy_set_header Connection \"\"; proxy_request_buffering off; proxy_next_upstream off; }} }} }}\n"
            )
        };
        Some(Self::start(&program, &["-e", "/dev/null", "-p", ".", "-c"], config, Then::Waits).await)
    }

    async fn haproxy() -> Option<Self> {
        let program = debian_or_skip("usr/sbin/haproxy")?;
        let config = |port: u16, backend: SocketAddr, _: &str| {
            format!(
                "global\n maxconn 256\ndefaults\n mode http\n retries 0\n timeout connect 2s\n timeout client 5s\n \
                 timeout server 5s\nfrontend f\n bind 127.0.0.1:{port}\n default_backend b\nbackend b\n \
                 server s {backend}\n"
            )
        };
        Some(Self::start(&program, &["-db", "-f"], config, Then::HalfCloses).await)
    }

    async fn start(
        program: &std::path::Path,
        args: &[&str],
        config: impl Fn(u16, SocketAddr, &str) -> String,
        then: Then,
    ) -> Self {
        let backend = Recorder::start().await;
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().to_str().unwrap();
        let addr = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let file = directory.path().join("config");
        std::fs::write(&file, config(addr.port(), backend.addr, place)).unwrap();
        let mut command = command(program);
        command
            .args(args)
            .arg(&file)
            .current_dir(directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        patient(async {
            while TcpStream::connect(addr).await.is_err() {
                assert!(child.try_wait().unwrap().is_none(), "{} does not start", program.display());
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        Self { addr, backend, then, _child: child, _directory: directory }
    }
}

/// Sends everything to a proxy.
async fn all_through(addr: SocketAddr, backend: &Recorder, payloads: &[Payload], then: Then) -> Vec<Came> {
    let mut all = Vec::new();
    for payload in payloads {
        all.push(send(addr, backend, &payload.bytes, then).await);
    }
    all
}

async fn compare(name: &str, peer: Option<Peer>) {
    let Some(peer) = peer else { return };
    let payloads = corpus::all();
    let backend = Recorder::start().await;
    let rig = Rig::new(&table(1, &[Target::new("a", backend.addr)])).await;
    let (ours, theirs) = tokio::join!(
        all_through(rig.addr, &backend, &payloads, Then::Waits),
        all_through(peer.addr, &peer.backend, &payloads, peer.then)
    );
    let mut sums = BTreeMap::<&str, usize>::new();
    let mut wrong = Vec::new();
    for (payload, (our, their)) in payloads.iter().zip(ours.iter().zip(&theirs)) {
        let is_garbled = !their.garbled.is_empty();
        let difference = Difference { ours: forwarded(our), theirs: forwarded(their), is_garbled };
        let Difference { ours, theirs, .. } = &difference;
        let line = format!(
            "{}\n    ours {:?} {ours:?}, {name}'s {:?} {theirs:?}",
            payload.bytes.escape_ascii(),
            our.statuses,
            their.statuses
        );
        if ours == theirs {
            *sums
                .entry(if ours.is_empty() { "both refuse" } else { "both forward the same" })
                .or_default() += 1;
        } else if let Some(refusal) = refusal(&payload.bytes, our).filter(|_| ours.is_empty()) {
            *sums.entry(refusal).or_default() += 1;
            eprintln!("stricter than {name}: {line}");
        } else if let Some(reason) = REASONS.iter().find(|reason| (reason.is)(&payload.bytes, &difference)) {
            *sums.entry(reason.name).or_default() += 1;
            eprintln!("{}: {line}", reason.name);
        } else {
            wrong.push(line);
        }
    }
    eprintln!("{name}, {} payloads: {sums:#?}", payloads.len());
    assert!(wrong.is_empty(), "{} without a reason:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
async fn where_nginx_refuses_the_proxy_does_or_there_is_a_reason() {
    compare("nginx", Peer::nginx().await).await;
}

#[tokio::test]
async fn where_haproxy_refuses_the_proxy_does_or_there_is_a_reason() {
    compare("HAProxy", Peer::haproxy().await).await;
}

#[test]
fn every_reason_is_told() {
    for name in REASONS.iter().map(|reason| reason.name).chain(REFUSALS.iter().copied()) {
        assert!(PAGE.contains(&format!("| {name} |")), "docs/strictness.md says nothing of: {name}");
    }
}
