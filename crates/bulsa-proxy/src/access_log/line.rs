//! One line: the combined log format, with the request's id, its target and how long it took behind it.
//!
//! Owns: the form, and that one request is one line of it, whatever a client sends: each byte that could end a field or
//! a line is written as `\xHH`, and no field is endless.
//!
//! ```text
//! 10.0.0.7 - - [06/Nov/1994:08:49:37 +0000] "GET /a?b HTTP/1.1" 200 512 "-" "curl/8.5.0" 0af3… shop/web-r3-1.7 0.012
//! ```

use std::io::Write;
use std::net::IpAddr;
use std::time::Duration;

/// Bytes of a method that are logged.
const METHOD_BYTES_MAX: usize = 32;
/// Bytes of a path and its query that are logged.
const PATH_BYTES_MAX: usize = 2048;
/// Bytes of a `Referer` that are logged.
const REFERER_BYTES_MAX: usize = 1024;
/// Bytes of a `User-Agent` that are logged.
const AGENT_BYTES_MAX: usize = 512;
/// Bytes of a request's id, and of a target's, that are logged.
const NAME_BYTES_MAX: usize = 256;
/// What stands where something was cut.
const CUT: &[u8] = b"...";

/// What a line says.
#[derive(Debug, Clone)]
pub(super) struct Line<'l> {
    /// Whom the request was for.
    pub(super) from: IpAddr,
    pub(super) method: &'l [u8],
    /// With its query.
    pub(super) path: &'l [u8],
    /// The minor version that the client speaks.
    pub(super) minor: u8,
    pub(super) status: u16,
    /// Bytes of the answer's body that went out.
    pub(super) bytes: u64,
    pub(super) referer: Option<&'l [u8]>,
    pub(super) agent: Option<&'l [u8]>,
    pub(super) id: &'l str,
    /// The target's id, if one had it.
    pub(super) target: Option<&'l str>,
    pub(super) took: Duration,
}

impl Line<'_> {
    /// Writes the line with its end.
    pub(super) fn write(&self, out: &mut Vec<u8>, stamp: &str) {
        let Self { from, minor, status, bytes, .. } = self;
        put(out, format_args!("{from} - - [{stamp}] \""));
        escape(out, self.method, METHOD_BYTES_MAX);
        out.push(b' ');
        escape(out, self.path, PATH_BYTES_MAX);
        put(out, format_args!(" HTTP/1.{minor}\" {status} {bytes} \""));
        escape(out, or_dash(self.referer), REFERER_BYTES_MAX);
        out.extend_from_slice(b"\" \"");
        escape(out, or_dash(self.agent), AGENT_BYTES_MAX);
        out.extend_from_slice(b"\" ");
        name(out, self.id);
        out.push(b' ');
        name(out, self.target.unwrap_or_default());
        let took = self.took.as_millis();
        put(out, format_args!(" {}.{:03}\n", took / 1000, took % 1000));
    }
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Memory takes everything.
    out.write_fmt(text).ok();
}

fn or_dash(field: Option<&[u8]>) -> &[u8] {
    field.filter(|field| !field.is_empty()).unwrap_or(b"-")
}

/// A field without quotes around it: no space may be in it.
fn name(out: &mut Vec<u8>, name: &str) {
    let begin = out.len();
    escape(out, or_dash(Some(name.as_bytes())), NAME_BYTES_MAX);
    for byte in out.iter_mut().skip(begin).filter(|byte| **byte == b' ') {
        *byte = b'_';
    }
}

/// Writes what a client sent, so that it stays within its field: as nginx does it.
fn escape(out: &mut Vec<u8>, text: &[u8], max: usize) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let (mut rest, cut) = if max < text.len() { (&text[..max], CUT) } else { (text, &b""[..]) };
    // Most often it is plain to its end.
    while let Some(plain) = rest.iter().position(|byte| !is_plain(*byte)) {
        let byte = rest[plain];
        out.extend_from_slice(&rest[..plain]);
        let digits = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
        out.extend_from_slice(b"\\x");
        out.extend_from_slice(&digits);
        rest = &rest[plain + 1..];
    }
    out.extend_from_slice(rest);
    out.extend_from_slice(cut);
}

