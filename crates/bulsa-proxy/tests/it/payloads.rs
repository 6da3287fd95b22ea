//! Bytes that clients may send and shouldn't, and what becomes of each.

/// What becomes of a client's bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fate {
    /// Answered with this status, and the connection closed; the target gets nothing.
    Refused(u16),
    /// Answered with this status by the proxy; the connection stays.
    Answered(u16),
    /// Answered 400, and the connection closed; the target may get the request's begin, and never an end of it.
    BrokenOff,
    /// The target gets exactly this request line and body, and nothing else; the answer is 200.
    Forwarded(&'static str, &'static str),
}
pub(crate) use Fate::{Answered, BrokenOff, Forwarded, Refused};

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
pub(crate) const TWO_FRAMINGS: &[(&str, Fate)] = &[
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
pub(crate) const OBSCURE_FRAMING: &[(&str, Fate)] = &[
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
pub(crate) const LINES: &[(&str, Fate)] = &[
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
pub(crate) const CHUNKS: &[(&str, Fate)] = &[
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
pub(crate) const HOSTS: &[(&str, Fate)] = &[
    ("GET http://user@a/ HTTP/1.1\r\nHost: a\r\n\r\n", Answered(400)),
    ("GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Answered(400)),
    ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", Answered(400)),
    ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", Answered(400)),
    ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", Answered(400)),
    ("GET / HTTP/1.1\r\n\r\n", Answered(400)),
    ("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", Answered(405)),
];
