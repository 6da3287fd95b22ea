//! For the fuzzer and for tests against other readers only: what reads other people's bytes, without the sockets around
//! it.

pub use crate::tunnel::follow_frames;

use crate::h1::chunked::{Decoder, Step};
use crate::h1::framing::{self, Framing};
use crate::h1::head::{RequestHead, Search};
use crate::headers;
use crate::respond::Refusal;

/// What was made of a stream of requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// A whole request.
    Request(Request),
    /// Something that is refused, and nothing is read behind it.
    Refused,
}

/// A request that was read to its end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// As it was written.
    pub method: Vec<u8>,
    /// As it was written.
    pub target: String,
    /// Without its framing.
    pub body: Vec<u8>,
    /// The target that is forwarded; nothing if the proxy answers itself.
    pub forwarded: Option<String>,
    /// The connection ends with the answer: the client wants it, or it is refused so.
    pub is_last: bool,
}

/// Reads a stream of requests, to where something is refused or more is needed.
pub fn requests(bytes: &[u8]) -> Vec<Read> {
    read(bytes, &[])
}

/// Reads a stream of requests in one piece, and in pieces of these lengths.
///
/// # Panics
/// If that makes a difference.
pub fn read_requests(bytes: &[u8], pieces: &[u8]) {
    let whole = read(bytes, &[]);
    let pieced = read(bytes, pieces);
    assert_eq!(whole, pieced, "it matters in which pieces a request comes");
}

fn read(bytes: &[u8], pieces: &[u8]) -> Vec<Read> {
    let mut lengths = pieces.iter().map(|length| usize::from(*length) + 1);
    let mut there = Vec::new();
    let mut rest = bytes;
    let mut stream = Stream::default();
    loop {
        while stream.step(&mut there) {}
        if rest.is_empty() {
            return stream.read;
        }
        let length = lengths.next().unwrap_or(rest.len()).min(rest.len());
        there.extend_from_slice(&rest[..length]);
        rest = &rest[length..];
    }
}

#[derive(Debug, Default)]
struct Stream {
    read: Vec<Read>,
    search: Search,
    head: RequestHead,
    body: Option<(Framing, u64, Decoder, Vec<u8>)>,
    is_over: bool,
}

impl Stream {
    /// Takes what it can from what is there. False if it needs more, or nothing more is read.
    fn step(&mut self, there: &mut Vec<u8>) -> bool {
        if self.is_over {
            return false;
        }
        let Some((framing, left, decoder, body)) = &mut self.body else { return self.step_head(there) };
        let mut is_done = false;
        match framing {
            Framing::Chunked => match decoder.step(there) {
                Ok(Step::Data { skip, length }) => {
                    body.extend_from_slice(&there[skip..skip + length]);
                    there.drain(..skip + length);
                }
                Ok(Step::More) => {
                    there.clear();
                    return false;
                }
                Ok(Step::End(used)) => {
                    there.drain(..used);
                    is_done = true;
                }
                Err(_) => return self.refuse(),
            },
            _ => {
                let take = usize::try_from(*left).map_or(there.len(), |left| left.min(there.len()));
                body.extend_from_slice(&there[..take]);
                there.drain(..take);
                *left -= take as u64;
                is_done = *left == 0;
                if !is_done {
                    return false;
                }
            }
        }
        if is_done {
            let body = std::mem::take(body);
            self.body = None;
            self.read.push(Read::Request(self.request(body)));
        }
        true
    }

    fn step_head(&mut self, there: &mut Vec<u8>) -> bool {
        let end = match self.search.end_of_head(there) {
            Ok(Some(end)) => end,
            Ok(None) => return false,
            Err(_) => return self.refuse(),
        };
        if self.head.read(&there[..end], &self.search).is_err() {
            return self.refuse();
        }
        there.drain(..end);
        self.search = Search::default();
        let Ok(framing) = framing::of_request(&self.head) else { return self.refuse() };
        let left = if let Framing::Length(length) = framing { length } else { 0 };
        self.body = Some((framing, left, Decoder::default(), Vec::new()));
        true
    }

    fn request(&self, body: Vec<u8>) -> Request {
        // Whatever it says, it can be said.
        let screened = headers::screen(&self.head);
        let is_refused_last = screened.as_ref().is_err_and(|unfit| Refusal::Unfit(*unfit).is_last());
        Request {
            method: self.head.method().to_vec(),
            target: self.head.target().to_owned(),
            body,
            forwarded: screened.ok().map(|screened| screened.target.into_owned()),
            is_last: is_refused_last || !headers::client_keeps(&self.head),
        }
    }

    fn refuse(&mut self) -> bool {
        self.read.push(Read::Refused);
        self.is_over = true;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_what_the_proxy_would() {
        let bytes =
            b"GET http://a/1 HTTP/1.1\r\n\r\nPUT /2 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n\
            0\r\n\r\nPUT /3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\nbcGET\n";
        let request = |method: &str, target: &str, body: &str| Request {
            method: method.into(),
            target: target.into(),
            body: body.into(),
            ..Request::default()
        };
        let expected = [
            Read::Request(Request { forwarded: Some("/1".into()), ..request("GET", "http://a/1", "") }),
            Read::Request(request("PUT", "/2", "a")),
            Read::Request(Request {
                forwarded: Some("/3".into()),
                is_last: true,
                ..request("PUT", "/3", "bc")
            }),
            Read::Refused,
        ];
        assert_eq!(requests(bytes), expected);
        read_requests(bytes, &[0; 250]);
    }
}
