//! Variables in values: `$X`, `${X}`, `${X-default}`, `${X:+alternative}`, `${X:?message}`, nested, and `$$` for `$`.
//!
//! Owns: [`substitute`], one text, and [`interpolate`], every scalar value of a tree. As in Compose, keys are left
//! alone, `-`, `+` and `?` ask whether a variable is set, `:-`, `:+` and `:?` whether it is set and not empty; an
//! unset plain variable becomes nothing, with a warning; a `$` before anything that can't be a name stays a `$`.
//! An arm that isn't used may name missing variables, but must be well formed.
//!
//! Never: reads the environment; looks into the text that a variable brought; lets texts grow without limit.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use super::{
    diagnostic::{Diagnostic, Diagnostics, Pos},
    tree::{Entry, Kind, Node, Style},
};

/// The longest text that one value may become, in bytes.
pub const MAX_VALUE_BYTES: usize = 1024 * 1024;
/// The longest text that all values with variables of one file may become together, in bytes.
pub const MAX_FILE_VALUE_BYTES: usize = 16 * 1024 * 1024;
/// The deepest nesting of `${A:-${B:-…}}`.
pub const MAX_NESTING: usize = 16;

/// Finds a variable's value.
pub type Lookup<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// A text with its variables filled in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Substituted {
    /// The text.
    pub text: String,
    /// Variables that became nothing because they aren't set.
    pub missing: Vec<String>,
}

/// Why a text couldn't be filled in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubstituteError {
    /// A `${` that is none of the forms.
    #[error("`{0}` is no valid use of a variable")]
    Invalid(String),
    /// A variable that must be set isn't: its name and the file's own message.
    #[error("the variable `{name}` is required but {}{}{}", if *.empty { "empty" } else { "not set" },
        if .message.is_empty() { "" } else { ": " }, .message)]
    Required {
        /// The variable.
        name: String,
        /// What the file says about it.
        message: String,
        /// Whether it is set, but to nothing.
        empty: bool,
    },
    /// More than [`MAX_VALUE_BYTES`].
    #[error("with its variables filled in, this value has more than {MAX_VALUE_BYTES} bytes")]
    TooLong,
    /// More than [`MAX_NESTING`] levels.
    #[error("variables are nested more than {MAX_NESTING} levels deep")]
    TooDeep,
}

/// Fills in the variables of one text.
pub fn substitute(text: &str, lookup: &Lookup<'_>) -> Result<Substituted, SubstituteError> {
    nested(text, lookup, 0)
}

fn nested(text: &str, lookup: &Lookup<'_>, depth: usize) -> Result<Substituted, SubstituteError> {
    if depth > MAX_NESTING {
        return Err(SubstituteError::TooDeep);
    }
    let mut out = Substituted::default();
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.text.push_str(&rest[..dollar]);
        rest = &rest[dollar + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.text.push('$');
            rest = after;
        } else if rest.starts_with('{') {
            rest = braced(rest, lookup, depth, &mut out)?;
        } else {
            let name = leading_name(rest);
            if name.is_empty() {
                out.text.push('$');
            } else {
                fill(name, lookup, &mut out);
                rest = &rest[name.len()..];
            }
        }
        if out.text.len() > MAX_VALUE_BYTES {
            return Err(SubstituteError::TooLong);
        }
    }
    out.text.push_str(rest);
    if out.text.len() > MAX_VALUE_BYTES {
        return Err(SubstituteError::TooLong);
    }
    Ok(out)
}

fn fill(name: &str, lookup: &Lookup<'_>, out: &mut Substituted) {
    match lookup(name) {
        Some(value) => out.text.push_str(&value),
        None => out.missing.push(name.to_owned()),
    }
}

/// `rest` starts with the `{`; what follows the closing `}` is returned.
fn braced<'t>(
    rest: &'t str,
    lookup: &Lookup<'_>,
    depth: usize,
    out: &mut Substituted,
) -> Result<&'t str, SubstituteError> {
    let invalid = |form: &str| SubstituteError::Invalid(format!("${}", shortened(form)));
    let Some(end) = closing_brace(rest) else {
        return Err(invalid(rest));
    };
    let (inside, after) = (&rest[1..end], &rest[end + 1..]);
    let name = leading_name(inside);
    if name.is_empty() {
        return Err(invalid(&rest[..=end]));
    }
    let operation = &inside[name.len()..];
    if operation.is_empty() {
        fill(name, lookup, out);
        return Ok(after);
    }
    let (if_empty, operator) = match operation.strip_prefix(':') {
        Some(operator) => (true, operator),
        None => (false, operation),
    };
    let mut chars = operator.chars();
    let Some(kind @ ('-' | '+' | '?')) = chars.next() else {
        return Err(invalid(&rest[..=end]));
    };
    let value = lookup(name);
    let empty = value.as_deref() == Some("");
    let value = value.filter(|value| !(if_empty && value.is_empty()));
    let arm = match nested(chars.as_str(), lookup, depth + 1) {
        Err(SubstituteError::Required { .. }) if value.is_some() == (kind != '+') => Substituted::default(),
        arm => arm?,
    };
    match (kind, value) {
        ('?', None) => {
            return Err(SubstituteError::Required { name: name.to_owned(), message: arm.text, empty });
        }
        ('-' | '?', Some(value)) => out.text.push_str(&value),
        ('-', None) | ('+', Some(_)) => {
            out.text.push_str(&arm.text);
            out.missing.extend(arm.missing);
        }
        _ => {}
    }
    Ok(after)
}

