//! A crowd of real WebSocket clients: the `ws` library for Node.

use std::{net::SocketAddr, process::Stdio};

use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use super::app::node_path;
use crate::world::{LIMIT, fixture};

/// The clients, in a process of their own.
pub(super) struct Webs {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

/// What the clients say.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Word {
    Ready(bool),
    Closed(Closed),
    Back(Back),
    Kept(u32),
}

/// A connection that a client didn't end.
#[derive(Debug, Deserialize)]
pub(super) struct Closed {
    pub(super) client: u32,
    pub(super) how: String,
    pub(super) deflate: bool,
    pub(super) code: u16,
    pub(super) reason: String,
    pub(super) at_ms: u64,
    /// Messages sent on it, the last one perhaps in part; and those that came back whole.
    pub(super) sent: u64,
    pub(super) echoed: u64,
    pub(super) error: Option<String>,
    pub(super) version: Option<String>,
}

/// The first answer after that.
#[derive(Debug, Deserialize)]
pub(super) struct Back {
    pub(super) client: u32,
    pub(super) version: Option<String>,
    pub(super) at_ms: u64,
}

impl Webs {
    /// Connects so many clients, which behave as `hows` says in turn; each has been answered when this returns.
    pub(super) async fn connect(target: SocketAddr, count: u32, hows: &str) -> Self {
        let mut command = Command::new("node");
        command.arg(fixture("faults/sockets.js")).arg(format!("ws://{target}/ws"));
        command.arg(count.to_string()).arg(hows).env("NODE_PATH", node_path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut this = Self { child, lines };
        let first = this.next().await;
        assert!(matches!(first, Some(Word::Ready(true))), "{first:?}");
        this
    }

    /// The next word, up to the end of all.
    pub(super) async fn next(&mut self) -> Option<Word> {
        let line =
            timeout(LIMIT, self.lines.next_line()).await.expect("the clients say something").unwrap()?;
        Some(serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}")))
    }

    /// Lets them say goodbye: how many were connected, and what else had happened before.
    pub(super) async fn leave(mut self) -> (u32, Vec<Word>) {
        drop(self.child.stdin.take());
        let (mut kept, mut others) = (0, Vec::new());
        while let Some(word) = self.next().await {
            match word {
                Word::Kept(count) => kept = count,
                other => others.push(other),
            }
        }
        assert!(timeout(LIMIT, self.child.wait()).await.expect("they end").unwrap().success());
        (kept, others)
    }
}
