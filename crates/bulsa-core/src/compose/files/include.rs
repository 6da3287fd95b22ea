//! `include`: other projects' resources in this one.
//!
//! Owns: reading what is included as a project of its own (its directory, its `.env`, its files merged) and taking its
//! services, networks, volumes, configs, secrets and models over. What both define is a mistake unless both say the
//! same. Never: lets an included file change what stands here.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    super::{
        canonical,
        diagnostic::{Diagnostic, Diagnostics, Pos},
        dotenv, paths, read,
        scalar::Value,
        tree::{Entry, Kind, Node, Scalar, Style},
    },
    Files, MAX_INCLUDE_DEPTH, Scope,
};

/// What is taken over.
const RESOURCES: &[&str] = &["services", "volumes", "networks", "secrets", "configs", "models"];

/// Takes `include` away from `root` and puts what it names in.
pub(super) fn apply(files: &mut Files<'_, '_>, scope: &Scope<'_>, root: &mut Node) {
    let Kind::Mapping(entries) = &mut root.kind else { return };
    let Some(place) = entries.iter().position(|entry| entry.key == "include") else { return };
    let include = entries.remove(place).value;
    let items = match include.kind {
        Kind::Sequence(items) => items,
        Kind::Scalar(ref scalar) if scalar.resolve() == Value::Null => return,
        _ => {
            files.diags.push(read::wrong(&include, "include", "a list of files"));
            return;
        }
    };
    // The files of one scope stand beside each other: one may include another one.
    let before = scope.way.split_last().filter(|_| files.depth > 0).map_or(&[][..], |(_, before)| before);
    let own = paths::join(files.here, &root.pos.file);
    let way: Vec<String> = before.iter().cloned().chain([own]).collect();
    for (i, item) in items.iter().enumerate() {
        if let Some(wanted) = wanted(files, item, &format!("include[{i}]"))
            && let Some(included) = read_included(files, scope, &way, &wanted)
        {
            import(files, root, included, &wanted);
        }
    }
}

/// One entry of `include`.
struct Wanted {
    path: String,
    pos: Pos,
    files: Vec<(String, Pos)>,
    directory: Option<String>,
    env_files: Option<Vec<(String, Pos)>>,
}

fn wanted(files: &mut Files<'_, '_>, node: &Node, path: &str) -> Option<Wanted> {
    let mut wanted = Wanted {
        path: path.to_owned(),
        pos: node.pos.clone(),
        files: Vec::new(),
        directory: None,
        env_files: None,
    };
    let errors = files.diags.errors();
    if canonical::entries(node).iter().any(|entry| canonical::is_malformed(&entry.value)) {
        return None;
    }
    if let Kind::Mapping(_) = node.kind {
        read::entries(node, path, files.diags, |entry, path, diags| {
            let node = &entry.value;
            match entry.key.as_str() {
                "path" => wanted.files = texts(node, path, diags),
                "env_file" => wanted.env_files = Some(texts(node, path, diags)),
                _ => wanted.directory = read::text(node, path, diags).map(str::to_owned),
            }
        });
    } else if let Some(text) = read::text(node, path, files.diags) {
        wanted.files.push((text.to_owned(), node.pos.clone()));
    }
    if files.diags.errors() > errors {
        return None;
    }
    if wanted.files.iter().all(|(file, _)| file.is_empty()) {
        let mistake = Diagnostic::error(&node.pos, format!("{path} names no file"));
        files.diags.push(mistake.expected("path: a compose file, or a list of them"));
        return None;
    }
    let all = wanted.files.clone();
    let remote = all.iter().any(|(file, pos)| files.is_remote(file, pos, path));
    (!remote).then_some(wanted)
}

/// One text, or a list of them, each with its place.
fn texts(node: &Node, path: &str, diags: &mut Diagnostics) -> Vec<(String, Pos)> {
    match &node.kind {
        Kind::Scalar(scalar) if scalar.resolve() == Value::Null => Vec::new(),
        Kind::Sequence(items) => {
            let texts = items.iter().filter_map(|item| {
                read::text(item, path, diags).map(|text| (text.to_owned(), item.pos.clone()))
            });
            texts.collect()
        }
        _ => read::text(node, path, diags)
            .map(|text| (text.to_owned(), node.pos.clone()))
            .into_iter()
            .collect(),
    }
}

