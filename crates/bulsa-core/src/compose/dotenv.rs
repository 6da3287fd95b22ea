//! `.env` and `env_file`.
//!
//! Owns: Compose's format (comments, `export`, `KEY=value`, `KEY: value`, a lone `KEY` taken from the environment,
//! single quotes as they are, double quotes with escapes and variables, both over several lines, ` #` comments) and
//! the `raw` one (`KEY=` and the rest of the line, whatever it is). A variable in a value is looked up in the
//! environment first, then among the earlier lines, then in the earlier files. Of several files a later one wins.
//! Reading goes on after a mistake, with the next line.
//!
//! Never: opens a file.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use super::{
    diagnostic::{Diagnostic, Diagnostics, Pos},
    interpolate::{self, Lookup},
};

/// The longest file, in bytes.
pub const MAX_FILE_BYTES: usize = 1024 * 1024;
/// The longest text that all values of a file may have together once their variables are filled in, in bytes.
pub const MAX_VALUES_BYTES: usize = 4 * 1024 * 1024;

/// How a file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Compose's own.
    Compose,
    /// `format: raw`: no quotes, no variables, no comments after a value.
    Raw,
}

/// Reads one file over what earlier files said.
pub fn extend(
    values: &mut BTreeMap<String, String>,
    (file, text): (&str, &str),
    format: Format,
    lookup: &Lookup<'_>,
    diags: &mut Diagnostics,
) {
    let found = read((file, text), format, values, lookup, diags);
    values.extend(found);
}

/// Reads one file.
#[must_use]
pub fn parse(
    file: &str,
    text: &str,
    format: Format,
    lookup: &Lookup<'_>,
    diags: &mut Diagnostics,
) -> BTreeMap<String, String> {
    read((file, text), format, &BTreeMap::new(), lookup, diags)
}

fn read(
    (file, text): (&str, &str),
    format: Format,
    earlier: &BTreeMap<String, String>,
    lookup: &Lookup<'_>,
    diags: &mut Diagnostics,
) -> BTreeMap<String, String> {
    if text.len() > MAX_FILE_BYTES {
        diags.push(
            Diagnostic::error(&Pos::whole(file), format!("the file has {} bytes", text.len()))
                .expected(format!("at most {MAX_FILE_BYTES} bytes")),
        );
        return BTreeMap::new();
    }
    let rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader {
        file: Arc::from(file),
        rest,
        line: 1,
        col: 1,
        lookup,
        earlier,
        values: BTreeMap::new(),
        bytes: 0,
        diags,
    };
    match format {
        Format::Compose => while reader.statement() {},
        Format::Raw => while reader.raw_line() {},
    }
    reader.values
}

struct Reader<'a> {
    file: Arc<str>,
    rest: &'a str,
    line: u32,
    col: u32,
    lookup: &'a Lookup<'a>,
    earlier: &'a BTreeMap<String, String>,
    values: BTreeMap<String, String>,
    bytes: usize,
    diags: &'a mut Diagnostics,
}

impl<'a> Reader<'a> {
    fn pos(&self) -> Pos {
        Pos { file: Arc::clone(&self.file), line: self.line, col: self.col }
    }

