//! Whole files through the loader.

mod config;
mod develop;
mod fuzz;
mod mistakes;
mod names;
mod probes;
mod several;
mod traffic;
mod values;

use std::collections::BTreeMap;

use super::*;
use crate::spec;

/// A project in `/srv/shop` with these files beside it and this environment.
pub(crate) struct Shop {
    env: BTreeMap<String, String>,
    dotenv: Option<SourceFile>,
    files: BTreeMap<String, String>,
    name: Option<String>,
    profiles: Vec<String>,
    services: Vec<String>,
}

impl Shop {
    pub(crate) fn new() -> Self {
        Self {
            env: BTreeMap::new(),
            dotenv: None,
            files: BTreeMap::new(),
            name: None,
            profiles: Vec::new(),
            services: Vec::new(),
        }
    }

    pub(super) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    pub(super) fn dotenv(mut self, text: &str) -> Self {
        self.dotenv = Some(SourceFile { path: ".env".to_owned(), text: text.to_owned() });
        self
    }

    pub(super) fn file(mut self, path: &str, text: &str) -> Self {
        self.files.insert(path.to_owned(), text.to_owned());
        self
    }

    pub(super) fn load(&self, text: &str) -> Loaded {
        self.load_all(&[("compose.yaml", text)])
    }

    /// Several files, as with several `-f`.
    pub(super) fn load_all(&self, files: &[(&str, &str)]) -> Loaded {
        let mut read = |path: &str| match path {
            "/srv/shop/locked.env" => Err(ReadError::Other("permission denied".to_owned())),
            _ => self.files.get(path).cloned().ok_or(ReadError::NotFound),
        };
        let file =
            |(path, text): &(&str, &str)| SourceFile { path: (*path).to_owned(), text: (*text).to_owned() };
        let files = files.iter().map(file).collect();
        load(LoadInput {
            project_name: self.name.clone(),
            env: self.env.clone(),
            dotenvs: self.dotenv.iter().cloned().collect(),
            profiles: self.profiles.clone(),
            services: self.services.clone(),
            ..LoadInput::new(files, "/srv/shop", &mut read)
        })
    }

    /// The Spec of a file that has no mistakes.
    pub(crate) fn spec(&self, text: &str) -> Spec {
        let loaded = self.load(text);
        assert!(!loaded.diagnostics.has_errors(), "{text}\n{}", loaded.diagnostics);
        loaded.spec.expect("a file without errors gives a Spec")
    }

    /// The service `web` with these lines below `services.web` beside a command.
    fn web(&self, lines: &str) -> spec::Service {
        let mut spec = self.spec(&web_file(lines));
        spec.services.remove("web").expect("web is there")
    }

    /// Errors and warnings of that service, without hints.
    fn complaints(&self, lines: &str) -> Vec<String> {
        let loaded = self.load(&web_file(lines));
        assert_eq!(loaded.spec.is_none(), loaded.diagnostics.has_errors());
        assert_eq!(loaded.project.is_none(), loaded.diagnostics.has_errors());
        let line = |d: &Diagnostic| format!("{}:{} {}: {}", d.pos.line, d.pos.col, d.severity, d.message);
        loaded.diagnostics.list().iter().map(line).collect()
    }
}

fn web_file(lines: &str) -> String {
    let indented: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    format!("services:\n  web:\n{indented}    command: [serve]\n")
}
