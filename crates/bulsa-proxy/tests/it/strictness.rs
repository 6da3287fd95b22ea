//! Requests that could be read in two ways, and what becomes of them.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::payloads::{
    Answered, BrokenOff, CHUNKS, Fate, Forwarded, HOSTS, LINES, OBSCURE_FRAMING, Refused, TWO_FRAMINGS,
};
use crate::support::*;

/// A target that answers whole requests, each of which must have exactly one framing and nothing behind it.
async fn recorder() -> Backend {
    Backend::serving(move |mut wire, seen| async move {
        while let Some(message) = seen.next(&mut wire).await {
            let framings = ["content-length", "transfer-encoding"].map(|name| message.field(name));
            let count =
                framings.iter().flat_map(|field| field.split('|')).filter(|value| !value.is_empty()).count();
            if 1 < count || !wire.rest.is_empty() {
                seen.note(Message { head: format!("GARBLED {}", message.head), body: wire.rest.clone() });
            }
            wire.write(&ok("fine")).await;
        }
    })
    .await
}

/// What came of some bytes and a sound request behind them.
#[derive(Debug, PartialEq, Eq)]
struct Came {
    statuses: Vec<u16>,
    /// Request lines and bodies that the target got, but for the one behind.
    asked: Vec<(String, String)>,
    /// Whether the connection was still good for the request behind.
    open: bool,
}

/// Sends bytes in parts of so many, with a sound request behind them.
async fn send(rig: &Rig, backend: &Backend, bytes: &str, part: usize) -> Came {
    let before = backend.seen.count();
    let mut client = Wire::connect(rig.addr).await;
    let (mut reader, mut writer) = client.stream.split();
    let bytes = format!("{bytes}{}", get("/behind"));
    let write = async {
        for part in bytes.as_bytes().chunks(part) {
            // A refusal may come before all is sent.
            if writer.write_all(part).await.is_err() {
                break;
            }
        }
    };
    let mut answers = Vec::new();
    let read = async {
        let mut buffer = [0; 4096];
        // A refusal ends cleanly, not with a reset.
        while answers.windows(8).filter(|w| w == b"HTTP/1.1").count() < 2 {
            match reader.read(&mut buffer).await.unwrap_or_else(|error| panic!("{bytes:?}: {error}")) {
                0 => break,
                read => answers.extend_from_slice(&buffer[..read]),
            }
        }
    };
    patient(async { tokio::join!(write, read) }).await;
    let answers = String::from_utf8(answers).unwrap();
    for internal in ["server:", "hyper", "127.0.0.1"] {
        assert!(!answers.to_ascii_lowercase().contains(internal), "{answers}");
    }
    let statuses = answers.split("HTTP/1.1 ").filter_map(|a| a.get(..3)?.parse().ok()).collect();
    let mut asked: Vec<_> =
        backend.seen.all()[before..].iter().map(|m| (m.line().to_owned(), m.text())).collect();
    let behind = asked.iter().position(|(line, _)| line == "GET /behind HTTP/1.1");
    if let Some(behind) = behind {
        asked.remove(behind);
    }
    Came { statuses, asked, open: behind.is_some() }
}

async fn check(fates: &[(&str, Fate)]) {
    let backend = recorder().await;
    let rig = Rig::new(&table(1, &[backend.target("a")])).await;
    let mut wrong = Vec::new();
    for (bytes, fate) in fates {
        let wanted = match fate {
            Refused(status) => Came { statuses: vec![*status], asked: vec![], open: false },
            BrokenOff => Came { statuses: vec![400], asked: vec![], open: false },
            Answered(status) => Came { statuses: vec![*status, 200], asked: vec![], open: true },
            Forwarded(line, body) => {
                let asked = vec![((*line).to_owned(), (*body).to_owned())];
                Came { statuses: vec![200, 200], asked, open: true }
            }
        };
        for part in [usize::MAX, 1] {
            let came = send(&rig, &backend, bytes, part).await;
            if came != wanted {
                wrong.push(format!("{bytes:?} in parts of {part}: {came:?}, not {wanted:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_message_with_two_framings_is_refused() {
    check(TWO_FRAMINGS).await;
}

#[tokio::test]
async fn a_framing_that_others_may_not_understand_is_refused() {
    check(OBSCURE_FRAMING).await;
}

#[tokio::test]
async fn lines_that_are_none_are_refused() {
    check(LINES).await;
}

#[tokio::test]
async fn a_body_whose_chunks_are_none_is_never_taken_for_whole() {
    check(CHUNKS).await;
}

#[tokio::test]
async fn a_request_without_one_host_is_answered_by_the_proxy() {
    check(HOSTS).await;
}

#[tokio::test]
async fn heads_that_are_too_large_are_answered_431_and_nothing_else() {
    let backend = recorder().await;
    let rig = Rig::new(&table(1, &[backend.target("a")])).await;
    let fields = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(100));
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(1 << 16));
    let line = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(1 << 14));
    let no_end = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(1 << 20));
    for (bytes, status) in [(fields, 431), (long, 431), (no_end, 431), (line, 414)] {
        let client = Wire::connect(rig.addr).await;
        let (mut reader, mut writer) = client.stream.into_split();
        let write = tokio::spawn(async move { writer.write_all(bytes.as_bytes()).await });
        let mut all = String::new();
        patient(reader.read_to_string(&mut all)).await.expect("no reset");
        let (head, _) = all.split_once("\r\n\r\n").unwrap();
        let mut names: Vec<_> =
            head.lines().skip(1).filter_map(|line| line.split_once(':')).map(|(name, _)| name).collect();
        names.sort_unstable();
        assert_eq!(head.get(9..12), Some(status.to_string().as_str()), "{head}");
        assert_eq!(
            names,
            ["Connection", "Content-Length", "Content-Type", "Date"],
            "nothing of what is inside"
        );
        drop(patient(write).await);
    }
    assert_eq!(rig.until(|report| report.connections == 0).await.malformed, 4);
    assert_eq!(backend.seen.count(), 0);
}
