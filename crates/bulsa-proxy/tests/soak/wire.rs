//! HTTP/1.1 as far as the soak's clients and backends speak it.

use std::io;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What one reading takes at most.
const READ_BYTES: usize = 16 * 1024;

/// A connection with what was read and not used yet.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) stream: TcpStream,
    rest: BytesMut,
}

/// A head as it came.
#[derive(Debug)]
pub(crate) struct Head(String);

/// A body that was read to its end.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Body {
    pub(crate) length: usize,
    /// The one byte that it consists of, if it is only one.
    pub(crate) fill: Option<u8>,
}

impl Head {
    pub(crate) fn line(&self) -> &str {
        self.0.lines().next().unwrap_or_default()
    }

    pub(crate) fn status(&self) -> u16 {
        self.line().split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let fields = self.0.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    pub(crate) fn is(&self, name: &str, value: &str) -> bool {
        self.field(name).is_some_and(|found| found.eq_ignore_ascii_case(value))
    }
}

fn ended() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}

impl Wire {
    pub(crate) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream, rest: BytesMut::new() })
    }

    async fn fill(&mut self) -> io::Result<()> {
        self.rest.reserve(READ_BYTES);
        if self.stream.read_buf(&mut self.rest).await? == 0 { Err(ended()) } else { Ok(()) }
    }

    /// The next head. `None` if the connection ended before one began.
    pub(crate) async fn head(&mut self) -> io::Result<Option<Head>> {
        loop {
            if let Some(end) = self.rest.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = self.rest.split_to(end + 4);
                return Ok(Some(Head(String::from_utf8_lossy(&head).into_owned())));
            }
            match self.fill().await {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && self.rest.is_empty() => {
                    return Ok(None);
                }
                filled => filled?,
            }
        }
    }

    /// The body that a head announces.
    pub(crate) async fn body(&mut self, head: &Head) -> io::Result<Body> {
        let mut body = Body::default();
        if head.is("transfer-encoding", "chunked") {
            loop {
                let line = self.line().await?;
                let size = usize::from_str_radix(&line, 16).map_err(|_| io::Error::other(line))?;
                if size == 0 {
                    self.line().await?;
                    return Ok(body);
                }
                self.take(size, &mut body).await?;
                self.line().await?;
            }
        }
        let length = head.field("content-length").and_then(|length| length.parse().ok());
        self.take(length.unwrap_or(0), &mut body).await?;
        Ok(body)
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.rest.windows(2).position(|two| two == b"\r\n") {
                let line = self.rest.split_to(end + 2);
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            self.fill().await?;
        }
    }

    async fn take(&mut self, length: usize, body: &mut Body) -> io::Result<()> {
        let mut left = length;
        while 0 < left {
            if self.rest.is_empty() {
                self.fill().await?;
            }
            let part = left.min(self.rest.len());
            let fill = self.rest[0];
            let is_pure = self.rest[..part].iter().all(|byte| *byte == fill);
            let is_same = body.length == 0 || body.fill == Some(fill);
            body.fill = (is_pure && is_same).then_some(fill);
            body.length += part;
            self.rest.advance(part);
            left -= part;
        }
        Ok(())
    }

    pub(crate) async fn write(&mut self, text: &[u8]) -> io::Result<()> {
        self.stream.write_all(text).await
    }
}

/// What the bodies that belong to a request consist of.
pub(crate) fn filling(id: u64) -> u8 {
    b'a' + (id % 26) as u8
}
