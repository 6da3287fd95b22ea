//! The chunked coding: taken apart strictly, and put together anew.
//!
//! Extensions are passed over and never passed on, trailers too, whatever they name (RFC 9112, 7.1.2 lets a recipient
//! drop them): both have been ways to smuggle a request. A line that does not end in CRLF is an error.

/// Digits of a chunk's size, at most.
const DIGITS_MAX: u32 = 16;
/// Bytes of the extensions of one chunk, at most.
const EXTENSION_BYTES_MAX: u32 = 256;
/// Bytes of all trailers, at most.
const TRAILER_BYTES_MAX: u32 = 8 * 1024;
/// The longest line before a chunk that is written, with its CRLF.
const SIZE_LINE_BYTES_MAX: usize = 18;

/// The coding is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadChunk;

/// Takes a chunked body apart.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    state: State,
    /// Digits, or bytes of an extension or of trailers, so far.
    count: u32,
    /// The size of the chunk, or what is left of it.
    left: u64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// At the begin of a line of trailers.
    TrailerBegin,
    TrailerName,
    Trailer,
    TrailerLf,
    LastLf,
    Done,
}

/// What the next bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// After `skip` bytes come `length` bytes of the body. Both are done with then.
    Data {
        /// Bytes of the coding.
        skip: usize,
        /// Bytes of the body, at least one.
        length: usize,
    },
    /// All the bytes belong to the coding; more must come.
    More,
    /// After so many bytes the body has ended.
    End(usize),
}

impl Decoder {
    /// Looks at the next bytes.
    pub(crate) fn step(&mut self, bytes: &[u8]) -> Result<Step, BadChunk> {
        for (index, byte) in bytes.iter().enumerate() {
            match (self.state, byte) {
                (State::Data, _) => {
                    let length = bytes.len() - index;
                    let length = usize::try_from(self.left).map_or(length, |left| left.min(length));
                    self.left -= length as u64;
                    if self.left == 0 {
                        self.state = State::DataCr;
                    }
                    return Ok(Step::Data { skip: index, length });
                }
                (State::Done, _) => return Ok(Step::End(index)),
                _ => self.eat(*byte)?,
            }
            if self.state == State::Done {
                return Ok(Step::End(index + 1));
            }
        }
        Ok(if self.state == State::Done { Step::End(bytes.len()) } else { Step::More })
    }

    fn eat(&mut self, byte: u8) -> Result<(), BadChunk> {
        self.state = match (self.state, byte) {
            (State::Size, b'\r') if 0 < self.count => State::SizeLf,
            (State::Size, b';') if 0 < self.count => {
                self.count = 0;
                State::Extension
            }
            (State::Size, _) => {
                let digit = char::from(byte).to_digit(16).ok_or(BadChunk)?;
                self.count += 1;
                if DIGITS_MAX < self.count {
                    return Err(BadChunk);
                }
                self.left = self.left * 16 + u64::from(digit);
                State::Size
            }
            (State::Extension, b'\r') => State::SizeLf,
            (State::Extension, _) => self.counted(byte, EXTENSION_BYTES_MAX, State::Extension)?,
            (State::SizeLf, b'\n') => {
                self.count = 0;
                if self.left == 0 { State::TrailerBegin } else { State::Data }
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => {
                self.count = 0;
                State::Size
            }
            (State::TrailerBegin, b'\r') => State::LastLf,
            (State::Trailer, b'\r') => State::TrailerLf,
            // A line without a name is no field; it may well be the begin of another request.
            (State::TrailerName, b':') => self.counted(byte, TRAILER_BYTES_MAX, State::Trailer)?,
            (State::TrailerBegin | State::TrailerName, _) if is_name(byte) => {
                self.counted(byte, TRAILER_BYTES_MAX, State::TrailerName)?
            }
            (State::Trailer, _) => self.counted(byte, TRAILER_BYTES_MAX, State::Trailer)?,
            (State::TrailerLf, b'\n') => State::TrailerBegin,
            (State::LastLf, b'\n') => State::Done,
            _ => return Err(BadChunk),
        };
        Ok(())
    }

    fn counted(&mut self, byte: u8, most: u32, state: State) -> Result<State, BadChunk> {
        self.count += 1;
        // A line feed alone ends a line for some.
        let is_text = byte == b'\t' || (b' ' <= byte && byte != 0x7f);
        if is_text && self.count <= most { Ok(state) } else { Err(BadChunk) }
    }
}

/// Whether a byte may be part of a field's name (RFC 9110, 5.6.2).
fn is_name(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.')
        || matches!(byte, b'^'..=b'`' | b'|' | b'~')
}

/// The line before a chunk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SizeLine {
    bytes: [u8; SIZE_LINE_BYTES_MAX],
    start: usize,
}