    /// Takes the first `bytes` bytes and counts their lines and columns.
    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        for c in taken.chars() {
            if c == '\n' {
                self.line = self.line.saturating_add(1);
                self.col = 1;
            } else {
                self.col = self.col.saturating_add(1);
            }
        }
        self.rest = rest;
        taken
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> &'a str {
        self.take(self.rest.find(|c| !keep(c)).unwrap_or(self.rest.len()))
    }

    fn take_line(&mut self) -> &'a str {
        self.take_while(|c| c != '\n')
    }

    /// One assignment; whether there may be another.
    fn statement(&mut self) -> bool {
        self.take_while(char::is_whitespace);
        if self.rest.is_empty() {
            return false;
        }
        if self.rest.starts_with('#') {
            self.take_line();
            return true;
        }
        if self.rest.strip_prefix("export").is_some_and(|after| after.starts_with(blank)) {
            self.take("export".len());
            self.take_while(blank);
        }
        let Some(key) = self.key() else {
            self.take_line();
            return true;
        };
        if !self.rest.starts_with(['=', ':']) {
            self.inherit(key);
            return true;
        }
        self.take(1);
        self.take_while(blank);
        let pos = self.pos();
        match self.rest.chars().next() {
            Some(quote @ ('"' | '\'')) => self.quoted(key, quote, &pos),
            _ => self.unquoted(key, &pos),
        }
        true
    }

    /// Up to `=`, `:` or the end of the line; `None` after a mistake.
    fn key(&mut self) -> Option<String> {
        let pos = self.pos();
        let key = self.take_while(|c| !matches!(c, '=' | ':' | '\n')).trim();
        let bad = key.chars().find(|&c| !(c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '[' | ']')));
        match bad {
            None if !key.is_empty() => Some(key.to_owned()),
            None => {
                self.diags
                    .push(Diagnostic::error(&pos, "a name is missing before the `=`").expected("NAME=value"));
                None
            }
            Some(bad) => {
                let diagnostic = Diagnostic::error(
                    &pos,
                    format!("{bad:?} can't be part of a variable's name, in `{key}`"),
                )
                .expected("NAME=value");
                self.diags.push(diagnostic);
                None
            }
        }
    }

    fn inherit(&mut self, key: String) {
        if let Some(value) = (self.lookup)(&key) {
            self.store(key, value);
        }
    }

    fn unquoted(&mut self, key: String, pos: &Pos) {
        let line = self.take_line();
        let value = line.split_once(" #").map_or(line, |(value, _)| value).trim_end();
        if value.starts_with('#') {
            let warning = Diagnostic::warning(pos, format!("the value of {key} starts with `#`"))
                .hint("here it is no comment but the value, as in Compose; put quotes around it, or a line break before it");
            self.diags.push(warning);
        }
        self.fill(key, value, pos);
    }

    fn quoted(&mut self, key: String, quote: char, pos: &Pos) {
        self.take(1);
        let Some((value, length)) = quoted_text(self.rest, quote) else {
            let diagnostic =
                Diagnostic::error(pos, format!("the quote that starts the value of {key} is not closed"))
                    .hint(format!("add a {quote} at the end of the value"));
            self.diags.push(diagnostic);
            self.take_line();
            return;
        };
        self.take(length);
        match quote {
            '"' => self.fill(key, &escapes(&value), pos),
            _ => self.store(key, value),
        }
        self.take_while(blank);
        match self.rest.chars().next() {
            None | Some('\n') => {}
            Some('#') => {
                self.take_line();
            }
            // It is read as if it stood on a line of its own.
            Some(_) => {
                let warning = Diagnostic::warning(&self.pos(), "text follows the closing quote")
                    .expected("the end of the line, or a `#` comment")
                    .hint("it is no part of the value, as in Compose; put quotes around the whole value");
                self.diags.push(warning);
            }
        }
    }

    fn fill(&mut self, key: String, value: &str, pos: &Pos) {
        let read = |name: &str| self.values.get(name).or_else(|| self.earlier.get(name)).cloned();
        let lookup = |name: &str| (self.lookup)(name).or_else(|| read(name));
        match interpolate::substitute(value, &lookup) {
            Ok(done) => {
                for name in &done.missing {
                    let warning =
                        Diagnostic::warning(pos, format!("{key}: the variable `{name}` is not set"))
                            .hint("nothing is put in its place");
                    self.diags.push(warning);
                }
                self.store(key, done.text);
            }
            Err(error) => self.diags.push(interpolate::describe(&error, &key, pos)),
        }
    }

    fn store(&mut self, key: String, value: String) {
        self.bytes = self.bytes.saturating_add(value.len());
        if self.bytes > MAX_VALUES_BYTES {
            let diagnostic = Diagnostic::error(
                &self.pos(),
                format!("the values have more than {MAX_VALUES_BYTES} bytes in all"),
            );
            self.diags.push(diagnostic);
            self.rest = "";
            return;
        }
        self.values.insert(key, value);
    }

    fn raw_line(&mut self) -> bool {
        if self.rest.is_empty() {
            return false;
        }
        let pos = self.pos();
        let line = self.take_line();
        let line = line.strip_suffix('\r').unwrap_or(line);
        self.take_while(|c| c == '\n');
        let (key, value) = match line.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (line, None),
        };
        if line.trim().is_empty() || line.starts_with('#') {
            return true;
        }
        if key.is_empty() || key.contains(char::is_whitespace) {
            self.diags.push(
                Diagnostic::error(&pos, format!("`{key}` is no variable's name"))
                    .expected("NAME=value, without spaces"),
            );
        } else if let Some(value) = value {
            self.store(key.to_owned(), value.to_owned());
        } else {
            self.inherit(key.to_owned());
        }
        true
    }
}

/// White space within a line.
fn blank(c: char) -> bool {
    c != '\n' && c.is_whitespace()
}

/// The text up to the closing quote, with escaped quotes resolved, and its length with that quote, in bytes.
fn quoted_text(text: &str, quote: char) -> Option<(String, usize)> {
    let mut value = String::new();
    let mut escaped = false;
    for (i, c) in text.char_indices() {
        match (escaped, c) {
            (false, '\\') => escaped = true,
            (false, c) if c == quote => return Some((value, i + c.len_utf8())),
            (true, c) if c != quote => {
                escaped = false;
                value.extend(['\\', c]);
            }
            (_, c) => {
                escaped = false;
                value.push(c);
            }
        }
    }
    None
}

/// The escapes of double quotes. `\$` becomes `$$`, which is a dollar sign once variables are filled in; what is no
/// escape stays as it is written.
fn escapes(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let simple = match after.chars().next() {
            Some('a') => Some("\u{7}"),
            Some('b') => Some("\u{8}"),
            Some('f') => Some("\u{c}"),
            Some('n') => Some("\n"),
            Some('r') => Some("\r"),
            Some('t') => Some("\t"),
            Some('v') => Some("\u{b}"),
            Some('$') => Some("$$"),
            Some('"') => Some("\""),
            Some('\\') => Some("\\"),
            _ => None,
        };
        rest = match (simple, octal(after)) {
            (Some(simple), _) => {
                out.push_str(simple);
                &after[1..]
            }
            (None, Some(c)) => {
                out.push(c);
                &after[4..]
            }
            (None, None) => {
                out.push('\\');
                after
            }
        };
    }
    out.push_str(rest);
    out
}

/// `0` and three octal digits.
fn octal(text: &str) -> Option<char> {
    let digits = text.get(..4).filter(|four| four.starts_with('0'))?;
    u8::from_str_radix(digits, 8).ok().map(char::from)
}
