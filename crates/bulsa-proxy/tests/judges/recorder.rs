//! A backend that notes every byte, and takes requests apart by the narrowest reading of them.
//!
//! It knows only the forms in which a proxy should write: one framing, lines that end in CRLF, chunks without
//! extensions. Anything else is noted as garbled. It shares no code with the proxy.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A field that answers carry, with the target that was asked.
pub(crate) const ASKED: &str = "X-Asked";

/// A request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    /// Method and target.
    pub(crate) fn line(&self) -> &str {
        let line = self.head.lines().next().unwrap_or_default();
        line.rsplit_once(' ').map_or(line, |(line, _)| line)
    }

    pub(crate) fn target(&self) -> &str {
        self.line().split_once(' ').map_or("", |(_, target)| target)
    }
}

/// What was noted of a connection's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Note {
    /// A whole request.
    Asked(Asked),
    /// Bytes that are no request.
    Garbled(String),
    /// The connection ended in the midst of a request.
    BrokenOff,
}

/// The backend.
pub(crate) struct Recorder {
    pub(crate) addr: SocketAddr,
    notes: Arc<Mutex<Vec<Note>>>,
    accepting: JoinHandle<()>,
}

impl Recorder {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let notes = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&notes);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&noted)));
            }
        });
        Self { addr, notes, accepting }
    }

    /// What came since the last call.
    pub(crate) fn take(&self) -> Vec<Note> {
        std::mem::take(&mut *self.notes.lock().unwrap())
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(mut stream: TcpStream, notes: Arc<Mutex<Vec<Note>>>) {
    let note = |what: Note| notes.lock().unwrap().push(what);
    let mut there = Vec::new();
    let mut buffer = vec![0; 16 << 10];
    loop {
        match take_request(&there) {
            Ok(Some((asked, length))) => {
                there.drain(..length);
                let target = asked.target().to_owned();
                note(Note::Asked(asked));
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{ASKED}: {target}\r\n\r\n");
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
            Ok(None) => match stream.read(&mut buffer).await {
                Ok(read @ 1..) => there.extend_from_slice(&buffer[..read]),
                Ok(0) | Err(_) if there.is_empty() => return,
                _ => return note(Note::BrokenOff),
            },
            Err(why) => return note(Note::Garbled(format!("{why}: {}", there.escape_ascii()))),
        }
    }
}

/// The first request in some bytes and its length, if it is all there.
fn take_request(bytes: &[u8]) -> Result<Option<(Asked, usize)>, &'static str> {
    let Some(end) = find(bytes, b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&bytes[..end + 4]).map(str::to_owned);
    let head = head.unwrap_or_else(|_| bytes[..end + 4].iter().copied().map(char::from).collect());
    let lines: Vec<&str> = head[..head.len() - 4].split("\r\n").collect();
    if lines.iter().any(|line| line.is_empty() || line.contains(['\r', '\n', '\0'])) {
        return Err("lines that do not end in CRLF");
    }
    if lines[0].split(' ').count() != 3 {
        return Err("a request line that has not three parts");
    }
    let (mut length, mut is_chunked) = (None, false);
    for line in &lines[1..] {
        let (name, value) = line.split_once(':').ok_or("a field without a colon")?;
        if name.is_empty() || name.contains([' ', '\t']) {
            return Err("a field with a space in its name");
        }
        let value = value.trim_matches([' ', '\t']);
        if name.eq_ignore_ascii_case("content-length") {
            if length.is_some() || !value.bytes().all(|b| b.is_ascii_digit()) {
                return Err("a length that is none, or a second one");
            }
            length = Some(value.parse::<usize>().map_err(|_| "a length that is none")?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            if is_chunked || value != "chunked" {
                return Err("a coding that is not `chunked`, or a second one");
            }
            is_chunked = true;
        }
    }
    let begin = end + 4;
    let (body, end) = match (length, is_chunked) {
        (Some(_), true) => return Err("two framings"),
        (_, true) => match take_chunks(&bytes[begin..])? {
            Some((body, length)) => (body, begin + length),
            None => return Ok(None),
        },
        (length, false) => {
            let end = begin + length.unwrap_or(0);
            match bytes.get(begin..end) {
                Some(body) => (body.to_vec(), end),
                None => return Ok(None),
            }
        }
    };
    Ok(Some((Asked { head, body }, end)))
}

fn take_chunks(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, &'static str> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let Some(line) = find(&bytes[at..], b"\r\n") else { return Ok(None) };
        let size = std::str::from_utf8(&bytes[at..at + line]).map_err(|_| "a size that is none")?;
        let is_size = !size.is_empty() && size.bytes().all(|b| b.is_ascii_hexdigit());
        let size = usize::from_str_radix(size, 16).ok().filter(|_| is_size).ok_or("a size that is none")?;
        let begin = at + line + 2;
        let Some(data) = bytes.get(begin..begin + size + 2) else { return Ok(None) };
        let Some(data) = data.strip_suffix(b"\r\n") else {
            return Err("a chunk without its end, or trailers");
        };
        body.extend_from_slice(data);
        at = begin + size + 2;
        if size == 0 {
            return Ok(Some((body, at)));
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