/// The included project's tree, its paths absolute and its variables filled in.
fn read_included(
    files: &mut Files<'_, '_>,
    scope: &Scope<'_>,
    way: &[String],
    wanted: &Wanted,
) -> Option<Node> {
    let absolute = |file: &str| paths::clean(&scope.environment.absolute(&scope.directory, file));
    let names: Vec<(String, &Pos)> = wanted.files.iter().map(|(file, pos)| (absolute(file), pos)).collect();
    let main = &names.first()?.0;
    if files.exhausted {
        return None;
    }
    if way.contains(main) || way.len() >= MAX_INCLUDE_DEPTH {
        let names: Vec<String> = way.iter().chain([main]).map(|file| files.shown(file)).collect();
        let mistake = if way.contains(main) {
            format!("{}: the files include each other: {}", wanted.path, names.join(" → "))
        } else {
            files.exhausted = true;
            format!("{}: files include each other over more than {MAX_INCLUDE_DEPTH} levels", wanted.path)
        };
        files.diags.push(Diagnostic::error(&wanted.pos, mistake).hint("remove one of these `include`s"));
        return None;
    }
    let directory = match &wanted.directory {
        Some(directory) if !directory.is_empty() => absolute(directory),
        _ => paths::directory(main).to_owned(),
    };
    let values = variables(files, scope, wanted, &directory);
    let way = way.iter().chain([main]).cloned().collect();
    let inner = Scope { environment: scope.environment.above(Arc::new(values)), directory, way };
    let mut roots = Vec::with_capacity(names.len());
    for (name, pos) in &names {
        roots.push(files.open(name, pos, &wanted.path)?);
    }
    if roots.iter().all(Node::is_no_document) {
        // Nothing is included, which is no mistake.
        return roots.into_iter().next();
    }
    files.depth += 1;
    let tree = files.assemble(&inner, roots);
    files.depth -= 1;
    let mut tree = tree?;
    settle(&mut tree, &inner);
    Some(tree)
}

/// The variables of the included project's own files; `.env` in its directory if none is named.
fn variables(
    files: &mut Files<'_, '_>,
    scope: &Scope<'_>,
    wanted: &Wanted,
    directory: &str,
) -> BTreeMap<String, String> {
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    let named = match &wanted.env_files {
        Some(named) if !named.is_empty() => named.clone(),
        _ => Vec::new(),
    };
    let default = named.is_empty();
    let names = if default { vec![(paths::join(directory, ".env"), wanted.pos.clone())] } else { named };
    for (name, pos) in names {
        if name == "/dev/null" {
            continue;
        }
        let absolute = paths::join(&scope.directory, &name);
        let what = format!("{}.env_file", wanted.path);
        let Some(text) = files.text(&absolute, &pos, &what, default) else { continue };
        let shown = files.shown(&absolute);
        let lookup = |name: &str| scope.environment.get(name).map(str::to_owned);
        dotenv::extend(&mut values, (&shown, &text), dotenv::Format::Compose, &lookup, files.diags);
    }
    values
}

/// What only the included project's variables can say, and where its processes run: in its directory.
fn settle(tree: &mut Node, scope: &Scope<'_>) {
    let Kind::Mapping(top) = &mut tree.kind else { return };
    for entry in top.iter_mut().filter(|entry| entry.key == "services") {
        let Kind::Mapping(services) = &mut entry.value.kind else { continue };
        for service in services {
            environment(&mut service.value, scope);
            working_directory(&mut service.value, scope);
        }
    }
}

