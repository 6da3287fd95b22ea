//! The Close frames with which the proxy itself ends a WebSocket.
//!
//! Owns: their codes, reasons and bytes. Never: says when they are sent; see [`super::carry`].
//!
//! Towards the client the proxy is a server that restarts: 1012, at which clients come back. One that was only idle is
//! let go with 1001. Towards the target the proxy is a client that leaves, and says what a browser does: 1001.
//! Neither is ever compressed: an extension compresses messages, and a Close is none.

use std::hash::{BuildHasher, Hasher, RandomState};

use bytes::{BufMut, Bytes, BytesMut};

/// A last frame that is a Close.
const FINAL_CLOSE: u8 = 0x88;
/// In the second byte: the payload is masked.
const MASKED: u8 = 0x80;
/// "Going away": a page that was left, a server that stops.
const GOING_AWAY: u16 = 1001;
/// "Service restart": come back, after a moment of your own.
const SERVICE_RESTART: u16 = 1012;

/// Why a tunnel ends although neither side has ended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// It was told to.
    Told,
    /// It has lived for as long as it may.
    Old,
    /// It has carried nothing for too long.
    Idle,
}

impl Why {
    /// What is said to the client.
    pub(super) fn to_client(self) -> Bytes {
        let (code, reason) = match self {
            Self::Told => (SERVICE_RESTART, "service restart"),
            Self::Old => (SERVICE_RESTART, "time is up"),
            Self::Idle => (GOING_AWAY, "idle"),
        };
        frame(code, reason, None)
    }

    /// What is said to the target.
    pub(super) fn to_target(self) -> Bytes {
        let reason = match self {
            Self::Told => "",
            Self::Old => "time is up",
            Self::Idle => "idle",
        };
        frame(GOING_AWAY, reason, Some(mask_key()))
    }
}

/// A number that nobody outside can guess: the hash of nothing under a key of the operating system's randomness.
fn mask_key() -> [u8; 4] {
    let [a, b, c, d, ..] = RandomState::new().build_hasher().finish().to_ne_bytes();
    [a, b, c, d]
}

/// A Close frame. Reasons are short enough for a control frame's one byte of length.
fn frame(code: u16, reason: &'static str, mask: Option<[u8; 4]>) -> Bytes {
    let payload = [&code.to_be_bytes(), reason.as_bytes()].concat();
    let mut bytes = BytesMut::with_capacity(2 + 4 + payload.len());
    bytes.put_u8(FINAL_CLOSE);
    let length = payload.len() as u8;
    match mask {
        None => {
            bytes.put_u8(length);
            bytes.put_slice(&payload);
        }
        Some(key) => {
            bytes.put_u8(MASKED | length);
            bytes.put_slice(&key);
            bytes.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
        }
    }
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tunnel::frames::{Boundary, Follower};

    const ALL: [Why; 3] = [Why::Told, Why::Old, Why::Idle];

    #[test]
    fn a_client_hears_1012_or_that_it_was_idle() {
        assert_eq!(Why::Told.to_client(), &b"\x88\x11\x03\xf4service restart"[..]);
        assert_eq!(Why::Old.to_client(), &b"\x88\x0c\x03\xf4time is up"[..]);
        assert_eq!(Why::Idle.to_client(), &b"\x88\x06\x03\xe9idle"[..]);
    }

    #[test]
    fn a_target_hears_1001_under_a_mask() {
        for (why, plain) in ALL.into_iter().zip([&b"\x03\xe9"[..], b"\x03\xe9time is up", b"\x03\xe9idle"]) {
            let bytes = why.to_target();
            assert_eq!(bytes[..2], [0x88, 0x80 | plain.len() as u8]);
            let unmasked: Vec<_> =
                bytes[6..].iter().zip(bytes[2..6].iter().cycle()).map(|(b, k)| b ^ k).collect();
            assert_eq!(unmasked, plain);
        }
        assert_ne!(mask_key(), mask_key());
    }

    #[test]
    fn they_are_closes_of_a_server_and_of_a_client() {
        for why in ALL {
            for (mut follower, bytes) in
                [(Follower::of_server(), why.to_client()), (Follower::of_client(), why.to_target())]
            {
                assert_eq!(follower.until(&bytes[..bytes.len() - 1], Boundary::Frame), Some(0));
                follower.advance(&bytes);
                assert!(follower.has_closed());
            }
        }
    }
}
