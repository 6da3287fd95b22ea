//! What is wrong with a file, and where.
//!
//! Owns: [`Diagnostic`], one mistake or warning at its place, and [`Diagnostics`], the list that every stage of the
//! loader adds to. Reading goes on after a mistake, so that one run names them all; the list keeps at most
//! [`MAX_DIAGNOSTICS`] and counts the rest. [`DiagnosticView`] is the form that `--json` prints.
//!
//! Never: prints, colours, or ends the program.

use std::{collections::BTreeSet, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// At most this many diagnostics are kept; the rest is only counted.
pub const MAX_DIAGNOSTICS: usize = 100;

/// A name counts as a misspelling of another from this Jaro-Winkler similarity on (0 to 1).
const SIMILAR_ENOUGH: f64 = 0.78;

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pos {
    /// The file's path as the user gave it.
    pub file: Arc<str>,
    /// From 1; 0 where the mistake is in no line (a missing file, a flag).
    pub line: u32,
    /// From 1, in characters; 0 together with line 0.
    pub col: u32,
}

impl Pos {
    /// A place that is the file as a whole.
    #[must_use]
    pub fn whole(file: &str) -> Self {
        Self { file: Arc::from(file), line: 0, col: 0 }
    }
}

impl fmt::Display for Pos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, self.file.is_empty()) {
            (0, _) => f.write_str(&self.file),
            (line, true) => write!(f, "{line}:{}", self.col),
            (line, false) => write!(f, "{}:{line}:{}", self.file, self.col),
        }
    }
}

/// Whether a diagnostic stops the project from starting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing is started.
    Error,
    /// Worth knowing; everything still works.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// One mistake or warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Whether it stops the project.
    pub severity: Severity,
    /// Where it is.
    pub pos: Pos,
    /// What failed: `services.web.restart: "sometimes" is no restart policy`.
    pub message: String,
    /// What would be valid there.
    pub expected: Option<String>,
    /// The nearest valid name.
    pub suggestion: Option<String>,
    /// What to do next.
    pub hint: Option<String>,
    /// Whether only a deploy stands against it, here or on this host: the file itself is good, and Compose resolves it.
    pub only_here: bool,
}

impl Diagnostic {
    /// An error at `pos`.
    #[must_use]
    pub fn error(pos: &Pos, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            pos: pos.clone(),
            message: message.into(),
            expected: None,
            suggestion: None,
            hint: None,
            only_here: false,
        }
    }

    /// The file itself is good: see [`Diagnostic::only_here`].
    #[must_use]
    pub fn about_this_host(mut self) -> Self {
        self.only_here = true;
        self
    }

    /// A warning at `pos`.
    #[must_use]
    pub fn warning(pos: &Pos, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(pos, message) }
    }

    /// Adds what would be valid.
    #[must_use]
    pub fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the one of `valid` that is nearest to `found`, if any is near.
    #[must_use]
    pub fn nearest<'a>(mut self, found: &str, valid: impl IntoIterator<Item = &'a str>) -> Self {
        self.suggestion = nearest(found, valid).map(str::to_owned);
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pos.file.is_empty() && self.pos.line == 0 {
            write!(f, "{}: {}", self.severity, self.message)?;
        } else {
            write!(f, "{}: {}: {}", self.pos, self.severity, self.message)?;
        }
        if let Some(expected) = &self.expected {
            write!(f, "\n  expected: {expected}")?;
        }
        if let Some(suggestion) = &self.suggestion {
            write!(f, "\n  hint: did you mean `{suggestion}`?")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

/// The name in `valid` that `found` is most likely a misspelling of.
#[must_use]
pub fn nearest<'a>(found: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let found = found.to_ascii_lowercase();
    valid
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&found, &name.to_ascii_lowercase()), name))
        .filter(|(score, _)| *score >= SIMILAR_ENOUGH)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, name)| name)
}

/// Everything found so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
    errors: usize,
    omitted: usize,
    spoilt: BTreeSet<Pos>,
}

