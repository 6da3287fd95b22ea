//! A client that sends bytes as they are, with a sound request behind them, and tells what came of it.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::recorder::{ASKED, Asked, Note, Recorder};

/// What is sent behind everything else.
pub(crate) const BEHIND: &str = "GET /behind HTTP/1.1\r\nHost: a\r\n\r\n";
/// How long nothing may come before it is taken that nothing will: whoever waits for the rest of a body says nothing.
const QUIET: Duration = Duration::from_millis(200);

/// What came of some bytes and the request behind them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Came {
    pub(crate) statuses: Vec<u16>,
    /// All that was answered.
    pub(crate) answers: String,
    /// What the backend was asked, in order, but for the request behind.
    pub(crate) asked: Vec<Asked>,
    /// What the backend got and could not read.
    pub(crate) garbled: Vec<String>,
    /// Whether the request behind arrived.
    pub(crate) open: bool,
}

/// What a client does when it has sent everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    Waits,
    /// Says so. Not everybody answers one who has.
    HalfCloses,
}

/// Sends some bytes to a proxy in front of this backend.
pub(crate) async fn send(addr: SocketAddr, backend: &Recorder, bytes: &[u8], then: Then) -> Came {
    drop(backend.take());
    let mut stream = TcpStream::connect(addr).await.expect("the proxy listens");
    let (mut reader, mut writer) = stream.split();
    let bytes = [bytes, BEHIND.as_bytes()].concat();
    // A refusal may come before all is sent.
    let write = async {
        drop(writer.write_all(&bytes).await);
        if then == Then::HalfCloses {
            drop(writer.shutdown().await);
        }
    };
    let last = format!("{ASKED}: /behind");
    let read = async {
        let (mut answers, mut buffer) = (Vec::new(), [0; 4096]);
        while let Ok(Ok(read @ 1..)) = timeout(QUIET, reader.read(&mut buffer)).await {
            answers.extend_from_slice(&buffer[..read]);
            if String::from_utf8_lossy(&answers).contains(&last) {
                break;
            }
        }
        answers
    };
    let ((), answers) = tokio::join!(write, read);
    let answers = String::from_utf8_lossy(&answers).into_owned();
    let statuses = answers.split("HTTP/1.1 ").filter_map(|answer| answer.get(..3)?.parse().ok()).collect();
    drop(stream);
    let (mut asked, mut garbled, mut open) = (Vec::new(), Vec::new(), false);
    for note in backend.take() {
        match note {
            Note::Asked(one) if one.line() == "GET /behind" => open = true,
            Note::Asked(one) => asked.push(one),
            Note::Garbled(what) => garbled.push(what),
            Note::BrokenOff => {}
        }
    }
    Came { statuses, answers, asked, garbled, open }
}
