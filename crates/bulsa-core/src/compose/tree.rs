//! A YAML document as an untyped tree that knows where everything stands.
//!
//! Owns: [`Node`], built from saphyr-parser's events. Anchors are expanded, `<<` merge keys applied (shallow, a list
//! of mappings allowed, explicit keys win, the first mapping of a list wins), keys that come twice are mistakes.
//! Everything that Compose does to a file (interpolation now; extends, merging and include later) happens on this
//! tree; types come last.
//!
//! Never: interpolates, decides what a plain `1.10` means (that is [`super::scalar`]), or lets a document grow beyond
//! its limits: text, depth, and what aliases expand to are bounded, so that a small hostile file stays small.

mod build;
#[cfg(test)]
mod tests;

use super::diagnostic::Pos;

pub use build::parse;

/// The longest file that is read, in bytes.
pub const MAX_FILE_BYTES: usize = 1024 * 1024;
/// The deepest nesting, aliases expanded.
pub const MAX_DEPTH: usize = 64;
/// What all aliases together may expand to, in bytes of text plus [`NODE_WEIGHT`] a node.
pub const MAX_ALIAS_BYTES: usize = 4 * 1024 * 1024;
/// What a node counts for, in bytes, beside its text.
pub const NODE_WEIGHT: usize = 64;

/// One value of the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The value.
    pub kind: Kind,
    /// Where it starts; an aliased value stands where its anchor is.
    pub pos: Pos,
    /// A tag that isn't one of YAML's own, `!reset`.
    pub tag: Option<String>,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text, a number, a truth value or nothing: YAML decides by the text and its style.
    Scalar(Scalar),
    /// A list.
    Sequence(Vec<Node>),
    /// Keys and values, in the order of the file.
    Mapping(Vec<Entry>),
}

/// A scalar before it has a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scalar {
    /// Its text, escapes and folding resolved.
    pub value: String,
    /// How it was written.
    pub style: Style,
}

/// How a scalar was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Without quotes: `1` is a number.
    Plain,
    /// In quotes, as a block (`|`, `>`), or tagged `!!str`: always text.
    Quoted,
    /// It held a variable, so it is text whatever came out.
    Substituted,
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key's text.
    pub key: String,
    /// Where the key stands.
    pub key_pos: Pos,
    /// Its value.
    pub value: Node,
}

impl Node {
    /// Whether this stands for a file in which there is nothing, or comments only.
    #[must_use]
    pub fn is_no_document(&self) -> bool {
        self.pos.line == 0 && matches!(&self.kind, Kind::Mapping(entries) if entries.is_empty())
    }

    /// The text of a scalar.
    #[must_use]
    pub fn scalar(&self) -> Option<&Scalar> {
        match &self.kind {
            Kind::Scalar(scalar) => Some(scalar),
            _ => None,
        }
    }

    /// The entry with this key, where this is a mapping that has it.
    #[must_use]
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.kind {
            Kind::Mapping(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// The value under this key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.entry(key).map(|entry| &entry.value)
    }
}
