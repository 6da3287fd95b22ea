//! Heads of requests and answers.
//!
//! A request's head is read strictly: its lines end in CRLF, it has no folded lines, no control characters, no space
//! where none belongs. An answer comes from an application of the user's own; it may end its lines in LF alone, as some
//! do and nginx allows.

use httparse::{Error, Status};
use memchr::memchr;

use super::fields::{Field, Known, Span};

/// The longest head of a request or an answer, in bytes.
pub(crate) const HEAD_BYTES_MAX: usize = 64 * 1024;
/// The longest target of a request, in bytes.
pub(crate) const TARGET_BYTES_MAX: usize = 16 * 1024;
/// Fields of a request, at most.
pub(crate) const FIELDS_MAX: usize = 100;
/// Fields of an answer, at most.
const ANSWER_FIELDS_MAX: usize = 256;
/// Empty lines before a request that are passed over (RFC 9112, 2.2: some old clients end a body with one too many).
const EMPTY_LINES_MAX: usize = 2;

/// Why a head is no head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadHead {
    /// It is not HTTP/1.1 as it is written.
    Malformed,
    /// It is of another version.
    Version,
    /// It is longer than [`HEAD_BYTES_MAX`], or has too many fields.
    TooLarge,
    /// Its target is longer than [`TARGET_BYTES_MAX`].
    TargetTooLong,
}

/// A request's head.
#[derive(Debug, Default)]
pub(crate) struct RequestHead {
    bytes: Vec<u8>,
    method: Span,
    target: Span,
    /// The minor version: 0 or 1.
    pub(crate) minor: u8,
    fields: Vec<Field>,
    /// Which of the known fields are there.
    known: u32,
}

/// How far a request's head was looked for.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Search {
    /// Where the head begins, behind empty lines.
    begin: usize,
    /// Where the current line begins.
    line: usize,
    /// Where to look on.
    next: usize,
    empty: usize,
}

impl Search {
    /// Looks for the end of a head, going on where it stopped.
    pub(crate) fn end_of_head(&mut self, bytes: &[u8]) -> Result<Option<usize>, BadHead> {
        while let Some(found) = bytes.get(self.next..).and_then(|rest| memchr(b'\n', rest)) {
            let feed = self.next + found;
            if feed == self.line || bytes[feed - 1] != b'\r' {
                return Err(BadHead::Malformed);
            }
            let is_empty = feed - self.line == 1;
            (self.line, self.next) = (feed + 1, feed + 1);
            if !is_empty {
                continue;
            }
            if self.begin + 2 != self.line {
                return Ok(Some(self.line));
            }
            self.empty += 1;
            self.begin = self.line;
            if EMPTY_LINES_MAX < self.empty {
                return Err(BadHead::Malformed);
            }
        }
        self.next = bytes.len();
        if HEAD_BYTES_MAX < bytes.len() { Err(BadHead::TooLarge) } else { Ok(None) }
    }
}

impl RequestHead {
    /// Reads a head from the bytes that a [`Search`] has found to be one.
    pub(crate) fn read(&mut self, bytes: &[u8], search: &Search) -> Result<(), BadHead> {
        if HEAD_BYTES_MAX < bytes.len() {
            return Err(BadHead::TooLarge);
        }
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes.get(search.begin..).unwrap_or_default());
        self.fields.clear();
        let mut room = [const { std::mem::MaybeUninit::uninit() }; FIELDS_MAX];
        let mut request = httparse::Request::new(&mut []);
        let read = request.parse_with_uninit_headers(&self.bytes, &mut room);
        match read {
            // What was found is the whole of it, or the two disagree.
            Ok(Status::Complete(length)) if length == self.bytes.len() => {}
            Ok(_) => return Err(BadHead::Malformed),
            Err(Error::TooManyHeaders) => return Err(BadHead::TooLarge),
            Err(Error::Version) if has_version(&self.bytes) => return Err(BadHead::Version),
            Err(_) => return Err(BadHead::Malformed),
        }
        let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version)
        else {
            return Err(BadHead::Malformed);
        };
        // httparse lets bytes beyond ASCII through in a target.
        if !target.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(BadHead::Malformed);
        }
        if TARGET_BYTES_MAX < target.len() {
            return Err(BadHead::TargetTooLong);
        }
        self.method = Span::of(method.as_bytes(), &self.bytes);
        self.target = Span::of(target.as_bytes(), &self.bytes);
        self.minor = minor;
        self.fields.extend(request.headers.iter().map(|header| field(header, &self.bytes)));
        self.known = self::known(&self.fields);
        Ok(())
    }

    pub(crate) fn method(&self) -> &[u8] {
        self.method.of_in(&self.bytes)
    }

    /// The target as it came: a path with its query, a whole address, or `*`.
    pub(crate) fn target(&self) -> &str {
        // It was checked to be ASCII.
        std::str::from_utf8(self.target.of_in(&self.bytes)).unwrap_or_default()
    }

    /// The fields, each with its name and value.
    pub(crate) fn fields(&self) -> impl DoubleEndedIterator<Item = (Known, &[u8], &[u8])> {
        let part = |span: Span| span.of_in(&self.bytes);
        self.fields.iter().map(move |field| (field.known, part(field.name), part(field.value)))
    }

    /// The values of a field.
    pub(crate) fn all(&self, known: Known) -> impl DoubleEndedIterator<Item = &[u8]> {
        values(&self.bytes, &self.fields, self.known, known)
    }

    /// The first value of a field.
    pub(crate) fn get(&self, known: Known) -> Option<&[u8]> {
        self.all(known).next()
    }

    /// Gives memory back that one large head has taken.
    pub(crate) fn shrink(&mut self) {
        shrink(&mut self.bytes, &mut self.fields);
    }
}

