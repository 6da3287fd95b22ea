//! What a value may be: the words that the tables of keys are written in.
//!
//! Owns: [`Object`], [`Field`] and [`Shape`]. One table says of each key what its value may be in short and long form,
//! whether it works and on which engine, and when Compose's `config` prints it; checking, bringing into canonical form,
//! refusing, printing and the documentation all follow from that table. Never: looks at a value.

use super::Later;

/// A mapping whose keys are Compose's.
#[derive(Debug)]
pub struct Object {
    /// For the documentation: `A service`.
    pub title: &'static str,
    /// Where it stands: `services.*`; empty for the top.
    pub place: &'static str,
    /// Its keys.
    pub fields: &'static [Field],
    /// Keys that must be there, each with what to write.
    pub required: &'static [(&'static str, &'static str)],
    /// Whether `x-…` is allowed.
    pub extensions: bool,
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name.
    pub key: &'static str,
    /// What its value may be.
    pub shape: Shape,
    /// When it is printed.
    pub show: Show,
    /// Where it works.
    pub support: Support,
}

/// Where a key works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// On both engines, or for the project as a whole.
    Both,
    /// In a service with `image` or `build`.
    Docker,
    /// It is taken in a service with containers, and has no effect there; the plan says what is done instead.
    Noted,
    /// In a service with containers; without one it is taken and has nothing to do, which whoever goes by it says.
    Needless,
    /// Nowhere yet, and why.
    Refused(Later),
}

/// When the resolved file has a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// Unless it is missing, empty, false or 0, as Compose leaves it out.
    Filled,
    /// Whenever it was given.
    Given,
    /// Also when it wasn't given: as nothing.
    OrNull,
    /// Also when it wasn't given: as an empty mapping.
    OrEmpty,
    /// Never.
    Never,
}

/// What a value may be.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// Anything; it is kept as it is.
    Any,
    /// Text; a number needs quotes.
    Text,
    /// Text, a number or a truth value; it becomes text.
    Word,
    /// As [`Shape::Word`]; nothing becomes the empty text.
    Label,
    /// As [`Shape::Word`]; nothing stays nothing. A number that changes on its way is warned of.
    Variable,
    /// One of these texts.
    Choice(&'static [&'static str]),
    /// `true` or `false`, also as text, and the words of YAML 1.1.
    Bool,
    /// A whole number, also as text.
    Int,
    /// A number of 32 bits' precision, also as text.
    Float,
    /// A size: `64m`, or bytes; it becomes text.
    Bytes,
    /// A duration: `1m30s`.
    Duration,
    /// Permission bits, octal as text; it becomes `0440`.
    Mode,
    /// A number of devices, or `all`, which becomes -1.
    DeviceCount,
    /// Nothing, a text to split into words, or a list.
    Command,
    /// `healthcheck.test`: a text for the shell, or a list.
    Test,
    /// `host=address` pairs; they become a sorted list.
    ExtraHosts,
    /// A list, of which later entries with the same identity replace earlier ones.
    List(&'static Self, Identity),
    /// A mapping with these keys.
    Object(&'static Object),
    /// The value, or nothing.
    OrNull(&'static Self),
    /// A mapping whose keys are the user's.
    Map(&'static Self),
    /// As [`Shape::Map`]; the keys are names: letters, digits, `.`, `_` and `-`.
    Named(&'static Self),
    /// The first for a scalar, the second for a mapping.
    Either(&'static Self, &'static Self),
    /// A short form that becomes the long one, or the long one.
    Short(Short, &'static Self),
}

/// What makes two entries of a list the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Nothing: all are kept.
    None,
    /// The text up to the first `=`.
    Name,
    /// `target`
    Target,
    /// `target`, or what it is from `source` and this directory.
    Grant(&'static str),
    /// Address, published, target and protocol.
    Port,
    /// `path`
    Path,
}

/// The short forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Short {
    /// A text is a list of one.
    One,
    /// A text is `{context: …}`.
    Build,
    /// `8080:80` and the like; one becomes several.
    Ports,
    /// `name:/path:ro`
    Volume,
    /// `/dev/a:/dev/b:rwm`
    Device,
    /// The name of a secret or config.
    Grant,
    /// A list of services.
    DependsOn,
    /// A path, or a list of paths.
    EnvFiles,
    /// A list of names, each with nothing.
    Names,
    /// A list of `NAME` or `NAME=value`.
    Environment,
    /// A list of `name=value`; a missing value is empty.
    Pairs,
    /// A list of `name=value`; a missing value is a mistake.
    FullPairs,
    /// `default`, or a list of `id=path`.
    Ssh,
    /// `all`
    Gpus,
    /// A service's name.
    Extends,
    /// The path of a file.
    Include,
    /// A value that isn't a list is a list of one.
    Options,
}

impl Object {
    /// The field with this key.
    #[must_use]
    pub fn field(&self, key: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.key == key)
    }

    /// All keys, for suggestions.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.fields.iter().map(|field| field.key)
    }
}

impl Shape {
    /// The mapping with fixed keys that the value is or holds, for walking through the tables.
    #[must_use]
    pub fn object(&self) -> Option<&'static Object> {
        match self {
            Self::Object(object) => Some(object),
            Self::List(inner, _)
            | Self::OrNull(inner)
            | Self::Map(inner)
            | Self::Named(inner)
            | Self::Either(_, inner)
            | Self::Short(_, inner) => inner.object(),
            _ => None,
        }
    }
}

/// A key that works on both engines.
pub(super) const fn both(key: &'static str, shape: Shape) -> Field {
    Field { key, shape, show: Show::Filled, support: Support::Both }
}

/// A key that needs containers.
pub(super) const fn docker(key: &'static str, shape: Shape) -> Field {
    Field { key, shape, show: Show::Filled, support: Support::Docker }
}

/// A key of containers that is taken and has no effect, which the plan says.
pub(super) const fn noted(key: &'static str, shape: Shape) -> Field {
    Field { key, shape, show: Show::Filled, support: Support::Noted }
}

/// A key of containers that has nothing to do without one, where it is taken.
pub(super) const fn needless(key: &'static str, shape: Shape) -> Field {
    Field { key, shape, show: Show::Filled, support: Support::Needless }
}

/// A key that works nowhere yet.
pub(super) const fn refused(key: &'static str, shape: Shape, why: Later) -> Field {
    Field { key, shape, show: Show::Filled, support: Support::Refused(why) }
}

impl Field {
    /// The same, printed at another time.
    pub(super) const fn show(self, show: Show) -> Self {
        Self { show, ..self }
    }
}

/// A list of texts.
pub(super) const TEXTS: Shape = Shape::List(&Shape::Text, Identity::None);
/// A list of texts, one for each name before a `=`.
pub(super) const NAMES: Shape = Shape::List(&Shape::Text, Identity::Name);
/// A text, or a list of texts.
pub(super) const ONE_OR_MORE: Shape = Shape::Short(Short::One, &TEXTS);
/// A text, or a list of texts, one for each name before a `=`.
pub(super) const ONE_OR_MORE_NAMES: Shape = Shape::Short(Short::One, &NAMES);
/// `labels` and whatever is written alike.
pub(super) const LABELS: Shape = Shape::Short(Short::Pairs, &Shape::Map(&Shape::Label));
/// `environment` and whatever is written alike.
pub(super) const VARIABLES: Shape = Shape::Short(Short::Environment, &Shape::Map(&Shape::Variable));
/// `driver_opts` and whatever is written alike.
pub(super) const OPTIONS: Shape = Shape::Map(&Shape::Label);
