//! Where one direction of a WebSocket stands, by the headers of its frames (RFC 6455, section 5.2).
//!
//! Owns: the position within a header, a payload and a message, and whether a Close has passed.
//! Never: keeps, changes or judges what is said: no UTF-8, no close codes, no extensions. The RSV bits are whatever the
//! two sides agreed on, and a length need not be in its shortest form.
//!
//! ```text
//! Header ─ whole ─▶ Payload ─ whole ─▶ Header …     at a frame's boundary: not a byte of the next header
//!   └─ breaks the protocol ─▶ Lost                  at a message's: and no fragmented message is open
//! ```
//!
//! Control frames may come between the fragments of a message; they leave it open. After a Close nothing is followed:
//! nothing may come. A direction that breaks the protocol is lost, for good: nobody can tell where its frames begin.

/// The longest header, in bytes: two, a length of eight, a mask key of four.
const HEADER_BYTES_MAX: usize = 14;
/// The longest payload of a control frame, in bytes.
const CONTROL_BYTES_MAX: u64 = 125;

const OPCODE_CONTINUATION: u8 = 0x0;
const OPCODE_TEXT: u8 = 0x1;
const OPCODE_BINARY: u8 = 0x2;
const OPCODE_CLOSE: u8 = 0x8;
const OPCODE_PONG: u8 = 0xa;

/// A place at which a Close may be put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Boundary {
    /// Between two messages.
    Message,
    /// Between two frames, be they fragments of one message.
    Frame,
}

/// Follows one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Follower {
    /// Whether the frames must be masked, or must not be.
    masked: bool,
    place: Place,
    /// Whether a fragmented message has begun and not ended.
    in_message: bool,
    closed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Header(Header),
    Payload { left: u64, is_close: bool },
    Lost,
}

/// A header as far as it has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Header {
    bytes: [u8; HEADER_BYTES_MAX],
    len: usize,
}

impl Follower {
    /// Follows what a client sends: frames that are masked.
    pub(super) fn of_client() -> Self {
        Self::new(true)
    }

    /// Follows what a server sends: frames that are not masked.
    pub(super) fn of_server() -> Self {
        Self::new(false)
    }

    fn new(masked: bool) -> Self {
        Self { masked, place: Place::Header(Header::default()), in_message: false, closed: false }
    }

    /// Goes on behind these bytes.
    pub(super) fn advance(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() && !self.closed {
            rest = &rest[self.take(rest)..];
        }
    }

    /// How many of these bytes lead to the next boundary, none if it is here. `None` if it is not within them.
    pub(super) fn until(&self, bytes: &[u8], boundary: Boundary) -> Option<usize> {
        let (mut ahead, mut rest) = (*self, bytes);
        while !ahead.is_at(boundary) {
            if rest.is_empty() {
                return None;
            }
            rest = &rest[ahead.take(rest)..];
        }
        Some(bytes.len() - rest.len())
    }

    /// Whether a Close may be put in here. Behind one that has passed everything is over.
    pub(super) fn is_at(&self, boundary: Boundary) -> bool {
        let between_frames = matches!(self.place, Place::Header(Header { len: 0, .. }));
        between_frames && (self.closed || boundary == Boundary::Frame || !self.in_message)
    }

    /// Whether a whole Close has passed.
    pub(super) fn has_closed(&self) -> bool {
        self.closed
    }

    /// Whether the protocol was broken, so that nothing is known any more.
    pub(super) fn is_lost(&self) -> bool {
        self.place == Place::Lost
    }

    /// Goes on by at least one byte of these, and at most to the end of the frame; says by how many.
    fn take(&mut self, bytes: &[u8]) -> usize {
        match (&mut self.place, bytes) {
            (_, []) => 0,
            (Place::Lost, _) => bytes.len(),
            (Place::Header(header), _) => {
                let taken = header.take(bytes);
                if header.missing() == 0 {
                    let header = *header;
                    self.enter(&header);
                }
                taken
            }
            (Place::Payload { left, is_close }, _) => {
                let taken = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= taken as u64;
                if *left == 0 {
                    let is_close = *is_close;
                    self.leave(is_close);
                }
                taken
            }
        }
    }

    /// Goes from a whole header to its payload.
    fn enter(&mut self, header: &Header) {
        if !self.may_come(header) {
            self.place = Place::Lost;
            return;
        }
        if !header.is_control() {
            self.in_message = !header.is_final();
        }
        let (left, is_close) = (header.payload_len(), header.opcode() == OPCODE_CLOSE);
        self.place = Place::Payload { left, is_close };
        if left == 0 {
            self.leave(is_close);
        }
    }

