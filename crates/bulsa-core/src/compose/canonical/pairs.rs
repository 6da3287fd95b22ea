//! Names with values: `environment`, `labels`, `args`, `ssh`, `extra_hosts` and others, as lists or as mappings.

use super::{
    super::{
        diagnostic::{Diagnostic, Diagnostics, Pos},
        keys::Short,
        read,
        tree::{Entry, Kind, Node},
    },
    Distinct, entry, mapping, nothing, text,
};

/// Makes a mapping of a list of `NAME=value`.
pub(super) fn pairs(node: &mut Node, form: Short, path: &str, diags: &mut Diagnostics) -> bool {
    let items = match &node.kind {
        Kind::Mapping(_) => return form != Short::Environment || good_names(node, path, diags),
        Kind::Sequence(items) => items,
        Kind::Scalar(_) => {
            diags.push(read::wrong(node, path, "a mapping, or a list of NAME=value"));
            return false;
        }
    };
    let mut entries = Distinct::default();
    let mut good = true;
    for (i, item) in items.iter().enumerate() {
        match pair(item, form, &format!("{path}[{i}]"), diags) {
            // Of two with one name the later one counts.
            Some(pair) => entries.put(pair),
            None => good = false,
        }
    }
    *node = mapping(entries.into_entries(), &node.pos);
    good
}

fn pair(item: &Node, form: Short, path: &str, diags: &mut Diagnostics) -> Option<Entry> {
    if let Kind::Mapping(_) = item.kind {
        diags.push(
            read::wrong(item, path, "NAME=value")
                .hint("write `NAME=value`, or leave the `-` away on all lines"),
        );
        return None;
    }
    let whole = read::text(item, path, diags)?;
    let (name, value) = whole.split_once('=').map_or((whole, None), |(name, value)| (name, Some(value)));
    let value = match (value, form) {
        (Some(value), _) => text(value, &item.pos),
        (None, Short::Environment) => nothing(&item.pos),
        (None, Short::Ssh) if name == "default" => nothing(&item.pos),
        (None, Short::FullPairs | Short::Ssh) => {
            diags.push(
                Diagnostic::error(&item.pos, format!("{path}: {whole:?} has no value"))
                    .expected("NAME=value"),
            );
            return None;
        }
        (None, _) => text("", &item.pos),
    };
    if form == Short::Environment && !good_variable(name, &item.pos, path, diags) {
        return None;
    }
    Some(entry(name, value))
}

fn good_names(node: &mut Node, path: &str, diags: &mut Diagnostics) -> bool {
    if let Kind::Mapping(entries) = &mut node.kind {
        entries.retain(|entry| {
            good_variable(&entry.key, &entry.key_pos, &format!("{path}.{}", entry.key), diags)
        });
    }
    true
}

/// Whether a program can have a variable of this name.
fn good_variable(name: &str, pos: &Pos, path: &str, diags: &mut Diagnostics) -> bool {
    let good = !name.is_empty() && !name.contains(['=', '\0']) && !name.ends_with(char::is_whitespace);
    if !good {
        diags.push(
            Diagnostic::error(pos, format!("{path}: {name:?} can't be a variable's name"))
                .expected("a name without `=`, and no space after it"),
        );
    }
    good
}

/// `extra_hosts` becomes a sorted list of `host=address`.
pub(super) fn extra_hosts(node: &mut Node, path: &str, diags: &mut Diagnostics) -> bool {
    let mut found: Vec<(String, Pos)> = Vec::new();
    let before = diags.list().len() + diags.omitted();
    match &node.kind {
        Kind::Sequence(items) => {
            for (i, item) in items.iter().enumerate() {
                let path = format!("{path}[{i}]");
                let Some(whole) = read::text(item, &path, diags) else { continue };
                match whole.split_once('=').or_else(|| whole.split_once(':')) {
                    Some((host, addresses)) => {
                        hosts(host, addresses.split(','), &item.pos, &path, &mut found, diags);
                    }
                    None => diags.push(
                        Diagnostic::error(&item.pos, format!("{path}: {whole:?} has no address"))
                            .expected("HOST=ADDRESS"),
                    ),
                }
            }
        }
        Kind::Mapping(entries) => {
            for entry in entries {
                let path = format!("{path}.{}", entry.key);
                match &entry.value.kind {
                    Kind::Sequence(_) => {
                        let addresses = read::texts(&entry.value, &path, diags).unwrap_or_default();
                        let addresses = addresses.iter().map(String::as_str);
                        hosts(&entry.key, addresses, &entry.value.pos, &path, &mut found, diags);
                    }
                    _ => {
                        let Some(address) = read::text(&entry.value, &path, diags) else { continue };
                        hosts(&entry.key, [address].into_iter(), &entry.value.pos, &path, &mut found, diags);
                    }
                }
            }
        }
        Kind::Scalar(_) => {
            diags.push(read::wrong(node, path, "a mapping of hosts to addresses, or a list of HOST=ADDRESS"));
        }
    }
    if diags.list().len() + diags.omitted() > before {
        return false;
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    node.kind = Kind::Sequence(found.into_iter().map(|(pair, pos)| text(pair, &pos)).collect());
    true
}

fn hosts<'a>(
    host: &str,
    addresses: impl Iterator<Item = &'a str>,
    pos: &Pos,
    path: &str,
    found: &mut Vec<(String, Pos)>,
    diags: &mut Diagnostics,
) {
    if host.is_empty() || host.contains([':', '=']) {
        diags.push(
            Diagnostic::error(pos, format!("{path}: {host:?} is no host's name")).expected("HOST=ADDRESS"),
        );
        return;
    }
    for address in addresses {
        let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
        found.push((format!("{host}={bare}"), pos.clone()));
    }
}
