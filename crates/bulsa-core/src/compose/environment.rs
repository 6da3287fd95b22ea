//! The variables that a file may use: the shell's, then those of `.env`, then the project's name.

use std::collections::BTreeMap;

/// Variables in layers; a variable that is set to nothing in an upper layer hides the lower ones, as in Compose.
#[derive(Clone, Debug)]
pub(super) struct Environment<'a> {
    shell: &'a BTreeMap<String, String>,
    dotenv: BTreeMap<String, String>,
}

/// The variable that names the project.
pub(super) const PROJECT_NAME: &str = "COMPOSE_PROJECT_NAME";

impl<'a> Environment<'a> {
    pub(super) fn new(shell: &'a BTreeMap<String, String>, dotenv: BTreeMap<String, String>) -> Self {
        Self { shell, dotenv }
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.shell.get(name).or_else(|| self.dotenv.get(name)).map(String::as_str)
    }

    /// The file itself may use the project's name.
    pub(super) fn lookup(&self, project: &str, name: &str) -> Option<String> {
        if name == PROJECT_NAME { Some(project.to_owned()) } else { self.get(name).map(str::to_owned) }
    }
}
