//! The short form of one entry of a service's `volumes`: `name:/path:ro`, `./dir:/path`, `/anonymous`.

use super::{
    super::{
        diagnostic::{Diagnostic, Diagnostics},
        paths,
        tree::{Entry, Node},
    },
    entry, mapping, plain, text,
};

const FORMS: &str = "TARGET, SOURCE:TARGET or SOURCE:TARGET:OPTION,… where an option is ro, rw, nocopy, z, Z or a propagation";
const PROPAGATIONS: [&str; 6] = ["rprivate", "private", "rshared", "shared", "rslave", "slave"];

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum VolumeError {
    #[error("it is empty")]
    Empty,
    #[error("nothing stands between two colons")]
    EmptyPart,
    #[error("it has too many colons")]
    TooMany,
}

#[derive(Default)]
struct Short<'t> {
    source: &'t str,
    target: &'t str,
    read_only: bool,
    no_copy: bool,
    propagation: Option<&'t str>,
    selinux: Option<&'t str>,
}

/// The long form.
pub(super) fn lengthen(whole: &str, node: &Node, path: &str, diags: &mut Diagnostics) -> Option<Node> {
    match parse(whole) {
        Ok(short) => Some(long(&short, node)),
        Err(why) => {
            diags.push(
                Diagnostic::error(&node.pos, format!("{path}: {whole:?} can't be read: {why}"))
                    .expected(FORMS),
            );
            None
        }
    }
}

fn parse(whole: &str) -> Result<Short<'_>, VolumeError> {
    let mut short = Short::default();
    match whole.len() {
        0 => return Err(VolumeError::Empty),
        // Too short for a source and a target.
        1 | 2 => {
            short.target = whole;
            return Ok(short);
        }
        _ => {}
    }
    let parts = split(whole);
    if parts.iter().any(|part| part.is_empty()) {
        return Err(VolumeError::EmptyPart);
    }
    let options = match parts.as_slice() {
        [target] => {
            short.target = target;
            ""
        }
        [source, target] => {
            (short.source, short.target) = (source, target);
            ""
        }
        [source, target, options] => {
            (short.source, short.target) = (source, target);
            options
        }
        _ => return Err(VolumeError::TooMany),
    };
    for option in options.split(',') {
        match option {
            "ro" => short.read_only = true,
            "rw" => short.read_only = false,
            "nocopy" => short.no_copy = true,
            "z" | "Z" => short.selinux = Some(option),
            _ if PROPAGATIONS.contains(&option) => short.propagation = Some(option),
            // As in Compose, an option that nobody knows says nothing.
            _ => {}
        }
    }
    Ok(short)
}

/// At colons, except the one behind a drive's letter.
fn split(whole: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut start = 0;
    for (i, _) in whole.match_indices(':') {
        let part = &whole[start..i];
        let drive = part.chars().count() == 1 && part.chars().all(char::is_alphabetic);
        if !drive {
            parts.push(part);
            start = i + 1;
        }
    }
    parts.push(&whole[start..]);
    parts
}

fn is_path(source: &str) -> bool {
    let mut chars = source.chars();
    match chars.next() {
        Some('.' | '/' | '~') => true,
        Some('\\') => source.starts_with("\\\\"),
        Some(drive) => drive.is_alphabetic() && chars.next() == Some(':'),
        None => false,
    }
}

fn long(short: &Short<'_>, node: &Node) -> Node {
    let pos = &node.pos;
    let bind = is_path(short.source);
    let mut entries = vec![entry("type", text(if bind { "bind" } else { "volume" }, pos))];
    if !short.source.is_empty() {
        entries.push(entry("source", text(short.source, pos)));
    }
    entries.push(entry("target", text(paths::clean(short.target), pos)));
    if short.read_only {
        entries.push(entry("read_only", plain(true, pos)));
    }
    let mut of_bind: Vec<Entry> = Vec::new();
    of_bind.extend(short.selinux.map(|label| entry("selinux", text(label, pos))));
    of_bind.extend(short.propagation.map(|how| entry("propagation", text(how, pos))));
    if bind {
        of_bind.push(entry("create_host_path", plain(true, pos)));
    }
    if !of_bind.is_empty() {
        entries.push(entry("bind", mapping(of_bind, pos)));
    }
    if !bind || short.no_copy {
        let no_copy = short.no_copy.then(|| entry("nocopy", plain(true, pos)));
        entries.push(entry("volume", mapping(no_copy.into_iter().collect(), pos)));
    }
    mapping(entries, pos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_are_told_apart() {
        for (whole, expected) in [
            ("data:/d", Ok(("data", "/d"))),
            ("/anonymous", Ok(("", "/anonymous"))),
            ("/x", Ok(("", "/x"))),
            ("./a:/b:ro", Ok(("./a", "/b"))),
            (r"C:\x:/b", Ok((r"C:\x", "/b"))),
            ("aa:bb:cc:dd", Err(VolumeError::TooMany)),
            ("aa::bb", Err(VolumeError::EmptyPart)),
            ("abc:", Err(VolumeError::EmptyPart)),
            ("", Err(VolumeError::Empty)),
        ] {
            assert_eq!(parse(whole).map(|short| (short.source, short.target)), expected, "{whole}");
        }
    }

    #[test]
    fn paths_are_binds_and_names_are_volumes() {
        for (source, path) in [
            ("./a", true),
            ("~", true),
            ("/a", true),
            ("data", false),
            ("", false),
            ("C:", true),
            ("é", false),
        ] {
            assert_eq!(is_path(source), path, "{source}");
        }
    }
}