impl Diagnostics {
    /// Adds one; beyond [`MAX_DIAGNOSTICS`] it is only counted.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        if diagnostic.severity == Severity::Error {
            self.errors += 1;
        }
        // An alias or a merge key shows one place of the file several times: once is enough.
        if self.spoilt.contains(&diagnostic.pos) || self.list.contains(&diagnostic) {
            return;
        }
        if self.list.len() < MAX_DIAGNOSTICS {
            self.list.push(diagnostic);
        } else {
            self.omitted += 1;
        }
    }

    /// Adds one about a value that nothing further can be said of: later errors at its place would only follow from
    /// it, and are left out.
    pub fn push_spoilt(&mut self, diagnostic: Diagnostic) {
        let pos = diagnostic.pos.clone();
        self.push(diagnostic);
        self.spoilt.insert(pos);
    }

    /// Whether any error was added, kept or not.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// How many errors were added, kept or not.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.errors
    }

    /// The kept ones; after [`Self::sort`] in the order of the file.
    #[must_use]
    pub fn list(&self) -> &[Diagnostic] {
        &self.list
    }

    /// How many were left out because there were too many.
    #[must_use]
    pub fn omitted(&self) -> usize {
        self.omitted
    }

    /// Puts them in the order of the file, so that a person can go through it once.
    pub fn sort(&mut self) {
        self.list.sort_by(|a, b| (&a.pos, a.severity).cmp(&(&b.pos, b.severity)));
    }

    /// The form for `--json`.
    #[must_use]
    pub fn view(&self) -> Vec<DiagnosticView> {
        self.list.iter().map(DiagnosticView::from).collect()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, diagnostic) in self.list.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{diagnostic}")?;
        }
        if self.omitted > 0 {
            write!(f, "\n… and {} more", self.omitted)?;
        }
        Ok(())
    }
}

/// A [`Diagnostic`] as `--json` prints it. Positions are left out where there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiagnosticView {
    /// `error` or `warning`.
    pub severity: String,
    /// The file, empty where the mistake is in none.
    pub file: String,
    /// From 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// From 1, in characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// What failed.
    pub message: String,
    /// What would be valid there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// The nearest valid name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl From<&Diagnostic> for DiagnosticView {
    fn from(d: &Diagnostic) -> Self {
        let placed = d.pos.line > 0;
        Self {
            severity: d.severity.to_string(),
            file: d.pos.file.to_string(),
            line: placed.then_some(d.pos.line),
            column: placed.then_some(d.pos.col),
            message: d.message.clone(),
            expected: d.expected.clone(),
            suggestion: d.suggestion.clone(),
            hint: d.hint.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_limit_diagnostics_are_counted_and_errors_still_seen() {
        let mut diags = Diagnostics::default();
        for line in 0..MAX_DIAGNOSTICS {
            let pos = Pos { file: Arc::from("f"), line: u32::try_from(line).unwrap() + 1, col: 1 };
            diags.push(Diagnostic::warning(&pos, "w"));
        }
        assert!(!diags.has_errors());
        diags.push(Diagnostic::error(&Pos::whole("f"), "e"));
        assert!(diags.has_errors());
        assert_eq!((diags.list().len(), diags.omitted()), (MAX_DIAGNOSTICS, 1));
        assert!(diags.to_string().ends_with("… and 1 more"));
    }

    #[test]
    fn a_misspelling_finds_its_name_and_nonsense_finds_none() {
        let names = ["command", "environment", "env_file", "ports"];
        assert_eq!(nearest("comand", names), Some("command"));
        assert_eq!(nearest("Enviroment", names), Some("environment"));
        assert_eq!(nearest("zzz", names), None);
    }

    #[test]
    fn the_text_has_place_severity_and_hints() {
        let pos = Pos { file: Arc::from("compose.yaml"), line: 7, col: 5 };
        let d = Diagnostic::error(&pos, "no").expected("yes").nearest("comand", ["command"]).hint("do");
        assert_eq!(
            d.to_string(),
            "compose.yaml:7:5: error: no\n  expected: yes\n  hint: did you mean `command`?\n  hint: do"
        );
        let view = DiagnosticView::from(&d);
        assert_eq!((view.line, view.column, view.severity.as_str()), (Some(7), Some(5), "error"));
        assert_eq!(DiagnosticView::from(&Diagnostic::error(&Pos::whole("f"), "x")).line, None);
    }
}
