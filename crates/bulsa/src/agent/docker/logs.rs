//! What containers wrote.
//!
//! Owns: the Engine's log stream, taken apart into lines with their moment and their side. Never: keeps any of it, or
//! lets a line that doesn't end take memory: longer ones are cut at [`LINE_MAX`].
//!
//! The request is made here and not by the client crate, which keeps a terminal's output until a newline comes,
//! however long that takes.

use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, sync::mpsc};

use super::{ANSWER_MAX, Docker, DockerError, found::moment_ns};

/// A line is at most so long, in bytes; the rest of a longer one is dropped.
pub const LINE_MAX: usize = 16 << 10;

/// So many lines wait for a slow reader before nothing more is read from the Engine.
const QUEUE: usize = 256;

/// An error's text is at most so long, in bytes.
const ERROR_MAX: usize = 64 << 10;

/// A frame's head: the side, and the length of what follows.
const HEAD: usize = 8;

/// How long [`Docker::last_words`] may take.
const LAST_WORDS_MAX: Duration = Duration::from_secs(5);

/// Which lines are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// Only those from this moment on, in nanoseconds since 1970.
    pub since_ns: Option<u64>,
    /// Only the last so many.
    pub tail: Option<u32>,
    /// Whether to wait for more, until the container ends.
    pub follow: bool,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// When it was written, in nanoseconds since 1970; `None` where that can't be read.
    pub at_ns: Option<u64>,
    /// Whether it went to standard error. A container with a terminal has one side only.
    pub is_stderr: bool,
    /// The line without its end; what isn't UTF-8 is replaced.
    pub text: String,
}

impl Docker {
    /// The lines of a container. Reading ends when the stream is dropped; an error is the last item.
    pub fn logs(
        &self,
        container: &str,
        query: LogQuery,
    ) -> impl Stream<Item = Result<LogLine, DockerError>> + Send + use<> {
        let (lines, receiver) = mpsc::channel(QUEUE);
        let (docker, container) = (self.clone(), container.to_owned());
        tokio::spawn(async move {
            let reading = docker.read_logs(&container, &query, &lines);
            let result = tokio::select! {
                result = reading => result,
                () = lines.closed() => return,
            };
            if let Err(error) = result {
                // Nobody listens any more: then nobody misses the error either.
                lines.send(Err(error)).await.ok();
            }
        });
        futures_util::stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.map(|line| (line, receiver))
        })
    }

    /// The last `count` lines of a container: the evidence of a death.
    ///
    /// # Errors
    /// If they can't be read, within five seconds; its logging driver may keep none.
    pub async fn last_words(&self, container: &str, count: u32) -> Result<Vec<LogLine>, DockerError> {
        let query = LogQuery { tail: Some(count), ..LogQuery::default() };
        let stream = std::pin::pin!(self.logs(container, query));
        let all = stream.collect::<Vec<_>>();
        super::limited("asked for the last lines of a container", LAST_WORDS_MAX, all)
            .await?
            .into_iter()
            .collect()
    }

    async fn read_logs(
        &self,
        container: &str,
        query: &LogQuery,
        lines: &mpsc::Sender<Result<LogLine, DockerError>>,
    ) -> Result<(), DockerError> {
        let what = format!("asked for the output of container {container}");
        let Some(found) = self.inspect(container).await? else {
            return Err(DockerError::Refused {
                what,
                status: 404,
                message: "there is no such container".to_owned(),
            });
        };
        let mut body =
            super::limited(&what, ANSWER_MAX, self.request_logs(&found.id, query, &what)).await??;
        let mut splitter = Splitter::new(found.tty);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| self.gone(&error))?;
            let Ok(data) = frame.into_data() else { continue };
            for line in splitter.push(&data) {
                if lines.send(Ok(line)).await.is_err() {
                    return Ok(());
                }
            }
        }
        for line in splitter.rest() {
            if lines.send(Ok(line)).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn request_logs(&self, id: &str, query: &LogQuery, what: &str) -> Result<Incoming, DockerError> {
        let stream = UnixStream::connect(&self.inner.socket).await.map_err(|error| self.gone(&error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.gone(&error))?;
        tokio::spawn(async move {
            // What goes wrong with it comes up where the body is read.
            connection.await.ok();
        });
        let request = http::Request::builder()
            .method(Method::GET)
            .uri(path(id, query))
            .header(http::header::HOST, "docker")
            .body(Empty::<Bytes>::new())
            .map_err(|error| self.gone(&error))?;
        let response = sender.send_request(request).await.map_err(|error| self.gone(&error))?;
        let status = response.status();
        if status == StatusCode::OK {
            return Ok(response.into_body());
        }
        let text = Limited::new(response.into_body(), ERROR_MAX)
            .collect()
            .await
            .map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned())
            .unwrap_or_default();
        let message = serde_json::from_str::<serde_json::Value>(&text)
            .ok()
            .and_then(|value| Some(value.get("message")?.as_str()?.to_owned()))
            .unwrap_or(text);
        Err(DockerError::Refused { what: what.to_owned(), status: status.as_u16(), message })
    }

    fn gone(&self, error: &dyn std::error::Error) -> DockerError {
        DockerError::Unreachable {
            socket: self.inner.socket.display().to_string(),
            detail: error.to_string(),
        }
    }
}