/// Whether the first line has the form of a request's, and ends in some version of HTTP.
fn has_version(bytes: &[u8]) -> bool {
    let line = bytes.split(|b| *b == b'\r').next().unwrap_or_default();
    let parts: Vec<_> = line.split(|b| *b == b' ').collect();
    matches!(parts[..], [_, _, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]]
        if major.is_ascii_digit() && minor.is_ascii_digit())
}

/// An answer's head.
#[derive(Debug, Default)]
pub(crate) struct AnswerHead {
    bytes: Vec<u8>,
    pub(crate) status: u16,
    reason: Span,
    /// The minor version: 0 or 1.
    pub(crate) minor: u8,
    fields: Vec<Field>,
    /// Which of the known fields are there.
    known: u32,
}

impl AnswerHead {
    /// Reads a head from the beginning of what has come. Returns its length, or nothing if it is not all there.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Result<Option<usize>, BadHead> {
        let mut room = [const { std::mem::MaybeUninit::uninit() }; ANSWER_FIELDS_MAX];
        let mut answer = httparse::Response::new(&mut []);
        let mut config = httparse::ParserConfig::default();
        config.allow_obsolete_multiline_headers_in_responses(false);
        let length = match config.parse_response_with_uninit_headers(&mut answer, bytes, &mut room) {
            Ok(Status::Complete(length)) if length <= HEAD_BYTES_MAX => length,
            Ok(Status::Partial) if bytes.len() <= HEAD_BYTES_MAX => return Ok(None),
            Ok(_) | Err(Error::TooManyHeaders) => return Err(BadHead::TooLarge),
            Err(Error::Version) => return Err(BadHead::Version),
            Err(_) => return Err(BadHead::Malformed),
        };
        let (Some(status), Some(minor)) = (answer.code, answer.version) else {
            return Err(BadHead::Malformed);
        };
        (self.status, self.minor) = (status, minor);
        self.reason = answer.reason.map(|reason| Span::of(reason.as_bytes(), bytes)).unwrap_or_default();
        self.fields.clear();
        self.fields.extend(answer.headers.iter().map(|header| field(header, bytes)));
        self.known = self::known(&self.fields);
        self.bytes.clear();
        self.bytes.extend_from_slice(&bytes[..length]);
        Ok(Some(length))
    }

    /// Gives memory back that one large head has taken.
    pub(crate) fn shrink(&mut self) {
        shrink(&mut self.bytes, &mut self.fields);
    }

    pub(crate) fn reason(&self) -> &[u8] {
        self.reason.of_in(&self.bytes)
    }

    /// The fields, each with its name and value.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (Known, &[u8], &[u8])> {
        let part = |span: Span| span.of_in(&self.bytes);
        self.fields.iter().map(move |field| (field.known, part(field.name), part(field.value)))
    }

    /// The values of a field.
    pub(crate) fn all(&self, known: Known) -> impl Iterator<Item = &[u8]> {
        values(&self.bytes, &self.fields, self.known, known)
    }

    /// The first value of a field.
    pub(crate) fn get(&self, known: Known) -> Option<&[u8]> {
        self.all(known).next()
    }
}

fn shrink(bytes: &mut Vec<u8>, fields: &mut Vec<Field>) {
    const KEPT_BYTES: usize = 4096;
    bytes.clear();
    bytes.shrink_to(KEPT_BYTES);
    fields.clear();
}

fn known(fields: &[Field]) -> u32 {
    fields.iter().fold(0, |known, field| known | field.known.bit())
}

/// The values of a field, without a look at the others if it is not there.
fn values<'h>(
    bytes: &'h [u8],
    fields: &'h [Field],
    there: u32,
    wanted: Known,
) -> impl DoubleEndedIterator<Item = &'h [u8]> {
    let fields = if there & wanted.bit() == 0 { &[] } else { fields };
    fields.iter().filter(move |field| field.known == wanted).map(move |field| field.value.of_in(bytes))
}

