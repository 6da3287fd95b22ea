//! The resolved file, compared with what Docker Compose 2.40.3 makes of the same file.
//!
//! Owns: the comparison over our own fixtures (`crates/bulsa/tests/fixtures/compose/NAME/`, each a `compose.yaml` and
//! what `docker-compose -p corpus ARGUMENTS config --format json`, called there with nothing in the environment but HOME
//! and PATH, prints for it as `expected.json`, with the directory as `@DIR@`, the one above as `@UP@` and the home as
//! `@HOME@`; ARGUMENTS are the words of the file `arguments`, if there is one), and over any other set of files that
//! `BULSA_CORPUS` names: there each `FILE.expected.json` stands beside its `FILE`. Key order means nothing.
//!
//! The known differences, none of which a fixture has, are in `docs/compose-differences.md`.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use bulsa_core::compose::{self, LoadInput, ReadError, SourceFile};
use serde_json::Value;

/// Where a fixture pretends to be.
const HOME: &str = "/home/corpus";

struct Case {
    file: PathBuf,
    expected: PathBuf,
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../bulsa/tests/fixtures/compose")
}

/// Every compose file below `dir` that has an expected output, sorted by path.
fn cases(dir: &Path) -> io::Result<Vec<Case>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(cases(&path)?);
        } else if path.file_name().is_some_and(|name| name == "expected.json") {
            found.push(Case { file: path.with_file_name("compose.yaml"), expected: path });
        } else if let Some(file) = path.to_str().and_then(|path| path.strip_suffix(".expected.json")) {
            found.push(Case { file: PathBuf::from(file), expected: path });
        }
    }
    found.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(found)
}

#[expect(clippy::disallowed_methods, reason = "the core opens no file, its tests read fixtures")]
fn text(path: impl AsRef<Path>) -> io::Result<String> {
    fs::read_to_string(path)
}

/// What a command line says before `config`, as far as a fixture needs it.
#[derive(Default)]
struct Arguments {
    files: Vec<String>,
    env_files: Vec<String>,
    profiles: Vec<String>,
    project_directory: Option<String>,
}

impl Arguments {
    /// Those of the file `arguments` beside the expected output; without one, or without `-f`, the file itself and the
    /// `compose.override.yaml` beside it.
    fn of(dir: &Path, file: &Path) -> io::Result<Self> {
        let mut arguments = Self::default();
        let words = text(dir.join("arguments")).unwrap_or_default();
        let mut words = words.split_whitespace().map(str::to_owned);
        while let Some(word) = words.next() {
            let value = words.next().ok_or_else(|| io::Error::other(format!("{word} has no value")))?;
            match word.as_str() {
                "-f" => arguments.files.push(value),
                "--env-file" => arguments.env_files.push(value),
                "--profile" => arguments.profiles.push(value),
                "--project-directory" => arguments.project_directory = Some(value),
                _ => return Err(io::Error::other(format!("a fixture can't say {word}"))),
            }
        }
        if arguments.files.is_empty() {
            let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let over = dir.join("compose.override.yaml");
            let files = [Some(name(file)), over.exists().then(|| name(&over))];
            arguments.files = files.into_iter().flatten().collect();
        }
        if arguments.env_files.is_empty() {
            // Compose reads the one of the project's directory.
            let default = match &arguments.project_directory {
                Some(project) => format!("{project}/.env"),
                None => ".env".to_owned(),
            };
            arguments.env_files.extend(dir.join(&default).exists().then_some(default));
        }
        Ok(arguments)
    }
}

/// What we make of a case: the output, and what there is to complain of.
fn resolved(file: &Path) -> io::Result<(Value, String)> {
    let dir = file.parent().unwrap_or(file);
    let Arguments { files, env_files, profiles, project_directory } = Arguments::of(dir, file)?;
    let sources = |paths: Vec<String>| -> io::Result<Vec<SourceFile>> {
        paths.into_iter().map(|path| Ok(SourceFile { text: text(dir.join(&path))?, path })).collect()
    };
    let mut read = |path: &str| {
        text(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ReadError::NotFound,
            _ => ReadError::Other(error.to_string()),
        })
    };
    let here = dir.to_string_lossy().into_owned();
    let directory = project_directory.map_or(here.clone(), |name| format!("{here}/{name}"));
    let loaded = compose::load(LoadInput {
        here: here.clone(),
        project_name: Some("corpus".to_owned()),
        env: BTreeMap::from([("HOME".to_owned(), HOME.to_owned())]),
        dotenvs: sources(env_files)?,
        profiles,
        ..LoadInput::new(sources(files)?, &directory, &mut read)
    });
    let out = replaced(compose::config_json(&loaded), &here);
    Ok((out, loaded.diagnostics.to_string()))
}

fn replaced(value: Value, dir: &str) -> Value {
    match value {
        Value::String(text) => {
            let up = dir.rsplit_once('/').map_or(dir, |(up, _)| up);
            Value::String(text.replace(dir, "@DIR@").replace(up, "@UP@").replace(HOME, "@HOME@"))
        }
        Value::Array(items) => items.into_iter().map(|item| replaced(item, dir)).collect(),
        Value::Object(map) => map.into_iter().map(|(key, value)| (key, replaced(value, dir))).collect(),
        other => other,
    }
}

/// Where two outputs differ, a line each.
fn differences(path: &str, ours: Option<&Value>, theirs: Option<&Value>, out: &mut Vec<String>) {
    match (ours, theirs) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                differences(&format!("{path}.{key}"), a.get(key), b.get(key), out);
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) if a.len() == b.len() => {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                differences(&format!("{path}[{i}]"), Some(a), Some(b), out);
            }
        }
        (a, b) if a == b => {}
        (Some(Value::Number(a)), Some(Value::Number(b))) if a.as_f64() == b.as_f64() => {}
        (a, b) => {
            let shown = |value: Option<&Value>| value.map_or("missing".to_owned(), Value::to_string);
            out.push(format!("{path}: ours {}, Compose's {}", shown(a), shown(b)));
        }
    }
}

/// Compares every case below `dir`; gives the number of cases and all differences.
fn compare(dir: &Path) -> (usize, Vec<String>) {
    let mut found = Vec::new();
    let cases = cases(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    for case in &cases {
        let name = case.file.strip_prefix(dir).unwrap_or(&case.file).display().to_string();
        let read = || -> io::Result<(Value, Value, String)> {
            let expected = serde_json::from_str(&text(&case.expected)?)?;
            let (ours, complaints) = resolved(&case.file)?;
            Ok((ours, expected, complaints))
        };
        let (ours, expected, complaints) = read().unwrap_or_else(|error| panic!("{name}: {error}"));
        if ours.is_null() {
            found.push(format!("{name}: refused\n{complaints}"));
        } else {
            differences(&name, Some(&ours), Some(&expected), &mut found);
        }
    }
    (cases.len(), found)
}

#[test]
fn our_files_resolve_as_in_compose() {
    let (count, differences) = compare(&fs::canonicalize(fixtures()).unwrap());
    assert!(count >= 40, "{count} fixtures are left");
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn the_files_of_a_given_corpus_resolve_as_in_compose() {
    let Some(dir) = std::env::var_os("BULSA_CORPUS") else { return };
    let (count, differences) = compare(&fs::canonicalize(dir).unwrap());
    assert!(count > 0, "no FILE.expected.json in the corpus");
    assert!(differences.is_empty(), "of {count}:\n{}", differences.join("\n"));
}