fn path(id: &str, query: &LogQuery) -> String {
    let mut path = format!("/containers/{id}/logs?stdout=1&stderr=1&timestamps=1");
    if let Some(since) = query.since_ns {
        path.push_str(&format!("&since={}.{:09}", since / 1_000_000_000, since % 1_000_000_000));
    }
    if let Some(tail) = query.tail {
        path.push_str(&format!("&tail={tail}"));
    }
    if query.follow {
        path.push_str("&follow=1");
    }
    path
}

/// Bytes of a log stream to lines.
#[derive(Debug)]
struct Splitter {
    is_tty: bool,
    /// A head of which a part came.
    head: BytesMut,
    /// How much of the frame is still to come, and which side it is of.
    frame: Option<(usize, usize)>,
    sides: [Side; 2],
}

/// One side's line in the making.
#[derive(Debug, Default)]
struct Side {
    line: Vec<u8>,
    is_cut: bool,
    /// The line goes on in a further frame, which repeats the moment.
    goes_on: bool,
    /// The bytes of a repeated moment that came, while one is being skipped.
    skipping: Option<usize>,
}

impl Splitter {
    fn new(is_tty: bool) -> Self {
        Self { is_tty, head: BytesMut::new(), frame: None, sides: [Side::default(), Side::default()] }
    }

    fn push(&mut self, data: &[u8]) -> Vec<LogLine> {
        let mut lines = Vec::new();
        if self.is_tty {
            self.sides[0].take(data, false, &mut lines);
            return lines;
        }
        let mut data = data;
        while !data.is_empty() {
            let Some((left, side)) = self.frame else {
                let wanted = (HEAD - self.head.len()).min(data.len());
                self.head.extend_from_slice(&data[..wanted]);
                data = &data[wanted..];
                if self.head.len() == HEAD {
                    let side = usize::from(self.head.get_u8() == 2);
                    self.head.advance(3);
                    let length = self.head.get_u32() as usize;
                    self.frame = (length > 0).then_some((length, side));
                    self.sides[side].begin();
                }
                continue;
            };
            let now = left.min(data.len());
            self.sides[side].take(&data[..now], side == 1, &mut lines);
            data = &data[now..];
            self.frame = (left > now).then_some((left - now, side));
            if left == now {
                self.sides[side].goes_on = !self.sides[side].line.is_empty();
            }
        }
        lines
    }

    fn rest(&mut self) -> Vec<LogLine> {
        let mut lines = Vec::new();
        for (index, side) in self.sides.iter_mut().enumerate() {
            if !side.line.is_empty() {
                lines.push(side.end(index == 1));
            }
        }
        lines
    }
}

impl Side {
    /// A new frame: within a line it begins with the moment again.
    fn begin(&mut self) {
        self.skipping = self.goes_on.then_some(0);
    }

