//! WebSocket libraries as clients and servers, with the proxy between them: `ws` for Node, `websockets` for Python.
//!
//! (Autobahn's test suite wants Python 2, which Debian no longer has.)

use std::path::{Path, PathBuf};

use bulsa_proxy::{CloseTunnels, Table, Target};

use crate::programs::{Talking, command, debian_or_skip};
use crate::support::*;

/// A library, and the program that runs what is written for it.
#[derive(Debug, Clone, Copy)]
enum Library {
    Node,
    Python,
}
use Library::{Node, Python};

impl Library {
    /// The program, if it and the library are there.
    fn found(self) -> Option<PathBuf> {
        let (program, sign) = match self {
            Node => ("usr/bin/node", "usr/share/nodejs/ws/package.json"),
            Python => ("usr/bin/python3", "usr/lib/python3/dist-packages/websockets/__init__.py"),
        };
        debian_or_skip(sign).and_then(|_| debian_or_skip(program))
    }

    /// Starts one of our scripts.
    fn start(self, script: &str, args: &[&str]) -> Option<Talking> {
        let extension = if matches!(self, Node) { "js" } else { "py" };
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/judges");
        let mut command = command(self.found()?);
        command.arg(scripts.join(format!("{script}.{extension}"))).args(args);
        Some(Talking::start(command))
    }
}

/// Lets a client talk to a server, and then closes all tunnels while the client waits in these ways.
async fn talk(client: Library, server: Library, hows: &[&str]) {
    let Some(mut server) = server.start("echo", &[]) else { return };
    let port: u16 = server.line().await.parse().expect("its port");
    let target = Target::new("a", ([127, 0, 0, 1], port).into());
    let rig = Rig::new(&table(1, &[target])).await;
    let url = format!("ws://{}/chat", rig.addr);
    let Some(mut client) = client.start("client", &[&url, &hows.join(",")]) else { return };
    let said = client.line().await;
    if said != "ready" {
        panic!("{said}\n{}", client.end().await.0);
    }
    // Compressed and not.
    let waiting = 2 * hows.len();
    assert_eq!(rig.target("a").tunnels, waiting as u64);
    // As when the release that they are on has to make room.
    let close_tunnels = vec![CloseTunnels { target: "a".into(), within_ms: 500 }];
    rig.apply(&Table { close_tunnels, ..table(2, &[]) }).await;
    let (said, is_well) = client.end().await;
    assert!(is_well && said == "done\n", "{said}");
    rig.until(|report| report.connections == 0 && report.targets.iter().all(|one| one.tunnels == 0)).await;
    // Four closed by themselves, the others by the proxy: none was cut.
    let mut codes = Vec::new();
    for _ in 0..4 + waiting {
        let line = server.line().await;
        codes.push(line.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0_u16));
    }
    codes.sort_unstable();
    assert_eq!(codes[waiting..], [4001, 4001, 4002, 4002]);
    // The proxy's own word, or the client's answer to 1012 where that came first.
    assert!(codes[..waiting].iter().all(|code| [1001, 1012].contains(code)), "{codes:?}");
}

/// Nothing is under way when the tunnel is told to end, or a message of the client's that never ends.
const CALM: &[&str] = &["silence", "fragments"];

#[tokio::test]
async fn a_client_in_node_talks_to_a_server_in_node() {
    talk(Node, Node, CALM).await;
}

#[tokio::test]
async fn a_client_in_python_talks_to_a_server_in_node() {
    talk(Python, Node, CALM).await;
}

#[tokio::test]
async fn a_client_in_node_talks_to_a_server_in_python() {
    talk(Node, Python, CALM).await;
}

#[tokio::test]
async fn a_client_in_python_talks_to_a_server_in_python() {
    talk(Python, Python, CALM).await;
}

#[tokio::test]
async fn in_the_midst_of_a_message_of_a_server_in_node_a_client_hears_1012() {
    talk(Node, Node, &["drip"]).await;
}

#[tokio::test]
async fn in_the_midst_of_a_message_of_a_server_in_python_a_client_hears_1012() {
    talk(Python, Python, &["drip"]).await;
}
