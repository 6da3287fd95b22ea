//! What the two sides of a WebSocket say to each other before it is one (RFC 6455, section 4).
//!
//! Owns: the form of a client's key, and what a server makes of it.
//! Never: reads other fields; that a request asks for a WebSocket at all is in [`crate::headers`].

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

use crate::h1::fields::Known;
use crate::h1::head::{AnswerHead, RequestHead};

/// The only version there is.
const VERSION: &[u8] = b"13";
/// A key is 16 bytes in base64: so many digits, and `==`.
const KEY_DIGITS: usize = 22;
/// What a server puts behind the key before it hashes it, to show that it knows of WebSockets.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The key of a request whose handshake is whole: the one version, and one key of the right form.
pub(crate) fn key(head: &RequestHead) -> Option<&[u8]> {
    let is_version = only(head.all(Known::SecWebSocketVersion)) == Some(VERSION);
    only(head.all(Known::SecWebSocketKey)).filter(|key| is_version && is_key(key))
}

/// Whether an answer shows that its server has read this key.
pub(crate) fn accepts(head: &AnswerHead, key: &[u8]) -> bool {
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    only(head.all(Known::SecWebSocketAccept)) == Some(STANDARD.encode(digest).as_bytes())
}

/// Whether it is a key; what its last digit has in bits that stand for nothing does not matter.
fn is_key(key: &[u8]) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.strip_suffix(b"==").is_some_and(|digits| digits.len() == KEY_DIGITS && digits.iter().all(is_digit))
}

/// The value of a field that is there exactly once.
fn only<'h>(mut values: impl Iterator<Item = &'h [u8]>) -> Option<&'h [u8]> {
    values.next().filter(|_| values.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h1::head::Search;

    /// The example of the RFC.
    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

    fn lines(fields: &[(&str, &str)]) -> String {
        fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect()
    }

    fn has_key(fields: &[(&str, &str)]) -> bool {
        let text = format!("GET / HTTP/1.1\r\n{}\r\n", lines(fields));
        let (mut head, mut search) = (RequestHead::default(), Search::default());
        search.end_of_head(text.as_bytes()).unwrap();
        head.read(text.as_bytes(), &search).unwrap();
        key(&head).is_some()
    }

    #[test]
    fn a_request_needs_the_version_and_one_key() {
        let (version, field) = (("sec-websocket-version", "13"), ("sec-websocket-key", KEY));
        assert!(has_key(&[version, field]));
        assert!(!has_key(&[field]));
        assert!(!has_key(&[version]));
        assert!(!has_key(&[("sec-websocket-version", "8"), field]));
        assert!(!has_key(&[version, version, field]));
        assert!(!has_key(&[version, field, field]));
        for wrong in
            ["x", "", "dGhlIHNhbXBsZSBub25jZQ=", "dGhlIHNhbXBsZSBub25jZ-==", "dGhlIHNhbXBsZSBub25jZQA="]
        {
            assert!(!has_key(&[version, ("sec-websocket-key", wrong)]), "{wrong}");
        }
        assert!(has_key(&[version, ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZR==")]), "sloppy, and sound");
    }

    #[test]
    fn an_answer_must_be_made_of_the_key() {
        let accepts = |fields: &[(&str, &str)]| {
            let mut head = AnswerHead::default();
            head.read(format!("HTTP/1.1 101 x\r\n{}\r\n", lines(fields)).as_bytes()).unwrap();
            accepts(&head, KEY.as_bytes())
        };
        assert!(accepts(&[("sec-websocket-accept", ACCEPT)]));
        assert!(!accepts(&[("sec-websocket-accept", KEY)]));
        assert!(!accepts(&[("sec-websocket-accept", ACCEPT), ("sec-websocket-accept", ACCEPT)]));
        assert!(!accepts(&[]));
    }
}
