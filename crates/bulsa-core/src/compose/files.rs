//! From a project's files to one tree.
//!
//! ```text
//! a file ─ !reset, !override ─ variables ─ canonical forms ─ include ─ extends ─┐
//! a file ─ …                                                                   ─┴ merge ─ absolute paths ─▶ one tree
//! ```
//!
//! Owns: that way, in the order of Docker Compose 2.40, and its limits. A value keeps the place in the file that it
//! comes from. `include` goes before `extends`, as in newer versions, so that a service can extend an included one.
//!
//! Never: knows what a service's key means beyond how it merges; opens a file other than through the caller's
//! function.

mod absolute;
mod changes;
mod extends;
mod include;
mod merge;
mod open;
mod profiles;
mod rules;
#[cfg(test)]
mod tests;
mod unique;

use super::{
    ReadError, ReadFile, canonical,
    diagnostic::{Diagnostic, Diagnostics, Pos},
    environment::Environment,
    interpolate, paths, read,
    tree::{self, Kind, NODE_WEIGHT, Node},
};

use self::changes::Changes;
pub(super) use profiles::switch as switch_profiles;

/// At most this many files make a project, those of `extends`, `include` and its `env_file`s counted.
pub const MAX_FILES: usize = 100;
/// What all files' trees together may weigh, in bytes of text plus [`NODE_WEIGHT`] a node: variables filled in, and
/// what `extends` copies counted each time.
pub const MAX_TREE_BYTES: usize = 32 * 1024 * 1024;
/// The longest chain of `include`s, in files.
pub const MAX_INCLUDE_DEPTH: usize = 16;
/// The longest chain of `extends`, in services.
pub const MAX_EXTENDS_DEPTH: usize = 64;

/// One project, or one `include`: what its files share.
pub(super) struct Scope<'a> {
    /// What its variables are.
    pub(super) environment: Environment<'a>,
    /// What its relative paths are seen from, absolute.
    pub(super) directory: String,
    /// The files that led here, absolute: none of them may be included again; then its own.
    pub(super) way: Vec<String>,
}

/// Reads files and puts them together.
pub(super) struct Files<'a, 'r> {
    here: &'a str,
    project: &'a str,
    read: &'a mut ReadFile<'r>,
    pub(super) diags: &'a mut Diagnostics,
    files: usize,
    bytes: usize,
    /// How many `include`s led to what is being read.
    depth: usize,
    /// A limit was reached: no further file is read, and nothing more is said about it.
    exhausted: bool,
}

/// A file's tree, ready to be merged.
struct Prepared {
    root: Node,
    changes: Changes,
}

impl<'a, 'r> Files<'a, 'r> {
    /// `here` is where messages see files from; `project` is the project's name.
    pub(super) fn new(
        here: &'a str,
        project: &'a str,
        read: &'a mut ReadFile<'r>,
        diags: &'a mut Diagnostics,
    ) -> Self {
        Self { here, project, read, diags, files: 0, bytes: 0, depth: 0, exhausted: false }
    }

    /// Merges the files of one scope, in their order. `None` where there is nothing to go on with.
    pub(super) fn assemble(&mut self, scope: &Scope<'_>, files: Vec<Node>) -> Option<Node> {
        if files.iter().all(Node::is_no_document)
            && let Some(first) = files.first()
        {
            let mistake = Diagnostic::error(&first.pos, "the file is empty");
            self.diags.push(mistake.expected("a mapping with `services:`"));
            return None;
        }
        let mut merged: Option<Node> = None;
        for root in files {
            let open = if merged.is_some() { open::everything } else { open::extending };
            let Some(Prepared { mut root, changes }) = self.prepare(root, scope, open) else { continue };
            include::apply(self, scope, &mut root);
            extends::apply(self, scope, &mut root, &changes);
            merged = Some(match merged {
                None => root,
                Some(mut base) => {
                    changes.apply(&mut base);
                    let mut both = merge::files(base, root, self.diags);
                    unique::enforce(&mut both);
                    both
                }
            });
        }
        let mut merged = merged?;
        open::close(&mut merged, self.diags);
        absolute::resolve(&mut merged, scope);
        Some(merged)
    }