/// The `}` that balances the `{` at the start, else the last one there is.
fn closing_brace(text: &str) -> Option<usize> {
    let mut open = 0_usize;
    for (i, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => open += 1,
            b'}' if open == 1 => return Some(i),
            b'}' => open -= 1,
            _ => {}
        }
    }
    text.rfind('}')
}

fn leading_name(text: &str) -> &str {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return "";
    }
    let end = text.find(|c: char| c != '_' && !c.is_ascii_alphanumeric()).unwrap_or(text.len());
    &text[..end]
}

fn shortened(text: &str) -> String {
    /// How much of a malformed text a message shows, in characters.
    const SHOWN: usize = 40;
    let mut short: String = text.chars().take(SHOWN).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// Fills in the variables of every scalar value in the tree.
pub fn interpolate(node: &mut Node, lookup: &Lookup<'_>, diags: &mut Diagnostics) {
    let mut walk = Walk { lookup, diags, path: Vec::new(), warned: BTreeSet::new(), bytes: 0 };
    walk.node(node);
}

struct Walk<'a> {
    lookup: &'a Lookup<'a>,
    diags: &'a mut Diagnostics,
    path: Vec<String>,
    warned: BTreeSet<String>,
    bytes: usize,
}

impl Walk<'_> {
    fn node(&mut self, node: &mut Node) {
        match &mut node.kind {
            Kind::Scalar(scalar) if scalar.value.contains('$') => {
                let text = self.scalar(&scalar.value, &node.pos);
                scalar.value = text;
                if scalar.style == Style::Plain {
                    scalar.style = Style::Substituted;
                }
            }
            Kind::Scalar(_) => {}
            Kind::Sequence(items) => {
                for (i, item) in items.iter_mut().enumerate() {
                    self.below(format!("[{i}]"), item);
                }
            }
            Kind::Mapping(entries) => {
                for Entry { key, value, .. } in entries {
                    self.below(key.clone(), value);
                }
            }
        }
    }

    fn below(&mut self, step: String, node: &mut Node) {
        self.path.push(step);
        self.node(node);
        self.path.pop();
    }

    fn scalar(&mut self, text: &str, pos: &Pos) -> String {
        // `services.web.command[1]`
        let path = self.path.join(".").replace(".[", "[");
        match substitute(text, self.lookup) {
            Ok(done) => {
                self.bytes = self.bytes.saturating_add(done.text.len());
                if self.bytes > MAX_FILE_VALUE_BYTES {
                    self.diags.push(Diagnostic::error(
                        pos,
                        format!("the values of this file have more than {MAX_FILE_VALUE_BYTES} bytes in all"),
                    ));
                    return String::new();
                }
                for name in done.missing {
                    if self.warned.insert(name.clone()) {
                        self.diags.push(
                            Diagnostic::warning(pos, format!("{path}: the variable `{name}` is not set"))
                                .hint(format!(
                                    "nothing is put in its place; `${{{name}:-default}}` gives a default"
                                )),
                        );
                    }
                }
                done.text
            }
            Err(error) => {
                self.diags.push_spoilt(describe(&error, &path, pos));
                text.to_owned()
            }
        }
    }
}

/// The diagnostic for a text that couldn't be filled in; `path` says which value it is.
#[must_use]
pub fn describe(error: &SubstituteError, path: &str, pos: &Pos) -> Diagnostic {
    let diagnostic = Diagnostic::error(pos, format!("{path}: {error}"));
    match error {
        SubstituteError::Invalid(_) => diagnostic
            .expected("$NAME, ${NAME}, or ${NAME} with -, :-, +, :+, ? or :? after the name")
            .hint("write `$$` for a dollar sign"),
        SubstituteError::Required { name, .. } => {
            diagnostic.hint(format!("set {name} in the environment or in .env"))
        }
        SubstituteError::TooLong | SubstituteError::TooDeep => diagnostic,
    }
}
