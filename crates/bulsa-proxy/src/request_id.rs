//! The id by which a request is found again: in the application's log, in an error's answer, in an incident.
//!
//! It goes to the application as `X-Request-Id`, the name that nginx, Envoy and most frameworks know. A trusted peer's
//! is kept; anybody else's is replaced, so that nobody can pass a request off as another one.

use crate::h1::fields::Known;
use crate::h1::head::RequestHead;

/// The longest id that is kept, in bytes.
const LENGTH_MAX: usize = 128;

/// The request's id. `random` gives 64 random bits.
pub(crate) fn of(head: &RequestHead, is_trusted: bool, random: impl Fn() -> u64) -> String {
    let known = head.get(Known::XRequestId).filter(|id| is_trusted && is_fit(id));
    let known = known.and_then(|id| std::str::from_utf8(id).ok());
    known.map_or_else(|| new(random(), random()), str::to_owned)
}

fn is_fit(id: &[u8]) -> bool {
    (1..=LENGTH_MAX).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

/// 32 hexadecimal digits.
fn new(high: u64, low: u64) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 32];
    let bytes = high.to_be_bytes().into_iter().chain(low.to_be_bytes());
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    // Digits are text.
    std::str::from_utf8(&text).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h1::head::Search;

    fn id(known: &str, is_trusted: bool) -> String {
        let text = format!("GET / HTTP/1.1\r\nX-Request-Id: {known}\r\n\r\n");
        let (mut head, mut search) = (RequestHead::default(), Search::default());
        search.end_of_head(text.as_bytes()).unwrap();
        head.read(text.as_bytes(), &search).unwrap();
        of(&head, is_trusted, || 0x0123_4567_89ab_cdef)
    }

    #[test]
    fn a_trusted_peers_id_is_kept_and_a_strangers_replaced() {
        assert_eq!(id("abc-1", true), "abc-1");
        assert_eq!(id("abc-1", false), "0123456789abcdef0123456789abcdef");
    }

    #[test]
    fn an_id_that_would_spoil_a_log_is_not_kept() {
        assert_ne!(id("a b", true), "a b");
        assert_ne!(id("", true), "");
    }
}