/// Whether a byte means nothing but itself in a line.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\'
}

/// The time as a line says it, from the time as answers say it: `Sun, 06 Nov 1994 08:49:37 GMT`.
pub(super) fn stamp(date: &str) -> String {
    let part = |range| date.get(range).unwrap_or("-");
    format!("{}/{}/{}:{} +0000", part(5..7), part(8..11), part(12..16), part(17..25))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn line<'l>(method: &'l [u8], path: &'l [u8], agent: &'l [u8], id: &'l str) -> Line<'l> {
        Line {
            from: [10, 0, 0, 7].into(),
            method,
            path,
            minor: 1,
            status: 200,
            bytes: 512,
            referer: None,
            agent: Some(agent),
            id,
            target: Some("shop/web-r3-1.7"),
            took: Duration::from_millis(1012),
        }
    }

    fn written(line: &Line<'_>) -> String {
        let mut out = Vec::new();
        line.write(&mut out, &stamp("Sun, 06 Nov 1994 08:49:37 GMT"));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_is_in_the_combined_format() {
        assert_eq!(
            written(&line(b"GET", b"/a?b", b"curl/8", "0af3")),
            "10.0.0.7 - - [06/Nov/1994:08:49:37 +0000] \"GET /a?b HTTP/1.1\" 200 512 \"-\" \"curl/8\" 0af3 \
             shop/web-r3-1.7 1.012\n"
        );
        let nobody = Line { target: None, referer: Some(b""), ..line(b"GET", b"/", b"", "") };
        let text = written(&nobody);
        assert!(text.ends_with("200 512 \"-\" \"-\" - - 1.012\n"), "{text}");
    }

    #[test]
    fn what_could_end_a_field_or_a_line_is_escaped_and_what_is_long_is_cut() {
        let text = written(&line(b"GET", b"/", b"a\"b\\c\r\nd\x7f\xc3\xa9", "i d"));
        assert!(text.contains(r#""a\x22b\x5Cc\x0D\x0Ad\x7F\xC3\xA9" i_d "#), "{text}");
        let long = vec![b'x'; 1 << 16];
        let text = written(&line(&long, &long, &long, "id"));
        assert!(text.len() < 4096 && text.contains("xxx... HTTP/1.1\""), "{}", text.len());
    }

    /// The fields of a line, as an analyser reads them: split at spaces that are in no quotes and no brackets.
    fn fields(text: &str) -> Vec<String> {
        let (mut fields, mut within) = (vec![String::new()], None);
        for c in text.chars() {
            match (c, within) {
                ('"', None) => within = Some('"'),
                ('[', None) if fields.len() == 4 => within = Some(']'),
                (c, Some(end)) if c == end => within = None,
                (' ', None) => fields.push(String::new()),
                (c, _) => fields.last_mut().unwrap().push(c),
            }
        }
        assert_eq!(within, None, "{text}");
        fields
    }

    proptest! {
        #[test]
        fn one_request_is_one_line_and_ends_no_field_of_its_own(
            method in vec(any::<u8>(), 1..40),
            path in vec(any::<u8>(), 1..3000),
            referer in proptest::option::of(vec(any::<u8>(), 0..1500)),
            agent in vec(any::<u8>(), 0..700),
            id in ".{0,300}",
        ) {
            let line = Line { referer: referer.as_deref(), ..line(&method, &path, &agent, &id) };
            let text = written(&line);
            prop_assert!(text.is_ascii());
            prop_assert_eq!(text.find('\n'), Some(text.len() - 1));
            let fields = fields(text.trim_end_matches('\n'));
            prop_assert_eq!(fields.len(), 12, "{}", text);
            prop_assert!(fields[4].ends_with(" HTTP/1.1"));
            prop_assert_eq!(&fields[5..7], ["200", "512"]);
            prop_assert_eq!(&fields[10..], ["shop/web-r3-1.7", "1.012"]);
        }
    }
}
