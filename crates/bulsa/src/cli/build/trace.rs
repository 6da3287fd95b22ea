//! BuildKit's account of a build.
//!
//! Owns: reading the few fields that people see from its messages. Never: trusts a length in them.
//!
//! The Engine sends `moby.buildkit.v1.StatusResponse` messages (BuildKit's `api/services/control/control.proto`) in
//! base64. Four fields of it are all that is wanted, so this reads protobuf's wire format itself: a field is a number
//! and a type (varint, eight bytes, bytes with a length, four bytes) and its value.

use std::collections::BTreeSet;

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// So many steps are remembered.
const STEPS_MAX: usize = 10_000;

/// Turns messages into lines.
#[derive(Debug, Default)]
pub(super) struct Trace {
    begun: BTreeSet<Vec<u8>>,
}

impl Trace {
    /// The lines of one message; none if it can't be read.
    pub(super) fn lines(&mut self, base64: &str) -> Vec<String> {
        let Ok(message) = STANDARD.decode(base64) else { return Vec::new() };
        let mut lines = Vec::new();
        for (number, value) in Fields(&message) {
            match number {
                1 => lines.extend(self.step(value)),
                3 => lines.extend(output(value)),
                _ => {}
            }
        }
        lines
    }

    /// `Vertex`: 1 digest, 3 name, 4 cached, 5 started, 7 error.
    fn step(&mut self, step: &[u8]) -> Vec<String> {
        let (mut digest, mut name, mut started, mut cached, mut error) = (&[][..], "", false, false, "");
        for (number, value) in Fields(step) {
            match number {
                1 => digest = value,
                3 => name = std::str::from_utf8(value).unwrap_or_default(),
                4 => cached = value.iter().any(|byte| *byte != 0),
                5 => started = true,
                7 => error = std::str::from_utf8(value).unwrap_or_default(),
                _ => {}
            }
        }
        let mut lines = Vec::new();
        let news = started && self.begun.len() < STEPS_MAX && self.begun.insert(digest.to_vec());
        if news && !name.starts_with("[internal]") && !name.starts_with("copy /context") {
            lines.push(if cached { format!("{name} (cached)") } else { name.to_owned() });
        }
        if !error.is_empty() {
            lines.push(format!("{name}: {error}"));
        }
        lines
    }
}

/// `VertexLog`: 4 msg.
fn output(log: &[u8]) -> Vec<String> {
    let message = Fields(log).filter(|(number, _)| *number == 4).map(|(_, value)| value);
    message
        .flat_map(|text| {
            String::from_utf8_lossy(text).lines().map(|line| format!("  {line}")).collect::<Vec<_>>()
        })
        .collect()
}

/// The fields of a message; ends at the first that can't be read. A number's value is its bytes as they were sent.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = (u64, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let key = self.varint()?.0;
        let value = match key & 7 {
            0 => self.varint()?.1,
            1 => self.take(8)?,
            2 => {
                let length = usize::try_from(self.varint()?.0).ok()?;
                self.take(length)?
            }
            5 => self.take(4)?,
            _ => return None,
        };
        Some((key >> 3, value))
    }
}

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (value, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(value)
    }

    /// A number of seven bits a byte, the lowest first; ten bytes at most.
    fn varint(&mut self) -> Option<(u64, &'a [u8])> {
        let length = self.0.iter().take(10).position(|byte| byte & 0x80 == 0)? + 1;
        let bytes = self.take(length)?;
        let bits = |(at, byte): (usize, &u8)| u64::from(byte & 0x7f).checked_shl(7 * u32::try_from(at).ok()?);
        Some((bytes.iter().enumerate().filter_map(bits).fold(0, |sum, bits| sum | bits), bytes))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn steps_and_their_output_are_told_once() {
        // From Engine 20.10: `[1/2] COPY …` begins, ends, and `echo hello-there` says so.
        let begins = "CsABCkdzaGEyNTY6OGE2MTc1NDFiMjc2MDEzNDFkMWM3MDU3YmE4ZWY2NWUwMzEwMTgxNDBjMGVjNmNmZjVhM2EyMDkzZmFkNGFlNRJHc2hhMjU2OjNhYmRmNjE3YjFiN2U4NzdiNGI4MDIxN2QzZjM2MzhlYTk1NzU4YzgyMzFiMzQxNjM0YWUyM2M5NTA4ZmViZDcaH1sxLzJdIENPUFkgYnVzeWJveCAvYmluL2J1c3lib3gqCwjZ7onYBhC955xH";
        let says = "GmcKR3NoYTI1Njo5ZWViMTk3NzE1ODE5MWFmY2QzNjVmMDQ5MWE5MjI2NzUxMThiNDFmMDZhMTRhNTQ4ODAxZDhhMjFkYWRjNjY5EgwI2e6J2AYQuovX3AEYASIMaGVsbG8tdGhlcmUK";
        let inner = "CnwKR3NoYTI1NjplNWFjNWNmZTE1Yjc0YzMyNzc4YzcyN2Y3NThmMjEzNTU5N2M0NmE0YjUzYzA5OTlkYjEyZTE0NmYyZjZiMzM5GiRbaW50ZXJuYWxdIGxvYWQgcmVtb3RlIGJ1aWxkIGNvbnRleHQqCwjZ7onYBhDF4sUQ";
        let mut trace = Trace::default();
        assert_eq!(trace.lines(begins), ["[1/2] COPY busybox /bin/busybox"]);
        assert!(trace.lines(begins).is_empty());
        assert_eq!(trace.lines(says), ["  hello-there"]);
        assert!(trace.lines(inner).is_empty());
    }

    #[test]
    fn a_failed_step_says_why() {
        // digest "d", name "RUN x", started, cached, error "exit code: 1"
        let step = b"\x0a\x01d\x1a\x05RUN x\x20\x01\x2a\x00\x3a\x0cexit code: 1";
        let mut message = vec![0x0a, u8::try_from(step.len()).unwrap()];
        message.extend_from_slice(step);
        let lines = Trace::default().lines(&STANDARD.encode(message));
        assert_eq!(lines, ["RUN x (cached)", "RUN x: exit code: 1"]);
    }

    proptest! {
        #[test]
        fn nonsense_ends_and_breaks_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut trace = Trace::default();
            trace.lines(&STANDARD.encode(&bytes));
            prop_assert!(trace.begun.len() <= bytes.len());
        }
    }
}