fn environment(service: &mut Node, scope: &Scope<'_>) {
    let Kind::Mapping(keys) = &mut service.kind else { return };
    for node in keys.iter_mut().filter(|entry| entry.key == "environment").map(|entry| &mut entry.value) {
        match &mut node.kind {
            Kind::Mapping(variables) => {
                for Entry { key, value, .. } in variables {
                    if let Kind::Scalar(scalar) = &mut value.kind
                        && scalar.resolve() == Value::Null
                        && let Some(found) = scope.environment.get(key)
                    {
                        *scalar = Scalar { value: found.to_owned(), style: Style::Quoted };
                    }
                }
            }
            Kind::Sequence(items) => {
                for item in items {
                    if let Kind::Scalar(scalar) = &mut item.kind
                        && let Some(found) = scope.environment.get(&scalar.value)
                    {
                        *scalar = Scalar { value: format!("{}={found}", scalar.value), style: Style::Quoted };
                    }
                }
            }
            Kind::Scalar(_) => {}
        }
    }
}

/// In a container, a working directory is one of the image; a program on this host starts in its project's directory.
fn working_directory(service: &mut Node, scope: &Scope<'_>) {
    let Kind::Mapping(keys) = &mut service.kind else { return };
    if keys.iter().any(|entry| matches!(entry.key.as_str(), "image" | "build" | "provider")) {
        return;
    }
    let pos = service.pos.clone();
    match keys.iter_mut().find(|entry| entry.key == "working_dir").map(|entry| &mut entry.value.kind) {
        Some(Kind::Scalar(scalar)) if !scalar.value.is_empty() => {
            scalar.value = paths::join(&scope.directory, &scalar.value);
        }
        Some(_) => {}
        None => {
            let scalar = Scalar { value: scope.directory.clone(), style: Style::Quoted };
            let value = Node { kind: Kind::Scalar(scalar), pos: pos.clone(), tag: None };
            keys.push(Entry { key: "working_dir".to_owned(), key_pos: pos, value });
        }
    }
}

fn import(files: &mut Files<'_, '_>, root: &mut Node, included: Node, wanted: &Wanted) {
    read::entries(&included, "", files.diags, |entry, path, diags| {
        if path == "x-bulsa" {
            diags.push(
                Diagnostic::warning(&entry.key_pos, "`x-bulsa` at the top of an included file is not used")
                    .hint("write it into the file that includes"),
            );
        }
    });
    let (Kind::Mapping(top), Kind::Mapping(from)) = (&mut root.kind, included.kind) else { return };
    for entry in from.into_iter().filter(|entry| RESOURCES.contains(&entry.key.as_str())) {
        let Some(here) = top.iter_mut().find(|here| here.key == entry.key) else {
            top.push(entry);
            continue;
        };
        match (&mut here.value.kind, entry.value.kind) {
            (Kind::Mapping(here), Kind::Mapping(others)) => {
                for other in others {
                    add(files, here, other, &entry.key, wanted);
                }
            }
            (Kind::Scalar(scalar), kind @ Kind::Mapping(_)) if scalar.resolve() == Value::Null => {
                here.value.kind = kind;
            }
            _ => {}
        }
    }
}

fn add(files: &mut Files<'_, '_>, here: &mut Vec<Entry>, other: Entry, kind: &str, wanted: &Wanted) {
    let Some(own) = here.iter().find(|own| own.key == other.key) else {
        here.push(other);
        return;
    };
    if !alike(&own.value, &other.value) {
        let mistake = format!("{kind}.{}: {} defines it too, and differently", own.key, wanted.path);
        files.diags.push(Diagnostic::error(&own.key_pos, mistake).hint(format!(
            "the other one is at {}; rename one of them, or change the included one by a second file: \
                 `include: [{{path: [FILE, CHANGES]}}]`",
            other.key_pos
        )));
    }
}

/// Whether two trees say the same, wherever they stand and in whatever order their keys are.
fn alike(a: &Node, b: &Node) -> bool {
    match (&a.kind, &b.kind) {
        (Kind::Scalar(a), Kind::Scalar(b)) => a.resolve() == b.resolve(),
        (Kind::Sequence(a), Kind::Sequence(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| alike(a, b))
        }
        (Kind::Mapping(a), Kind::Mapping(b)) => {
            let b: std::collections::HashMap<&str, &Node> =
                b.iter().map(|entry| (entry.key.as_str(), &entry.value)).collect();
            a.len() == b.len()
                && a.iter()
                    .all(|entry| b.get(entry.key.as_str()).is_some_and(|other| alike(&entry.value, other)))
        }
        _ => false,
    }
}
