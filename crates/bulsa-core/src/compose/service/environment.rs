//! `environment` over `env_file`.

use std::collections::BTreeMap;

use super::{
    super::{
        diagnostic::{Diagnostic, Diagnostics, Pos},
        dotenv::{self, Format},
        keys, paths, read,
        scalar::Value,
        tree::{Kind, Node},
    },
    Context, ReadError, Service,
};

/// Reads both keys of a service: a later file wins over an earlier one, `environment` over all of them. A name
/// without a value takes it from the shell or `.env`.
pub(super) fn read(
    service: &mut Service,
    node: &Node,
    path: &str,
    context: &mut Context<'_, '_>,
    diags: &mut Diagnostics,
) {
    let mut values: BTreeMap<String, Option<String>> = BTreeMap::new();
    if let Some(node) = node.get("env_file") {
        for file in env_files(node, &format!("{path}.env_file"), diags) {
            let from_file = load(&file, &values, context, diags);
            values.extend(from_file.into_iter().map(|(name, value)| (name, Some(value))));
        }
    }
    if let Some(node) = node.get("environment") {
        let path = format!("{path}.environment");
        let mut own = BTreeMap::new();
        match &node.kind {
            Kind::Mapping(_) => from_mapping(node, &path, &mut own, diags),
            Kind::Sequence(items) => from_list(items, &path, &mut own, diags),
            Kind::Scalar(_) => diags.push(read::wrong(node, &path, "a mapping, or a list of NAME=value")),
        }
        for (name, value) in own {
            let value = value.or_else(|| context.environment.get(&name).map(str::to_owned));
            values.insert(name, value);
        }
    }
    service.environment = values;
}

fn name_is_good(name: &str, pos: &Pos, path: &str, diags: &mut Diagnostics) -> bool {
    let good = !name.is_empty() && !name.contains(['=', '\0']);
    if !good {
        diags.push(
            Diagnostic::error(pos, format!("{path}: {name:?} can't be a variable's name"))
                .expected("a name without `=`"),
        );
    }
    good
}

fn from_mapping(
    node: &Node,
    path: &str,
    own: &mut BTreeMap<String, Option<String>>,
    diags: &mut Diagnostics,
) {
    for entry in read::mapping(node, path, diags).unwrap_or_default() {
        let path = format!("{path}.{}", entry.key);
        if !name_is_good(&entry.key, &entry.key_pos, &path, diags) {
            continue;
        }
        let Some(scalar) = entry.value.scalar() else {
            diags.push(read::wrong(&entry.value, &path, "one value"));
            continue;
        };
        let resolved = scalar.resolve();
        let text = match resolved {
            Value::Text(_) => match read::text(&entry.value, &path, diags) {
                Some(text) => Some(text.to_owned()),
                None => continue,
            },
            other => other.into_text(),
        };
        if let Some(text) =
            text.as_ref().filter(|text| !matches!(resolved, Value::Bool(_)) && **text != scalar.value)
        {
            diags.push(
                Diagnostic::warning(
                    &entry.value.pos,
                    format!("{path}: the program gets {text:?}, not {:?}", scalar.value),
                )
                .hint(format!(
                    "YAML reads it as a number; put it in quotes to keep it: \"{}\"",
                    scalar.value
                )),
            );
        }
        own.insert(entry.key.clone(), text);
    }
}

fn from_list(
    items: &[Node],
    path: &str,
    own: &mut BTreeMap<String, Option<String>>,
    diags: &mut Diagnostics,
) {
    for (i, item) in items.iter().enumerate() {
        let path = format!("{path}[{i}]");
        if let Kind::Mapping(_) = item.kind {
            diags.push(
                read::wrong(item, &path, "NAME=value")
                    .hint("write `NAME=value`, or leave the `-` away on all lines"),
            );
            continue;
        }
        let Some(text) = read::text(item, &path, diags) else { continue };
        let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
        if name_is_good(name, &item.pos, &path, diags) {
            own.insert(name.to_owned(), value.map(str::to_owned));
        }
    }
}

struct EnvFile {
    pos: Pos,
    path: String,
    required: bool,
    format: Format,
}

fn env_files(node: &Node, path: &str, diags: &mut Diagnostics) -> Vec<EnvFile> {
    match &node.kind {
        Kind::Sequence(items) => {
            let read =
                items.iter().enumerate().map(|(i, item)| env_file(item, &format!("{path}[{i}]"), diags));
            read.collect::<Vec<_>>().into_iter().flatten().collect()
        }
        Kind::Mapping(_) => {
            diags.push(read::wrong(node, path, "a path, or a list").hint("put a `-` before `path`"));
            Vec::new()
        }
        Kind::Scalar(_) => env_file(node, path, diags).into_iter().collect(),
    }
}

fn env_file(node: &Node, path: &str, diags: &mut Diagnostics) -> Option<EnvFile> {
    let mut file =
        EnvFile { pos: node.pos.clone(), path: String::new(), required: true, format: Format::Compose };
    if let Kind::Mapping(_) = node.kind {
        read::keys(node, path, &keys::ENV_FILE, diags, |entry, path, diags| {
            let node = &entry.value;
            match entry.key.as_str() {
                "path" => file.path = read::text(node, path, diags).unwrap_or_default().to_owned(),
                "required" => file.required = read::boolean(node, path, diags).unwrap_or(true),
                _ => {
                    let formats = [("raw", Format::Raw)];
                    file.format = read::choice(node, path, &formats, &[], diags).unwrap_or(Format::Compose);
                }
            }
        });
        if node.get("path").is_none() {
            diags
                .push(Diagnostic::error(&node.pos, format!("{path} has no `path`")).expected("path: a file"));
            return None;
        }
    } else {
        read::text(node, path, diags)?.clone_into(&mut file.path);
    }
    if file.path.is_empty() {
        diags.push(Diagnostic::error(&node.pos, format!("{path} is empty")).expected("a path"));
        return None;
    }
    Some(file)
}

fn load(
    file: &EnvFile,
    earlier: &BTreeMap<String, Option<String>>,
    context: &mut Context<'_, '_>,
    diags: &mut Diagnostics,
) -> BTreeMap<String, String> {
    let path = paths::join(context.project_dir, &file.path);
    match (context.read)(&path) {
        Ok(text) => {
            let environment = context.environment;
            let lookup = |name: &str| {
                let earlier = earlier.get(name).cloned().flatten();
                earlier.or_else(|| environment.get(name).map(str::to_owned))
            };
            dotenv::parse(&file.path, &text, file.format, &lookup, diags)
        }
        Err(ReadError::NotFound) if !file.required => BTreeMap::new(),
        Err(error) => {
            let mistake = Diagnostic::error(&file.pos, format!("env_file {path}: {error}"));
            diags.push(match error {
                ReadError::NotFound => mistake.hint("create it, or say `{path: …, required: false}`"),
                ReadError::Other(_) => mistake,
            });
            BTreeMap::new()
        }
    }
}
