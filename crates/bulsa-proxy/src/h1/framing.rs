//! How long a message's body is: RFC 9112, section 6, without the repairs that it allows.
//!
//! Requests decide about smuggling: two hops that disagree on where a request ends read the rest as another one. So what
//! is not said in exactly one way is refused, and what is passed on is framed anew.

use super::fields::Known;
use super::head::{AnswerHead, RequestHead};

/// How a body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is none.
    None,
    /// So many bytes.
    Length(u64),
    /// In chunks.
    Chunked,
    /// Until the connection ends. Only an answer may be.
    UntilClose,
}

/// The framing cannot be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ambiguous;

/// How a request's body is framed.
pub(crate) fn of_request(head: &RequestHead) -> Result<Framing, Ambiguous> {
    let (mut length, mut is_chunked) = (None, false);
    for (known, name, value) in head.fields() {
        match known {
            Known::ContentLength if length.is_none() => length = Some(number(value).ok_or(Ambiguous)?),
            Known::TransferEncoding if !is_chunked && value.eq_ignore_ascii_case(b"chunked") => {
                is_chunked = true;
            }
            Known::ContentLength | Known::TransferEncoding => return Err(Ambiguous),
            // Some applications read underscores, or any other signs, as a dash.
            Known::Other if is_disguised(name) => return Err(Ambiguous),
            _ => {}
        }
    }
    match (length, is_chunked) {
        (Some(_), true) => Err(Ambiguous),
        // HTTP/1.0 knows no chunks: whoever is between us and the client may have passed them on as they are.
        (None, true) if head.minor == 0 => Err(Ambiguous),
        (None, true) => Ok(Framing::Chunked),
        (Some(0) | None, false) => Ok(Framing::None),
        (Some(length), false) => Ok(Framing::Length(length)),
    }
}

/// How an answer's body is framed. `to_head`: the request's method was `HEAD`.
pub(crate) fn of_answer(head: &AnswerHead, to_head: bool) -> Result<Framing, Ambiguous> {
    if to_head || head.status < 200 || head.status == 204 || head.status == 304 {
        return Ok(Framing::None);
    }
    let mut codings = head.all(Known::TransferEncoding);
    if let Some(coding) = codings.next() {
        // Another coding than chunks would have to be undone, and nobody asked for one.
        let is_chunked = coding.eq_ignore_ascii_case(b"chunked") && codings.next().is_none();
        return if is_chunked { Ok(Framing::Chunked) } else { Err(Ambiguous) };
    }
    let mut length = None;
    for value in head.all(Known::ContentLength) {
        let number = number(value).ok_or(Ambiguous)?;
        // Said twice is no harm, if it is the same.
        if length.is_some_and(|known| known != number) {
            return Err(Ambiguous);
        }
        length = Some(number);
    }
    Ok(length.map_or(Framing::UntilClose, Framing::Length))
}

/// A number written in digits alone.
fn number(value: &[u8]) -> Option<u64> {
    if !(1..=19).contains(&value.len()) || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

fn is_disguised(name: &[u8]) -> bool {
    let letters = || name.iter().filter(|b| b.is_ascii_alphanumeric()).map(u8::to_ascii_lowercase);
    [&b"contentlength"[..], b"transferencoding"].iter().any(|known| letters().eq(known.iter().copied()))
}

#[cfg(test)]
mod tests {
    use super::super::head::Search;
    use super::*;

    fn request(version: &str, fields: &str) -> Result<Framing, Ambiguous> {
        let text = format!("POST / HTTP/{version}\r\n{fields}\r\n");
        let mut search = Search::default();
        let end = search.end_of_head(text.as_bytes()).unwrap().unwrap();
        let mut head = RequestHead::default();
        head.read(&text.as_bytes()[..end], &search).unwrap();
        of_request(&head)
    }

    #[test]
    fn a_request_says_its_length_in_one_way_or_not_at_all() {
        assert_eq!(request("1.1", ""), Ok(Framing::None));
        assert_eq!(request("1.1", "Content-Length: 0\r\n"), Ok(Framing::None));
        assert_eq!(request("1.1", "content-length:  42 \r\n"), Ok(Framing::Length(42)));
        assert_eq!(request("1.1", "Transfer-Encoding: Chunked\r\n"), Ok(Framing::Chunked));
    }

    #[test]
    fn whatever_is_ambiguous_is_refused() {
        for fields in [
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n",
            "Content-Length: 1\r\nContent-Length: 1\r\n",
            "Content-Length: 1\r\nContent-Length: 2\r\n",
            "Content-Length: 1, 1\r\n",
            "Content-Length: +1\r\n",
            "Content-Length: -1\r\n",
            "Content-Length: 0x1\r\n",
            "Content-Length: 1 1\r\n",
            "Content-Length:\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked, identity\r\n",
            "Transfer-Encoding: identity\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding: \"chunked\"\r\n",
            "Transfer-Encoding: chunked;a=b\r\n",
            "Transfer-Encoding:\r\n",
            "Content_Length: 1\r\n",
            "Transfer_Encoding: chunked\r\n",
            "Content.Length: 1\r\n",
            "Transfer___Encoding: chunked\r\n",
        ] {
            assert_eq!(request("1.1", fields), Err(Ambiguous), "{fields}");
        }
        assert_eq!(request("1.0", "Transfer-Encoding: chunked\r\n"), Err(Ambiguous));
    }

    fn answer(text: &str, to_head: bool) -> Result<Framing, Ambiguous> {
        let mut head = AnswerHead::default();
        head.read(text.as_bytes()).unwrap();
        of_answer(&head, to_head)
    }

    #[test]
    fn an_answers_length_follows_from_what_was_asked_and_its_status() {
        assert_eq!(answer("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", false), Ok(Framing::Length(5)));
        assert_eq!(answer("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true), Ok(Framing::None));
        assert_eq!(
            answer("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", false),
            Ok(Framing::None)
        );
        assert_eq!(answer("HTTP/1.1 204 No Content\r\n\r\n", false), Ok(Framing::None));
        assert_eq!(answer("HTTP/1.1 200 OK\r\n\r\n", false), Ok(Framing::UntilClose));
        let both = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(answer(both, false), Ok(Framing::Chunked), "chunks win, as the RFC says");
        let differing = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n";
        assert_eq!(answer(differing, false), Err(Ambiguous));
        assert_eq!(answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", false), Err(Ambiguous));
    }
}
