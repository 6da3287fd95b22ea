//! The id by which a request is found again: in the application's log, in an error's answer, in an incident.
//!
//! It goes to the application as `X-Request-Id`, the name that nginx, Envoy and most frameworks know. A trusted peer's
//! is kept; anybody else's is replaced, so that nobody can pass a request off as another one.

use http::header::{HeaderMap, HeaderName, HeaderValue};

/// The field.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest id that is kept, in bytes.
const LENGTH_MAX: usize = 128;

/// Sets the request's id, and returns it. `random` gives 64 random bits.
pub(crate) fn set(headers: &mut HeaderMap, trusted: bool, random: impl Fn() -> u64) -> HeaderValue {
    let known = headers.get(X_REQUEST_ID).filter(|id| trusted && is_fit(id));
    if let Some(id) = known {
        return id.clone();
    }
    let id = new(random(), random());
    headers.insert(X_REQUEST_ID, id.clone());
    id
}

fn is_fit(id: &HeaderValue) -> bool {
    (1..=LENGTH_MAX).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
}

/// 32 hexadecimal digits.
fn new(high: u64, low: u64) -> HeaderValue {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 32];
    let number = (u128::from(high) << 64) | u128::from(low);
    for (index, digit) in text.iter_mut().enumerate() {
        *digit = DIGITS[(number >> (124 - 4 * index)) as usize & 15];
    }
    HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set_in(known: &'static str, trusted: bool) -> (HeaderValue, HeaderMap) {
        let mut headers = HeaderMap::new();
        headers.insert(X_REQUEST_ID, HeaderValue::from_static(known));
        (set(&mut headers, trusted, || 0x0123_4567_89ab_cdef), headers)
    }

    #[test]
    fn a_trusted_peers_id_is_kept_and_a_strangers_replaced() {
        assert_eq!(set_in("abc-1", true).0, "abc-1");
        let (id, headers) = set_in("abc-1", false);
        assert_eq!(id, "0123456789abcdef0123456789abcdef");
        assert_eq!(headers[X_REQUEST_ID], id);
    }

    #[test]
    fn an_id_that_would_spoil_a_log_is_not_kept() {
        assert_ne!(set_in("a b", true).0, "a b");
        assert_ne!(set_in("", true).0, "");
    }
}
