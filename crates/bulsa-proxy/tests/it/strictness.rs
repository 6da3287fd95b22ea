//! Requests that could be read in two ways, and what becomes of them.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::*;

/// What becomes of a client's bytes.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// Answered with this status, and the connection closed; the target gets nothing.
    Refused(u16),
    /// Answered with this status by the proxy; the connection stays.
    Answered(u16),
    /// Answered 400, and the connection closed; the target may get the request's begin, and never an end of it.
    BrokenOff,
    /// The target gets exactly this request line and body, and nothing else; the answer is 200.
    Forwarded(&'static str, &'static str),
}
use Fate::{Answered, BrokenOff, Forwarded, Refused};

/// A head that posts chunks, with a field before its end.
macro_rules! chunked {
    ($rest:expr) => {
        concat!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", $rest)
    };
}
/// A post with these fields; behind its end comes a request that is nobody's.
macro_rules! post {
    ($fields:expr, $rest:expr) => {
        concat!("POST / HTTP/1.1\r\nHost: a\r\n", $fields, "\r\n", $rest)
    };
}
/// A request that would be smuggled, where the part before it is read otherwise than here.
macro_rules! smuggled {
    () => {
        "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    };
}

/// Two framings in one message.
const TWO_FRAMINGS: &[(&str, Fate)] = &[
    (post!("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\nG"), Refused(400)),
    (post!("Transfer-Encoding: chunked\r\nContent-Length: 6\r\n", "0\r\n\r\nG"), Refused(400)),
    (
        post!("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", concat!("0\r\n\r\n", smuggled!())),
        Refused(400),
    ),
    (post!("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), Refused(400)),
    (post!("Content-Length: 3\r\nContent-Length: 3\r\n", "abc"), Refused(400)),
    (post!("Content-Length: 0\r\nContent-Length: 39\r\n", smuggled!()), Refused(400)),
    (post!("Content-Length: 39\r\nContent-Length: 0\r\n", smuggled!()), Refused(400)),
    (post!("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), Refused(400)),
    (post!("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "0\r\n\r\n"), Refused(400)),
    (post!("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), Refused(400)),
    (post!("Content_Length: 39\r\n", smuggled!()), Refused(400)),
    (post!("Content-Length: 0\r\nTransfer_Encoding: chunked\r\n", smuggled!()), Refused(400)),
    (post!("Content.Length: 39\r\n", smuggled!()), Refused(400)),
    ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    (
        "GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n",
        Refused(400),
    ),
];

/// One framing, said in a way that others may not understand.
const OBSCURE_FRAMING: &[(&str, Fate)] = &[
    (post!("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"), Refused(400)),
    (post!("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"), Refused(400)),
    (post!("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"), Refused(400)),
    (post!("Transfer-Encoding: chunked;q=1\r\n", "0\r\n\r\n"), Refused(400)),
    (post!("Transfer-Encoding: \"chunked\"\r\n", "0\r\n\r\n"), Refused(400)),
    (post!("Transfer-Encoding: 'chunked'\r\n", "0\r\n\r\n"), Refused(400)),
    (post!("Transfer-Encoding: chunked,\r\n", "0\r\n\r\n"), Refused(400)),
    (post!("Transfer-Encoding: ,chunked\r\n", "0\r\n\r\n"), Refused(400)),
    (post!("Transfer-Encoding:\r\n", "0\r\n\r\n"), Refused(400)),
    (post!("Transfer-Encoding:\x0bchunked\r\n", "0\r\n\r\n"), Refused(400)),
    (post!("Transfer-Encoding: chunked\x0b\r\n", "0\r\n\r\n"), Refused(400)),
    (post!("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"), Refused(400)),
    (post!("Transfer-Encoding\t: chunked\r\n", "0\r\n\r\n"), Refused(400)),
    (post!(" Transfer-Encoding: chunked\r\n", "0\r\n\r\n"), Refused(400)),
    (post!("X: y\r\n Transfer-Encoding: chunked\r\n", "0\r\n\r\n"), Refused(400)),
    (post!("Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n"), Refused(400)),
    (post!("Transfer-Encoding\r\n: chunked\r\n", "0\r\n\r\n"), Refused(400)),
    (post!("X: y\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), Refused(400)),
    (post!("X: y\rTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), Refused(400)),
    (post!("X: y\0Transfer-Encoding: chunked\r\n", "0\r\n\r\n"), Refused(400)),
    (post!("\0Transfer-Encoding: chunked\r\n", "0\r\n\r\n"), Refused(400)),
    (post!("Transfer-Encoding: chunked\n", "0\r\n\r\n"), Refused(400)),
    (
        post!("TRANSFER-encoding: \t Chunked \t\r\n", "2\r\nab\r\n0\r\n\r\n"),
        Forwarded("POST / HTTP/1.1", "ab"),
    ),
    (post!("Content-Length: +3\r\n", "abc"), Refused(400)),
    (post!("Content-Length: -1\r\n", "abc"), Refused(400)),
    (post!("Content-Length: 3 3\r\n", "abc"), Refused(400)),
    (post!("Content-Length: 3, 3\r\n", "abc"), Refused(400)),
    (post!("Content-Length: 3,4\r\n", "abc"), Refused(400)),
    (post!("Content-Length: 0x3\r\n", "abc"), Refused(400)),
    (post!("Content-Length: 3.0\r\n", "abc"), Refused(400)),
    (post!("Content-Length: 3e0\r\n", "abc"), Refused(400)),
    (post!("Content-Length: ٣\r\n", "abc"), Refused(400)),
    (post!("Content-Length:\r\n", "abc"), Refused(400)),
    (post!("Content-Length: 18446744073709551619\r\n", "abc"), Refused(400)),
    (post!("Content-Length : 3\r\n", "abc"), Refused(400)),
    (post!("Content-Length: 3\r\n ,4\r\n", "abc"), Refused(400)),
    (post!("Content-Length: \r\n 3\r\n", "abc"), Refused(400)),
    (post!("Content-Length: 3\n", "abc"), Refused(400)),
    (post!("Content-Length: \t003 \r\n", "abc"), Forwarded("POST / HTTP/1.1", "abc")),
];

/// Lines that are none, and targets that are not one.
const LINES: &[(&str, Fate)] = &[
    ("GET / HTTP/1.1\nHost: a\n\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a\r\n\n", Refused(400)),
    ("GET / HTTP/1.1\rHost: a\r\r", Refused(400)),
    ("GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", Refused(400)),
    ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("GET /  HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", Refused(400)),
    (" GET / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", Refused(400)),
    ("GET /\r\nHost: a\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", Refused(505)),
    ("GET / HTTP/0.9\r\nHost: a\r\n\r\n", Refused(505)),
    ("GET / http/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1x\r\nHost: a\r\n\r\n", Refused(400)),
    ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Refused(505)),
    ("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("GET /a\0b HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("GET evil HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("GET file:///etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a\r\nX(: x\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n\tb\r\n\r\n", Refused(400)),
    ("\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Forwarded("GET / HTTP/1.1", "")),
    ("GET HTTP://a/b HTTP/1.1\r\nHost: c\r\n\r\n", Forwarded("GET /b HTTP/1.1", "")),
    ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", Forwarded("OPTIONS * HTTP/1.1", "")),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: \t\r\n\r\n", Forwarded("GET / HTTP/1.1", "")),
];

/// Chunks that are none.
const CHUNKS: &[(&str, Fate)] = &[
    (chunked!("x\r\n\r\n0\r\n\r\n"), BrokenOff),
    (chunked!("\r\n0\r\n\r\n"), BrokenOff),
    (chunked!("-1\r\na\r\n0\r\n\r\n"), BrokenOff),
    (chunked!("0x1\r\na\r\n0\r\n\r\n"), BrokenOff),
    (chunked!("1 \r\na\r\n0\r\n\r\n"), BrokenOff),
    (chunked!(" 1\r\na\r\n0\r\n\r\n"), BrokenOff),
    (chunked!("1_0\r\na\r\n0\r\n\r\n"), BrokenOff),
    (chunked!("1\na\r\n0\r\n\r\n"), BrokenOff),
    (chunked!("1\ra\r\n0\r\n\r\n"), BrokenOff),
    (chunked!("1\r\na\n0\r\n\r\n"), BrokenOff),
    (chunked!("1\r\nab\r\n0\r\n\r\n"), BrokenOff),
    (chunked!("2\r\na\r\n0\r\n\r\n"), BrokenOff),
    (chunked!("1\r\na0\r\n\r\n"), BrokenOff),
    (chunked!("10000000000000001\r\na\r\n0\r\n\r\n"), BrokenOff),
    (chunked!("00000000000000001\r\na\r\n0\r\n\r\n"), BrokenOff),
    (chunked!("1;\nxx\r\na\r\n0\r\n\r\n"), BrokenOff),
    (chunked!("1;a\rb\r\na\r\n0\r\n\r\n"), BrokenOff),
    (chunked!("1;\0\r\na\r\n0\r\n\r\n"), BrokenOff),
    (chunked!("0\n\r\n"), BrokenOff),
    (chunked!("0\r\n\n"), BrokenOff),
    (chunked!(concat!("0\r\n", "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")), BrokenOff),
    (chunked!("0\r\nContent-Length: 5\r\n\r\n"), Forwarded("POST / HTTP/1.1", "")),
    (chunked!("0\r\nTransfer-Encoding: chunked\r\n\r\n"), Forwarded("POST / HTTP/1.1", "")),
    (chunked!("0\r\nHost: b\r\n\r\n"), Forwarded("POST / HTTP/1.1", "")),
    (chunked!("0\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n"), Forwarded("POST / HTTP/1.1", "")),
    (chunked!("0\r\nX : y\r\n\r\n"), BrokenOff),
    (chunked!("0\r\nX: y\n\r\n"), BrokenOff),
    (chunked!("0\r\n X: y\r\n\r\n"), BrokenOff),
    (chunked!("1;a=b;c=\"d e\"\r\na\r\n0;z\r\nX: y\r\n\r\n"), Forwarded("POST / HTTP/1.1", "a")),
    (chunked!("0000000000000001\r\na\r\n00\r\n\r\n"), Forwarded("POST / HTTP/1.1", "a")),
];

/// Hosts that are not one. Their messages are sound.
const HOSTS: &[(&str, Fate)] = &[
    ("GET http://user@a/ HTTP/1.1\r\nHost: a\r\n\r\n", Answered(400)),
    ("GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Answered(400)),
    ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", Answered(400)),
    ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", Answered(400)),
    ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", Answered(400)),
    ("GET / HTTP/1.1\r\n\r\n", Answered(400)),
    ("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", Answered(405)),
];

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