    fn take(&mut self, data: &[u8], is_stderr: bool, lines: &mut Vec<LogLine>) {
        for byte in data {
            if let Some(skipped) = self.skipping {
                // RFC 3339 with nanoseconds and an offset has at most 35 characters.
                self.skipping = (*byte != b' ' && skipped < 35).then_some(skipped + 1);
                continue;
            }
            if *byte == b'\n' {
                lines.push(self.end(is_stderr));
            } else if self.line.len() < LINE_MAX {
                self.line.push(*byte);
            } else {
                self.is_cut = true;
            }
        }
    }

    fn end(&mut self, is_stderr: bool) -> LogLine {
        let line = std::mem::take(&mut self.line);
        let is_cut = std::mem::take(&mut self.is_cut);
        self.goes_on = false;
        let text = String::from_utf8_lossy(&line);
        let text = text.strip_suffix('\r').unwrap_or(&text);
        let (at_ns, text) = match text.split_once(' ') {
            Some((first, rest)) if moment_ns(first).is_some() => (moment_ns(first), rest),
            _ => match moment_ns(text) {
                Some(at) => (Some(at), ""),
                None => (None, text),
            },
        };
        let text = if is_cut { format!("{text}…") } else { text.to_owned() };
        LogLine { at_ns, is_stderr, text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: &str = "2026-11-22T04:00:00.123456789Z";

    fn frame(side: u8, text: &str) -> Vec<u8> {
        let mut bytes = vec![side, 0, 0, 0];
        bytes.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
        bytes.extend(text.as_bytes());
        bytes
    }

    fn split(is_tty: bool, bytes: &[u8], step: usize) -> Vec<(bool, String)> {
        let mut splitter = Splitter::new(is_tty);
        let mut lines: Vec<LogLine> = bytes.chunks(step).flat_map(|chunk| splitter.push(chunk)).collect();
        lines.extend(splitter.rest());
        assert!(lines.iter().all(|line| line.at_ns.is_some()), "{lines:?}");
        lines.into_iter().map(|line| (line.is_stderr, line.text)).collect()
    }

    #[test]
    fn both_sides_come_apart_however_the_bytes_arrive() {
        let mut bytes = frame(1, &format!("{AT} one\n"));
        bytes.extend(frame(2, &format!("{AT} bad\n")));
        bytes.extend(frame(1, &format!("{AT} half ")));
        bytes.extend(frame(2, &format!("{AT} \n")));
        bytes.extend(frame(1, &format!("{AT} whole\n")));
        bytes.extend(frame(1, &format!("{AT} end")));
        let expected = [(false, "one"), (true, "bad"), (true, ""), (false, "half whole"), (false, "end")];
        let expected = expected.map(|(side, text)| (side, text.to_owned()));
        for step in [1, 3, 7, 4096] {
            assert_eq!(split(false, &bytes, step), expected, "in steps of {step}");
        }
    }

    #[test]
    fn a_terminal_has_one_side_and_ends_its_lines_its_own_way() {
        let bytes = format!("{AT} a\r\n{AT} b c\r\n");
        let expected = [(false, "a".to_owned()), (false, "b c".to_owned())];
        assert_eq!(split(true, bytes.as_bytes(), 5), expected);
    }

    #[test]
    fn a_line_that_never_ends_is_cut_and_takes_no_memory() {
        let mut splitter = Splitter::new(true);
        let endless = vec![b'x'; LINE_MAX * 4];
        assert!(splitter.push(&endless).is_empty());
        assert!(splitter.sides[0].line.len() <= LINE_MAX);
        let lines = splitter.push(b"\nnext\n");
        assert_eq!((lines[0].text.chars().count(), lines[1].text.as_str()), (LINE_MAX + 1, "next"));
    }

    #[test]
    fn a_query_is_written_as_the_engine_reads_it() {
        let query = LogQuery { since_ns: Some(1_500_000_007), tail: Some(7), follow: true };
        assert_eq!(
            path("abc", &query),
            "/containers/abc/logs?stdout=1&stderr=1&timestamps=1&since=1.500000007&tail=7&follow=1"
        );
    }
}
