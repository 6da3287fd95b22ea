use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// A frame with a payload of zeros, masked by zeros if at all.
fn frame(first: u8, masked: bool, length: usize, form: u8) -> Vec<u8> {
    let mask = if masked { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match (form, length) {
        (0, ..=125) => bytes.push(mask | length as u8),
        (0 | 1, ..=65_535) => {
            bytes.push(mask | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(mask | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(if masked { &[0; 4][..] } else { &[] });
    bytes.resize(bytes.len() + length, 0);
    bytes
}

/// Reads whole frames, one after the other: where they end, and whether messages do there.
fn naive(data: &[u8], masked: bool) -> (Vec<(usize, bool)>, bool) {
    let (mut at, mut found, mut in_message) = (0, Vec::new(), false);
    loop {
        let rest = &data[at..];
        let [first, second, ..] = rest else { return (found, false) };
        let (length_bytes, short) = match second & 0x7f {
            126 => (2, None),
            127 => (8, None),
            short => (0, Some(u64::from(short))),
        };
        let head = 2 + length_bytes + if second & 0x80 != 0 { 4 } else { 0 };
        if rest.len() < head {
            return (found, false);
        }
        let mut long = [0; 8];
        long[8 - length_bytes..].copy_from_slice(&rest[2..2 + length_bytes]);
        let length = short.unwrap_or(u64::from_be_bytes(long));
        let (last, opcode) = (first & 0x80 != 0, first & 0x0f);
        let fits = match opcode {
            0 => in_message,
            1 | 2 => !in_message,
            8..=10 => last && length <= 125,
            _ => false,
        };
        if !fits || length > i64::MAX as u64 || (second & 0x80 != 0) != masked {
            return (found, true);
        }
        if opcode < 8 {
            in_message = !last;
        }
        if ((rest.len() - head) as u64) < length {
            return (found, false);
        }
        at += head + length as usize;
        found.push((at, opcode == 8 || !in_message));
        if opcode == 8 {
            return (found, false);
        }
    }
}

fn follower(masked: bool) -> Follower {
    if masked { Follower::of_client() } else { Follower::of_server() }
}

fn after(masked: bool, frames: &[Vec<u8>]) -> Follower {
    let mut follower = follower(masked);
    frames.iter().for_each(|frame| follower.advance(frame));
    follower
}

/// Frames that mostly keep to the protocol, with controls between fragments.
fn stream() -> impl Strategy<Value = (bool, Vec<u8>)> {
    let first = prop_oneof![
        8 => Just(0x81_u8), 4 => Just(0x02), 4 => Just(0x00), 4 => Just(0x80), 2 => Just(0xc2),
        4 => Just(0x89), 4 => Just(0x8a), 1 => Just(0x88), 1 => any::<u8>(),
    ];
    let length = prop_oneof![4 => 0_usize..130, 1 => 65_500_usize..65_600];
    (any::<bool>(), vec((first, length, 0_u8..3), 0..12)).prop_map(|(masked, frames)| {
        let mut in_message = false;
        let mut bytes = Vec::new();
        for (first, length, form) in frames {
            // A fragment is made to fit most of the time.
            let first = match (first & 0x0f, in_message) {
                (1 | 2, true) => first & 0xf0,
                (0, false) => first | 2,
                _ => first,
            };
            if first & 0x08 == 0 {
                in_message = first & 0x80 == 0;
            }
            bytes.extend(frame(first, masked, if first & 0x08 == 0 { length } else { length % 126 }, form));
        }
        (masked, bytes)
    })
}

proptest! {
    #[test]
    fn pieces_of_any_length_have_the_same_boundaries((_, bytes) in stream(), pieces in vec(any::<u8>(), 0..64)) {
        follow_frames(&bytes, &pieces);
    }

    #[test]
    fn any_bytes_are_followed_or_lost_without_a_panic(bytes in vec(any::<u8>(), 0..400), pieces in vec(any::<u8>(), 0..64)) {
        follow_frames(&bytes, &pieces);
    }

    #[test]
    fn boundaries_are_those_that_whole_frames_have((masked, bytes) in stream(), pieces in vec(any::<u8>(), 0..64)) {
        let (boundaries, lost) = naive(&bytes, masked);
        let (followed, found) = follow_pieces(follower(masked), &bytes, &pieces);
        prop_assert_eq!(found, boundaries);
        prop_assert_eq!(followed.is_lost(), lost);
    }

    #[test]
    fn the_next_boundary_is_where_it_is_first_reached((masked, bytes) in stream(), from in any::<prop::sample::Index>()) {
        let start = from.index(bytes.len() + 1);
        let mut here = follower(masked);
        here.advance(&bytes[..start]);
        for boundary in [Boundary::Frame, Boundary::Message] {
            let first = (0..=bytes.len() - start).find(|count| {
                let mut there = here;
                there.advance(&bytes[start..start + count]);
                there.is_at(boundary)
            });
            prop_assert_eq!(here.until(&bytes[start..], boundary), first);
        }
    }
}

#[test]
fn a_message_ends_with_its_last_fragment_whatever_control_frames_come_between() {
    let mut follower = Follower::of_client();
    assert!(follower.is_at(Boundary::Message), "nothing has begun");
    for (first, ends) in
        [(0x01, false), (0x89, false), (0x00, false), (0x8a, false), (0x80, true), (0x82, true)]
    {
        let bytes = frame(first, true, 5, 0);
        follower.advance(&bytes[..7]);
        assert!(!follower.is_at(Boundary::Frame), "in the midst of {first:x}");
        follower.advance(&bytes[7..]);
        assert!(follower.is_at(Boundary::Frame));
        assert_eq!(follower.is_at(Boundary::Message), ends, "behind {first:x}");
    }
}

#[test]
fn what_breaks_the_protocol_is_lost() {
    let text = || frame(0x01, false, 3, 0);
    let broken: [(&str, bool, Vec<Vec<u8>>); 9] = [
        ("a reserved opcode", false, vec![frame(0x83, false, 0, 0)]),
        ("a reserved control opcode", false, vec![frame(0x8b, false, 0, 0)]),
        ("a fragmented control frame", false, vec![frame(0x09, false, 0, 0)]),
        ("a long control frame", false, vec![frame(0x89, false, 126, 0)]),
        ("a masked frame of a server", false, vec![frame(0x82, true, 0, 0)]),
        ("a frame of a client that is not masked", true, vec![frame(0x82, false, 0, 0)]),
        ("a continuation of nothing", false, vec![frame(0x80, false, 3, 0)]),
        ("a message within another", false, vec![text(), text()]),
        ("a length beyond all", false, vec![vec![0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0]]),
    ];
    for (what, masked, frames) in broken {
        let mut follower = after(masked, &frames);
        assert!(follower.is_lost(), "{what}");
        follower.advance(&frame(0x88, masked, 0, 0));
        assert!(follower.is_lost() && !follower.has_closed(), "{what}");
        assert_eq!(follower.until(&[0; 64], Boundary::Frame), None, "{what}");
    }
}

#[test]
fn reserved_bits_and_long_forms_of_a_length_are_followed() {
    let frames = [frame(0xf1, false, 3, 0), frame(0x82, false, 3, 1), frame(0x82, false, 3, 2)];
    let follower = after(false, &frames);
    assert!(follower.is_at(Boundary::Message) && !follower.is_lost());
}

#[test]
fn behind_a_close_everything_is_over_even_within_a_message() {
    let close = frame(0x88, true, 2, 0);
    let mut follower = after(true, &[frame(0x01, true, 3, 0)]);
    assert_eq!(follower.until(&close, Boundary::Message), Some(close.len()));
    follower.advance(&close[..6]);
    assert!(!follower.has_closed());
    follower.advance(&close[6..]);
    assert!(follower.has_closed() && follower.is_at(Boundary::Message));
    let closed = follower;
    follower.advance(b"whatever follows");
    assert_eq!(follower, closed);
}