    fn leave(&mut self, is_close: bool) {
        self.closed |= is_close;
        self.place = Place::Header(Header::default());
    }

    /// Whether a frame with this header keeps to the protocol here.
    fn may_come(&self, header: &Header) -> bool {
        let fits = match header.opcode() {
            OPCODE_CONTINUATION => self.in_message,
            OPCODE_TEXT | OPCODE_BINARY => !self.in_message,
            OPCODE_CLOSE..=OPCODE_PONG => header.is_final() && header.payload_len() <= CONTROL_BYTES_MAX,
            _ => false,
        };
        fits && header.is_masked() == self.masked && header.payload_len() >> 63 == 0
    }
}

impl Header {
    /// Takes what belongs to it of these bytes; says how many.
    fn take(&mut self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while 0 < self.missing() && !rest.is_empty() {
            let (taken, behind) = rest.split_at(self.missing().min(rest.len()));
            self.bytes[self.len..self.len + taken.len()].copy_from_slice(taken);
            self.len += taken.len();
            rest = behind;
        }
        bytes.len() - rest.len()
    }

    /// How many bytes are certainly still to come; none if it is whole.
    fn missing(&self) -> usize {
        let known = match self.len {
            ..2 => 2,
            _ => 2 + self.length_bytes() + if self.is_masked() { 4 } else { 0 },
        };
        known - self.len
    }

    fn is_final(&self) -> bool {
        self.bytes[0] & 0x80 != 0
    }

    fn opcode(&self) -> u8 {
        self.bytes[0] & 0x0f
    }

    fn is_control(&self) -> bool {
        OPCODE_CLOSE <= self.opcode()
    }

    fn is_masked(&self) -> bool {
        self.bytes[1] & 0x80 != 0
    }

    /// How many bytes have the length, beside the second.
    fn length_bytes(&self) -> usize {
        match self.bytes[1] & 0x7f {
            127 => 8,
            126 => 2,
            _ => 0,
        }
    }

    fn payload_len(&self) -> u64 {
        let long = &self.bytes[2..2 + self.length_bytes()];
        match long {
            [] => u64::from(self.bytes[1] & 0x7f),
            _ => long.iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
        }
    }
}

/// Follows bytes twice, one at a time and in pieces of the lengths given, and panics if that makes a difference.
#[doc(hidden)]
pub fn follow_frames(data: &[u8], pieces: &[u8]) {
    for follower in [Follower::of_client(), Follower::of_server()] {
        let (mut by_byte, mut boundaries) = (follower, Vec::new());
        for (index, byte) in data.iter().enumerate() {
            by_byte.advance(&[*byte]);
            if by_byte.is_at(Boundary::Frame) {
                boundaries.push((index + 1, by_byte.is_at(Boundary::Message)));
            }
            if by_byte.has_closed() {
                break;
            }
        }
        let (in_pieces, found) = follow_pieces(follower, data, pieces);
        assert_eq!((in_pieces, found), (by_byte, boundaries));
    }
}

/// Where frames end, and whether messages do there.
fn follow_pieces(mut follower: Follower, data: &[u8], pieces: &[u8]) -> (Follower, Vec<(usize, bool)>) {
    let (mut rest, mut found) = (data, Vec::new());
    let mut lengths =
        pieces.iter().map(|length| usize::from(*length).max(1)).chain(std::iter::repeat(usize::MAX));
    while !rest.is_empty() {
        let (mut piece, behind) = rest.split_at(lengths.next().unwrap_or(usize::MAX).min(rest.len()));
        rest = behind;
        while !piece.is_empty() && !follower.has_closed() {
            // One byte leads away from a boundary; whole frames have two at least.
            let step = if follower.is_at(Boundary::Frame) {
                1
            } else {
                follower.until(piece, Boundary::Frame).unwrap_or(piece.len())
            };
            if let Some(whole) = follower.until(&piece[..step], Boundary::Message) {
                assert!(whole == 0 || whole == step, "a message ends where its last frame does");
            }
            follower.advance(&piece[..step]);
            piece = &piece[step..];
            if follower.is_at(Boundary::Frame) {
                found.push((data.len() - rest.len() - piece.len(), follower.is_at(Boundary::Message)));
            }
        }
    }
    (follower, found)
}

#[cfg(test)]
mod tests;