impl SizeLine {
    pub(crate) fn new(size: usize) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut bytes = [0; SIZE_LINE_BYTES_MAX];
        bytes[SIZE_LINE_BYTES_MAX - 2] = b'\r';
        bytes[SIZE_LINE_BYTES_MAX - 1] = b'\n';
        let mut start = SIZE_LINE_BYTES_MAX - 2;
        let mut rest = size;
        loop {
            start -= 1;
            bytes[start] = DIGITS[rest & 15];
            rest >>= 4;
            if rest == 0 {
                return Self { bytes, start };
            }
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

/// What ends a chunked body.
pub(crate) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A body, and what is left behind it.
    type Decoded = (Vec<u8>, Vec<u8>);

    /// Decodes bytes that come in pieces of this size.
    fn decode(bytes: &[u8], piece: usize) -> Result<Option<Decoded>, BadChunk> {
        let (mut decoder, mut body) = (Decoder::default(), Vec::new());
        let mut at = 0;
        for piece in bytes.chunks(piece.max(1)) {
            let mut rest = piece;
            loop {
                match decoder.step(rest)? {
                    Step::Data { skip, length } => {
                        body.extend_from_slice(&rest[skip..skip + length]);
                        rest = &rest[skip + length..];
                    }
                    Step::More => break,
                    Step::End(used) => {
                        let end = at + piece.len() - rest.len() + used;
                        return Ok(Some((body, bytes[end..].to_vec())));
                    }
                }
                if rest.is_empty() && decoder.state != State::Done {
                    break;
                }
            }
            at += piece.len();
        }
        Ok(None)
    }

    #[test]
    fn extensions_and_trailers_are_passed_over() {
        let text = b"3;a=\"b\"\r\nabc\r\nA\r\n0123456789\r\n0\r\nX: y\r\n\r\nGET";
        for piece in 1..text.len() {
            let (body, rest) = decode(text, piece).unwrap().unwrap();
            assert_eq!((body.as_slice(), rest.as_slice()), (&b"abc0123456789"[..], &b"GET"[..]));
        }
    }

    #[test]
    fn every_other_form_is_an_error() {
        for text in [
            "3\nabc\r\n0\r\n\r\n",
            "3\r\nabc\n0\r\n\r\n",
            "3\r\nabcd\r\n0\r\n\r\n",
            "3\r\nabc0\r\n\r\n",
            " 3\r\nabc\r\n0\r\n\r\n",
            "3 \r\nabc\r\n0\r\n\r\n",
            "0x3\r\nabc\r\n0\r\n\r\n",
            "+3\r\nabc\r\n0\r\n\r\n",
            "-1\r\n",
            "\r\nabc",
            ";a\r\n",
            "g\r\n",
            "10000000000000000\r\n",
            "3;a\nabc\r\n0\r\n\r\n",
            "3;a\rb\r\n",
            "0\r\nX: y\n\r\n",
            "0\r\n\n",
            "0\r\n\rx",
            "0\r\nX: \0\r\n\r\n",
            "0\r\nGET / HTTP/1.1\r\n\r\n",
            "0\r\n: x\r\n\r\n",
            "0\r\nX : y\r\n\r\n",
        ] {
            assert_eq!(decode(text.as_bytes(), 7), Err(BadChunk), "{text:?}");
        }
        let long = format!("3;{}\r\nabc\r\n", "a".repeat(257));
        assert_eq!(decode(long.as_bytes(), 99), Err(BadChunk));
        let long = format!("0\r\n{}\r\n", "a: b\r\n".repeat(2100));
        assert_eq!(decode(long.as_bytes(), 99), Err(BadChunk));
    }

    #[test]
    fn size_lines_are_written_in_hexadecimal() {
        let line = |size| String::from_utf8(SizeLine::new(size).as_bytes().to_vec()).unwrap();
        assert_eq!(
            (line(0).as_str(), line(255).as_str(), line(0x10000).as_str()),
            ("0\r\n", "ff\r\n", "10000\r\n")
        );
        assert_eq!(line(usize::MAX), "ffffffffffffffff\r\n");
    }

    proptest! {
        #[test]
        fn what_is_put_together_comes_apart_again(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..6),
            piece in 1..64_usize,
        ) {
            let mut text = Vec::new();
            for part in &parts {
                text.extend_from_slice(SizeLine::new(part.len()).as_bytes());
                text.extend_from_slice(part);
                text.extend_from_slice(b"\r\n");
            }
            text.extend_from_slice(LAST_CHUNK);
            text.extend_from_slice(b"next");
            prop_assert_eq!(decode(&text, piece), Ok(Some((parts.concat(), b"next".to_vec()))));
        }

        #[test]
        fn no_bytes_make_it_panic_and_pieces_do_not_matter(
            bytes in "[0-9a-f;\r\n x]{0,60}", piece in 1..9_usize,
        ) {
            prop_assert_eq!(decode(bytes.as_bytes(), piece), decode(bytes.as_bytes(), 1000));
        }
    }
}
