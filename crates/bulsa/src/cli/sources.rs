//! The files that a project was read from, and whether they still are as they were.
//!
//! Owns: their fingerprints, which go along with a deploy, and the comparison for `bulsa status`. Never: keeps the text
//! of anything but a compose file: a `.env` or a secret is known by its fingerprint alone. Nothing of it decides what a
//! release is; that is the Spec's content hash.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    path::Path,
};

use bulsa_core::{
    compose,
    wire::api::{ProjectView, SourceFile},
};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::project::FILE_MAX_BYTES;
use crate::{client::Client, output::Tone};

/// At most this many files are remembered of a project, its compose files included; changes of others aren't seen.
const SOURCES_MAX: usize = 1000;
/// A file is read in pieces of this size, in bytes.
const PIECE_BYTES: usize = 64 << 10;

/// At most this many of a project's changed files are named to people.
const DRIFTS_SHOWN: usize = 5;

/// The files that are read while a project is loaded, by absolute path.
#[derive(Debug, Default)]
pub(super) struct Seen(BTreeMap<String, Option<String>>);

impl Seen {
    /// A file was read, or isn't there.
    pub(super) fn note(&mut self, path: &str, content: Option<&[u8]>) {
        if self.0.len() < SOURCES_MAX {
            self.0.insert(path.to_owned(), content.map(fingerprint));
        }
    }

    /// The compose files with their text, and then everything else.
    pub(super) fn with(self, files: &[compose::SourceFile], here: &Path) -> Vec<SourceFile> {
        let mut all: Vec<SourceFile> = files.iter().map(|file| compose_file(file, here)).collect();
        let others =
            self.0.into_iter().filter(|(path, _)| !files.iter().any(|f| absolute(&f.path, here) == *path));
        let others: Vec<_> =
            others.map(|(path, sha256)| SourceFile { path, text: String::new(), sha256 }).collect();
        all.extend(others);
        all.truncate(SOURCES_MAX);
        all
    }
}

/// A compose file as it goes along with a deploy.
pub(super) fn compose_file(file: &compose::SourceFile, here: &Path) -> SourceFile {
    SourceFile {
        path: absolute(&file.path, here),
        text: file.text.clone(),
        sha256: Some(fingerprint(file.text.as_bytes())),
    }
}

/// Standard input stays `-`.
pub(super) fn absolute(path: &str, here: &Path) -> String {
    if path == "-" { path.to_owned() } else { compose::paths::join(&here.to_string_lossy(), path) }
}

fn fingerprint(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A file that isn't as it was when the live release was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Drift {
    /// Its absolute path.
    pub(super) path: String,
    /// What became of it.
    pub(super) change: DriftKind,
    /// The release that was made of it before.
    pub(super) release: u32,
}

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum DriftKind {
    /// Something else is in it.
    Changed,
    /// It isn't there any more.
    Gone,
    /// It was looked for in vain then, and is there now.
    Appeared,
}

impl Drift {
    /// For people, who see it by its name alone where they work in its directory.
    pub(super) fn text(&self, here: &Path) -> String {
        let path = Path::new(&self.path);
        let shown = path.strip_prefix(here).unwrap_or(path).display();
        let release = self.release;
        match self.change {
            DriftKind::Changed => {
                format!("`{shown}` changed since release {release}; `bulsa deploy` makes a release of it")
            }
            DriftKind::Appeared => {
                format!("`{shown}` is new since release {release}; `bulsa deploy` makes a release of it")
            }
            DriftKind::Gone => {
                format!("`{shown}` is gone since release {release}; what runs was read from it, and runs on")
            }
        }
    }
}

/// The drift of a project for people: the first files, and how many more there are.
pub(super) fn drift_text(project: &str, drifts: &[Drift], here: &Path) -> String {
    let notes = drifts.iter().take(DRIFTS_SHOWN).map(|drift| drift.text(here));
    let more = drifts.len().saturating_sub(DRIFTS_SHOWN);
    let more = (more > 0).then(|| format!("and {more} more of its files are not as they were"));
    let line = |note: String| format!("{} {project}: {note}\n", Tone::Warn.paint("note:"));
    notes.chain(more).map(line).collect()
}

