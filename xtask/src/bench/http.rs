//! As much of HTTP/1.1 and WebSockets as a client of the benchmark speaks.
//!
//! Owns: the bytes of a request, and reading an answer whose length is given. Never: follows a redirect, tries again,
//! or talks to anything but loopback.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use crate::measure::Error;

/// How long a peer may take for anything.
const LIMIT: Duration = Duration::from_secs(10);
/// The longest answer read, in bytes.
const ANSWER_MAX: usize = 1 << 20;
/// A text message with five letters, masked with zeros, and what comes back.
const HELLO: [u8; 11] = *b"\x81\x85\0\0\0\0hello";
const HELLO_BACK: [u8; 7] = *b"\x81\x05hello";

/// The head of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) status: u16,
    /// The bytes of the head itself.
    pub(super) bytes: usize,
    /// The bytes of the body.
    pub(super) length: usize,
    /// Whether the connection is closed after it.
    pub(super) close: bool,
}

impl Head {
    /// `None` as long as it isn't complete.
    pub(super) fn read(bytes: &[u8]) -> Result<Option<Self>, Error> {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
        let text = std::str::from_utf8(bytes.get(..end).unwrap_or_default())?;
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
        let mut head = Self {
            status: status.ok_or("this is no answer of HTTP/1.1")?,
            bytes: end + 4,
            length: 0,
            close: false,
        };
        let mut has_length = false;
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            if name.eq_ignore_ascii_case("content-length") {
                head.length = value.trim().parse()?;
                has_length = true;
            } else if name.eq_ignore_ascii_case("connection") {
                head.close |= value.trim().eq_ignore_ascii_case("close");
            }
        }
        match has_length || head.status == 101 {
            true => Ok(Some(head)),
            false => Err("an answer says no length".into()),
        }
    }
}

/// The bytes of a GET.
pub(super) fn get(target: SocketAddr, path: &str, fields: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {target}\r\n{fields}\r\n").into_bytes()
}

/// A connection that is used for one thing after the other.
#[derive(Debug)]
pub(super) struct Wire {
    target: SocketAddr,
    stream: TcpStream,
}

impl Wire {
    pub(super) fn open(target: SocketAddr) -> Result<Self, Error> {
        let stream = TcpStream::connect_timeout(&target, LIMIT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        Ok(Self { target, stream })
    }

    /// Sends a GET and reads the whole answer; fails where that isn't 200.
    pub(super) fn ask(&mut self, path: &str) -> Result<Vec<u8>, Error> {
        self.stream.write_all(&get(self.target, path, ""))?;
        let (head, mut bytes) = self.head()?;
        let whole = head.bytes + head.length;
        if head.status != 200 || whole > ANSWER_MAX {
            return Err(format!("{path} answers {} with {} bytes", head.status, head.length).into());
        }
        let have = bytes.len();
        bytes.resize(whole.max(have), 0);
        self.stream.read_exact(bytes.get_mut(have..).unwrap_or_default())?;
        Ok(bytes.split_off(head.bytes))
    }

    /// Makes a WebSocket of it.
    pub(super) fn upgrade(&mut self) -> Result<(), Error> {
        let fields = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                      Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        self.stream.write_all(&get(self.target, "/", fields))?;
        match self.head()?.0.status {
            101 => Ok(()),
            status => Err(format!("a WebSocket is answered with {status}").into()),
        }
    }

    /// Sends a message over the WebSocket that it is, and waits until it comes back.
    pub(super) fn echo(&mut self) -> Result<(), Error> {
        self.stream.write_all(&HELLO)?;
        let mut back = [0; HELLO_BACK.len()];
        self.stream.read_exact(&mut back)?;
        match back == HELLO_BACK {
            true => Ok(()),
            false => Err("another message came back than was sent".into()),
        }
    }

    /// Reads a head and, maybe, some of what comes after it.
    fn head(&mut self) -> Result<(Head, Vec<u8>), Error> {
        let mut bytes = Vec::new();
        let mut part = [0; 16 * 1024];
        while bytes.len() < ANSWER_MAX {
            let count = self.stream.read(&mut part)?;
            if count == 0 {
                return Err("the connection was closed instead of an answer".into());
            }
            bytes.extend_from_slice(part.get(..count).unwrap_or_default());
            if let Some(head) = Head::read(&bytes)? {
                return Ok((head, bytes));
            }
        }
        Err("an answer's head has no end".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_once_it_is_whole() {
        let text = b"HTTP/1.1 200 OK\r\nconnection: Close\r\nContent-Length: 12\r\n\r\nhello";
        let head = Head::read(text).unwrap().unwrap();
        assert_eq!(head, Head { status: 200, bytes: text.len() - 5, length: 12, close: true });
        assert_eq!(Head::read(&text[..30]).unwrap(), None);
        assert_eq!(Head::read(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").unwrap().unwrap().length, 0);
    }

    #[test]
    fn an_answer_without_a_length_is_none() {
        assert!(Head::read(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(Head::read(b"SSH-2.0\r\n\r\n").is_err());
    }
}
