//! `environment` over `env_file`, `labels` over `label_file`, and `build.args`: every value that comes from outside.

use std::collections::BTreeMap;

use super::{
    super::{
        canonical,
        diagnostic::{Diagnostic, Diagnostics, Pos},
        dotenv::{self, Format},
        paths,
        service::ReadError,
        tree::{Entry, Node},
    },
    Context,
};

/// The values of files, and the place of the key that named the file.
type FromFiles = Vec<Entry>;

/// Folds the files of one service into its mappings. A later file wins over an earlier one, the mapping over all of
/// them. A name without a value takes it from the shell or `.env`.
pub(super) fn fold(service: &mut Node, path: &str, context: &mut Context<'_, '_>, diags: &mut Diagnostics) {
    let own: BTreeMap<String, String> = values(service, "environment");
    let files = from_files(service, "env_file", path, &own, context, diags);
    let resolved = over(files, service.get("environment"), context);
    put(service, "environment", resolved);
    let files = from_files(service, "label_file", path, &BTreeMap::new(), context, diags);
    if !files.is_empty() {
        let labels = over(files, service.get("labels"), context);
        put(service, "labels", labels);
    }
    canonical::remove(service, "env_file");
    canonical::remove(service, "label_file");
    if let Some(build) = canonical::child_mut(service, "build") {
        let args = over(Vec::new(), build.get("args"), context);
        // An argument without a value anywhere is left to the Dockerfile's default.
        let args: Vec<Entry> = args.into_iter().filter(|entry| !canonical::is_null(&entry.value)).collect();
        put(build, "args", args);
    }
}

fn values(service: &Node, key: &str) -> BTreeMap<String, String> {
    let entries = service.get(key).map(canonical::entries).unwrap_or_default().iter();
    entries
        .filter(|entry| !canonical::is_null(&entry.value))
        .filter_map(|entry| Some((entry.key.clone(), entry.value.scalar()?.value.clone())))
        .collect()
}

fn put(node: &mut Node, key: &str, entries: Vec<Entry>) {
    if node.get(key).is_some_and(canonical::is_malformed) {
        return;
    }
    let pos = node.get(key).map_or_else(|| node.pos.clone(), |node| node.pos.clone());
    if entries.is_empty() {
        canonical::remove(node, key);
    } else {
        canonical::set(node, key, canonical::mapping(entries, &pos));
    }
}

fn over(files: FromFiles, own: Option<&Node>, context: &Context<'_, '_>) -> Vec<Entry> {
    let mut all: canonical::Distinct = files.into_iter().collect();
    for entry in own.map(canonical::entries).unwrap_or_default() {
        let mut entry = entry.clone();
        if canonical::is_null(&entry.value)
            && let Some(value) = context.variable(&entry.key)
        {
            entry.value = canonical::text(value, &entry.value.pos);
        }
        all.put(entry);
    }
    all.into_entries()
}

fn from_files(
    service: &Node,
    key: &str,
    path: &str,
    own: &BTreeMap<String, String>,
    context: &mut Context<'_, '_>,
    diags: &mut Diagnostics,
) -> FromFiles {
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    // Which file a value is from is known by the text that changed.
    let mut places: BTreeMap<String, Pos> = BTreeMap::new();
    for (i, item) in service.get(key).map(canonical::items).unwrap_or_default().iter().enumerate() {
        let Some(file) = file(item, key, &format!("{path}.{key}[{i}]"), diags) else { continue };
        let before = values.clone();
        load(&file, &mut values, own, context, diags);
        let changed = values.iter().filter(|(name, value)| before.get(*name) != Some(*value));
        places.extend(changed.map(|(name, _)| (name.clone(), item.pos.clone())));
    }
    let placed = values.into_iter().filter_map(|(name, value)| {
        let pos = places.get(&name)?;
        Some(canonical::entry(name, canonical::text(value, pos)))
    });
    placed.collect()
}

struct File<'n> {
    /// The key that names it.
    key: &'n str,
    pos: &'n Pos,
    path: String,
    required: bool,
    format: Format,
}

fn file<'n>(item: &'n Node, key: &'n str, path: &str, diags: &mut Diagnostics) -> Option<File<'n>> {
    let pos = &item.pos;
    if let Some(scalar) = item.scalar() {
        return Some(File { key, pos, path: scalar.value.clone(), required: true, format: Format::Compose });
    }
    let format = match item.get("format") {
        None => Format::Compose,
        Some(node) => {
            let formats = [("raw", Format::Raw)];
            super::super::read::choice(node, &format!("{path}.format"), &formats, &[], diags)?
        }
    };
    let required = canonical::text_of(item, "required") != Some("false");
    Some(File { key, pos, path: canonical::text_of(item, "path")?.to_owned(), required, format })
}

/// Reads a file over what is there. Its values see the shell and `.env` first, then what the service says itself, then
/// the file's own lines and the earlier files, as in Compose.
fn load(
    file: &File<'_>,
    values: &mut BTreeMap<String, String>,
    own: &BTreeMap<String, String>,
    context: &mut Context<'_, '_>,
    diags: &mut Diagnostics,
) {
    let path = &file.path;
    match (context.read)(path) {
        Ok(text) => {
            let context = &*context;
            let lookup = |name: &str| context.variable(name).or_else(|| own.get(name).cloned());
            let shown = paths::shown(context.here, path);
            dotenv::extend(values, (shown, &text), file.format, &lookup, diags);
        }
        Err(ReadError::NotFound) if !file.required => {}
        Err(error) => {
            let mistake = Diagnostic::error(file.pos, format!("{} {path}: {error}", file.key));
            diags.push(match error {
                ReadError::NotFound if file.key == "env_file" => {
                    mistake.hint("create it, or say `{path: …, required: false}`")
                }
                _ => mistake,
            });
        }
    }
}
