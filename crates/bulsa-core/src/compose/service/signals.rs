//! `stop_signal`: names and numbers, as Linux counts them.

use super::super::{diagnostic::Diagnostic, tree::Node};

const FIRST_REALTIME: i32 = 34;
const LAST: i32 = 64;

/// The signals that stop or tell a program something.
const NAMES: &[(&str, i32)] = &[
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
    ("RTMIN", FIRST_REALTIME),
    ("RTMAX", LAST),
];

/// `SIGTERM`, `term`, `15`, `RTMIN+3`, `RTMAX-1`.
pub(crate) fn number(text: &str) -> Option<i32> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |digits: &str| digits.parse::<u8>().ok().map(i32::from);
    let number = if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
        Some(*number)
    } else if let Some(digits) = name.strip_prefix("RTMIN+") {
        offset(digits).map(|n| FIRST_REALTIME + n)
    } else if let Some(digits) = name.strip_prefix("RTMAX-") {
        offset(digits).map(|n| LAST - n).filter(|n| *n >= FIRST_REALTIME)
    } else {
        offset(text)
    };
    number.filter(|n| (1..=LAST).contains(n))
}

pub(super) fn unknown(node: &Node, path: &str, text: &str) -> Diagnostic {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    Diagnostic::error(&node.pos, format!("{path}: {text:?} is no signal"))
        .expected(format!("a name such as SIGTERM or SIGRTMIN+1, or a number from 1 to {LAST}"))
        .nearest(name, NAMES.iter().map(|(name, _)| *name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_read() {
        for (text, expected) in [
            ("SIGTERM", Some(15)),
            ("term", Some(15)),
            ("SIGINT", Some(2)),
            ("9", Some(9)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX-2", Some(62)),
            ("RTMIN", Some(34)),
            ("RTMIN+31", None),
            ("RTMAX-31", None),
            ("0", None),
            ("65", None),
            ("-9", None),
            ("SIG", None),
            ("FOO", None),
            ("", None),
        ] {
            assert_eq!(number(text), expected, "{text}");
        }
    }
}