fn field(header: &httparse::Header<'_>, bytes: &[u8]) -> Field {
    Field {
        name: Span::of(header.name.as_bytes(), bytes),
        value: Span::of(header.value, bytes),
        known: Known::of(header.name.as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads a request that comes in pieces cut at these places.
    fn read(text: &str, cuts: &[usize]) -> Result<Option<RequestHead>, BadHead> {
        let bytes = text.as_bytes();
        let mut search = Search::default();
        let mut ends: Vec<_> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        ends.push(bytes.len());
        ends.sort_unstable();
        for end in ends {
            if let Some(head_end) = search.end_of_head(&bytes[..end])? {
                let mut head = RequestHead::default();
                head.read(&bytes[..head_end], &search)?;
                return Ok(Some(head));
            }
        }
        Ok(None)
    }

    fn bad(text: &str) -> BadHead {
        match read(text, &[]) {
            Err(bad) => bad,
            Ok(head) => panic!("{text:?} is read as {head:?}"),
        }
    }

    #[test]
    fn a_head_is_read_with_names_as_they_were_written() {
        let text = "GET /a?b HTTP/1.1\r\nHOST: shop\r\nX-One:  two \r\n\r\nrest";
        let head = read(text, &[]).unwrap().unwrap();
        assert_eq!((head.method(), head.target(), head.minor), (&b"GET"[..], "/a?b", 1));
        let fields: Vec<_> = head.fields().collect();
        assert_eq!(fields[0], (Known::Host, &b"HOST"[..], &b"shop"[..]));
        assert_eq!(fields[1], (Known::Other, &b"X-One"[..], &b"two"[..]));
    }

    #[test]
    fn empty_lines_before_a_request_are_passed_over_if_they_are_few() {
        assert_eq!(read("\r\n\r\nGET / HTTP/1.0\r\n\r\n", &[]).unwrap().unwrap().minor, 0);
        assert_eq!(bad("\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n"), BadHead::Malformed);
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for text in [
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
            "\nGET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "GET / HTTP/1.1\r\n: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\0c\r\n\r\n",
            "GET  / HTTP/1.1\r\n\r\n",
            "GET /  HTTP/1.1\r\n\r\n",
            "GET /a b HTTP/1.1\r\n\r\n",
            "GET\t/ HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1 \r\n\r\n",
            " GET / HTTP/1.1\r\n\r\n",
            "GET /\u{e9} HTTP/1.1\r\n\r\n",
            "G\u{7f}T / HTTP/1.1\r\n\r\n",
        ] {
            assert!(matches!(bad(text), BadHead::Malformed | BadHead::Version), "{text:?}");
        }
        assert_eq!(bad("PRI * HTTP/2.0\r\n\r\n"), BadHead::Version);
        assert_eq!(bad("GET / HTTP/1.2\r\n\r\n"), BadHead::Version);
    }

    #[test]
    fn a_head_is_bounded_in_every_way() {
        let fields = "a: b\r\n".repeat(FIELDS_MAX + 1);
        assert_eq!(bad(&format!("GET / HTTP/1.1\r\n{fields}\r\n")), BadHead::TooLarge);
        let long = "x".repeat(TARGET_BYTES_MAX + 1);
        assert_eq!(bad(&format!("GET /{long} HTTP/1.1\r\n\r\n")), BadHead::TargetTooLong);
        let long = "x".repeat(HEAD_BYTES_MAX);
        assert_eq!(bad(&format!("GET / HTTP/1.1\r\na: {long}\r\n\r\n")), BadHead::TooLarge);
        assert_eq!(bad(&"x".repeat(HEAD_BYTES_MAX + 1)), BadHead::TooLarge, "before its end has come");
    }

    #[test]
    fn an_answer_may_end_its_lines_in_lf_alone() {
        let mut head = AnswerHead::default();
        let text = b"HTTP/1.1 404 Not Here\nServer: x\n\nbody";
        assert_eq!(head.read(text).unwrap(), Some(text.len() - 4));
        assert_eq!((head.status, head.reason()), (404, &b"Not Here"[..]));
        assert_eq!(head.read(b"HTTP/1.1 200").unwrap(), None);
        assert!(head.read(b"HELLO\r\n\r\n").is_err());
    }

    proptest! {
        #[test]
        fn it_does_not_matter_in_which_pieces_a_head_comes(
            text in "(\r\n){0,2}(GET|POST) /[a-z]{0,5} HTTP/1[.][01]\r\n([A-Za-z]{1,5}: ?[ -~]{0,8}\r?\n){0,4}\r?\n?",
            cuts in prop::collection::vec(0..200_usize, 0..5),
        ) {
            let show = |head: Result<Option<RequestHead>, BadHead>| head.map(|head| head.map(|head| head.bytes));
            prop_assert_eq!(show(read(&text, &cuts)), show(read(&text, &[])));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut search = Search::default();
            if let Ok(Some(end)) = search.end_of_head(&bytes) {
                let _read = RequestHead::default().read(&bytes[..end], &search);
            }
            let _read = AnswerHead::default().read(&bytes);
        }
    }
}