    /// What is done to a file by itself; `open` says what others may complete.
    fn prepare(&mut self, mut root: Node, scope: &Scope<'_>, open: fn(&mut Node)) -> Option<Prepared> {
        if !matches!(root.kind, Kind::Mapping(_)) {
            self.diags.push(read::wrong(&root, "the file", "a mapping with `services:`"));
            return None;
        }
        let changes = Changes::take(&mut root, self.diags);
        let lookup = |variable: &str| scope.environment.lookup(self.project, variable);
        interpolate::interpolate(&mut root, &lookup, self.diags);
        open(&mut root);
        canonical::canonicalise(&mut root, self.diags);
        unique::enforce(&mut root);
        let pos = root.pos.clone();
        self.spend(&root, &pos).then_some(Prepared { root, changes })
    }

    /// Counts a tree, or a copy of one; whether there is room for it.
    fn spend(&mut self, node: &Node, pos: &Pos) -> bool {
        self.bytes = self.bytes.saturating_add(weight(node));
        if self.exhausted {
            return false;
        }
        if self.bytes > MAX_TREE_BYTES {
            self.exhausted = true;
            self.diags.push(
                Diagnostic::error(pos, "the project's files are too much together")
                    .expected(format!("at most {MAX_TREE_BYTES} bytes once everything is written out"))
                    .hint("`extends` copies what it extends; extend something smaller, or fewer times"),
            );
            return false;
        }
        true
    }

    /// The text of a file that another one names at `pos`. `None` where there is none; a mistake unless it may be
    /// missing.
    fn text(&mut self, path: &str, pos: &Pos, what: &str, may_be_missing: bool) -> Option<String> {
        if self.exhausted {
            return None;
        }
        if self.files >= MAX_FILES {
            self.exhausted = true;
            self.diags.push(
                Diagnostic::error(pos, format!("{what} {path}: the project has too many files"))
                    .expected(format!("at most {MAX_FILES} files, those of `extends` and `include` counted")),
            );
            return None;
        }
        match (self.read)(path) {
            Ok(text) => {
                self.files += 1;
                Some(text)
            }
            Err(ReadError::NotFound) if may_be_missing => None,
            Err(error) => {
                self.diags.push(Diagnostic::error(pos, format!("{what} {path}: {error}")));
                None
            }
        }
    }

    /// The tree of a compose file that another one names at `pos`.
    fn open(&mut self, path: &str, pos: &Pos, what: &str) -> Option<Node> {
        let text = self.text(path, pos, what, false)?;
        let shown = self.shown(path);
        tree::parse(&shown, &text, self.diags)
    }

    /// A path as messages show it.
    fn shown(&self, path: &str) -> String {
        paths::shown(self.here, path).to_owned()
    }

    /// Whether `path` is a place in the network, which is a mistake here.
    fn is_remote(&mut self, path: &str, pos: &Pos, what: &str) -> bool {
        let remote = path.contains("://") || path.starts_with("git@") || path.starts_with("github.com/");
        if remote {
            self.diags.push(
                Diagnostic::error(pos, format!("{what} {path}: files are only read from this host"))
                    .hint("download it, check it, and name the copy"),
            );
        }
        remote
    }
}

/// What a tree weighs, in bytes.
fn weight(node: &Node) -> usize {
    let inside = match &node.kind {
        Kind::Scalar(scalar) => scalar.value.len(),
        Kind::Sequence(items) => items.iter().map(weight).sum(),
        Kind::Mapping(entries) => {
            entries.iter().map(|entry| entry.key.len().saturating_add(weight(&entry.value))).sum()
        }
    };
    NODE_WEIGHT.saturating_add(inside)
}