/// The drift of a project's live release. What can't be found out is no drift: a daemon of an older version, a file that
/// this user may not read.
pub(super) async fn drift_of(client: &Client, project: &ProjectView) -> Vec<Drift> {
    let Some(live) = project.live else { return Vec::new() };
    let sources = client.sources(&project.name, live).await.unwrap_or_default();
    sources.iter().take(SOURCES_MAX).filter_map(|source| drift(source, live)).collect()
}

fn drift(source: &SourceFile, release: u32) -> Option<Drift> {
    let path = Path::new(&source.path);
    // Standard input, and what `run` made up, are nowhere; an older version has paths that say nothing here.
    if !path.is_absolute() || source.sha256.is_none() && !source.text.is_empty() {
        return None;
    }
    let now = look(path).ok()?;
    let change = match (&source.sha256, now) {
        (Some(_), Now::Missing) => DriftKind::Gone,
        (Some(then), Now::There(now)) if *then != now => DriftKind::Changed,
        (Some(_), Now::Other) => DriftKind::Changed,
        (None, Now::There(_)) => DriftKind::Appeared,
        (Some(_), Now::There(_)) | (None, Now::Missing | Now::Other) => return None,
    };
    Some(Drift { path: source.path.clone(), change, release })
}

/// A file as it is.
enum Now {
    Missing,
    /// With this fingerprint.
    There(String),
    /// Too long to be what it was, or no file: a pipe would be waited for.
    Other,
}

fn look(path: &Path) -> io::Result<Now> {
    let is_nowhere =
        |error: &io::Error| matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
    let about = match path.metadata() {
        Err(error) if is_nowhere(&error) => return Ok(Now::Missing),
        about => about?,
    };
    if !about.is_file() || about.len() > FILE_MAX_BYTES {
        return Ok(Now::Other);
    }
    let mut file = File::open(path)?.take(FILE_MAX_BYTES + 1);
    let (mut digest, mut piece) = (Sha256::new(), vec![0; PIECE_BYTES]);
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(Now::There(hex(&digest.finalize()))),
            length => digest.update(piece.get(..length).unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_drifts_when_it_changes_goes_or_appears() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
        let mut seen = Seen::default();
        seen.note(&path("secret"), Some(b"hush"));
        seen.note(&path(".env"), None);
        let file = compose::SourceFile { path: "compose.yaml".to_owned(), text: "services:".to_owned() };
        let sources = seen.with(&[file], dir.path());
        let of = |name: &str| sources.iter().find(|source| source.path == path(name)).unwrap();
        assert_eq!(
            (sources.len(), of("compose.yaml").text.as_str(), of("secret").text.as_str()),
            (3, "services:", "")
        );
        let kinds =
            || sources.iter().map(|source| drift(source, 12).map(|drift| drift.change)).collect::<Vec<_>>();
        fs::write(path("compose.yaml"), "services:").unwrap();
        fs::write(path("secret"), "hush").unwrap();
        assert_eq!(kinds(), [None, None, None]);
        fs::write(path("compose.yaml"), "services: {}").unwrap();
        fs::remove_file(path("secret")).unwrap();
        fs::write(path(".env"), "").unwrap();
        // In the order of their paths, after the compose files.
        let all = [DriftKind::Changed, DriftKind::Appeared, DriftKind::Gone].map(Some);
        assert_eq!(kinds(), all);
        let text = drift(of("compose.yaml"), 12).unwrap().text(dir.path());
        assert_eq!(text, "`compose.yaml` changed since release 12; `bulsa deploy` makes a release of it");
    }

    #[test]
    fn what_an_older_version_stored_says_nothing_and_a_device_is_not_read() {
        let old = SourceFile { path: "/etc/passwd".to_owned(), text: "old".to_owned(), sha256: None };
        assert_eq!(drift(&old, 1), None);
        for path in ["-", "command line", "compose.yaml"] {
            assert_eq!(drift(&SourceFile { path: path.to_owned(), ..SourceFile::default() }, 1), None);
        }
        let pipe = SourceFile { path: "/dev/zero".to_owned(), sha256: Some("x".to_owned()), ..old };
        assert_eq!(drift(&pipe, 1).map(|drift| drift.change), Some(DriftKind::Changed));
    }
}
