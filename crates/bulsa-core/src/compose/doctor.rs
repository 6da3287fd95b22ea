//! `bulsa check`, as far as the files alone tell: what in a project will break, what may, and what is worth knowing.
//!
//! Owns: [`findings`], each with its place, the evidence and a patch. Never: looks at the host or an Engine; what is
//! found there is added by the command.

mod services;
#[cfg(test)]
mod tests;
mod traffic;

use serde::Serialize;

use super::{
    Loaded,
    develop::watched,
    diagnostic::{Diagnostic, Severity},
};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// It will break, or can't be started at all.
    Breaks,
    /// It may go wrong, or is less than Bulsa could do.
    Warning,
    /// Worth knowing.
    Note,
}

impl Level {
    /// The word that people see.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Breaks => "breaks",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// The service, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// `FILE:LINE:COLUMN`, or the file alone.
    pub position: String,
    /// What it is.
    pub what: String,
    /// What shows it, or follows from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
    /// What to write instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch: Option<String>,
}

/// Everything that the files tell: first what the loader said, then each service in the order of its name. A file with
/// mistakes is not looked at further.
#[must_use]
pub fn findings(loaded: &Loaded) -> Vec<Finding> {
    let mut all: Vec<Finding> = loaded.diagnostics.list().iter().map(said).collect();
    if let (Some(project), Some(spec)) = (&loaded.project, &loaded.spec) {
        for service in project.services.values() {
            if let Some(resolved) = spec.services.get(&service.name) {
                services::look(service, resolved, project, &mut all);
            }
        }
    }
    if let (Some(tree), Some(spec)) = (&loaded.tree, &loaded.spec) {
        let watched = watched(tree, spec);
        all.extend(watched.mistakes.iter().map(|mistake| of_watch(mistake, Level::Warning)));
        all.extend(watched.notes.iter().map(|note| of_watch(note, Level::Note)));
    }
    all
}

/// What `up --watch` refuses starts all the same without it, so that it breaks nothing.
fn of_watch((service, diagnostic): &(String, Diagnostic), level: Level) -> Finding {
    let evidence = (level == Level::Warning).then(|| "`bulsa up --watch` refuses it".to_owned());
    Finding { level, service: Some(service.clone()), evidence, ..said(diagnostic) }
}

/// Whether a check with these findings fails; with `strict` warnings count too.
#[must_use]
pub fn fails(findings: &[Finding], strict: bool) -> bool {
    let worst = if strict { Level::Warning } else { Level::Breaks };
    findings.iter().any(|finding| finding.level <= worst)
}

fn said(diagnostic: &Diagnostic) -> Finding {
    let suggestion = diagnostic.suggestion.as_ref().map(|name| format!("did you mean `{name}`?"));
    Finding {
        level: match diagnostic.severity {
            Severity::Error => Level::Breaks,
            Severity::Warning => Level::Warning,
        },
        service: None,
        position: diagnostic.pos.to_string(),
        what: diagnostic.message.clone(),
        evidence: diagnostic.expected.as_ref().map(|expected| format!("expected: {expected}")),
        patch: suggestion.or_else(|| diagnostic.hint.clone()),
    }
}
