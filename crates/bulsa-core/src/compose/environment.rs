//! The variables that a file may use: the shell's, then those of `.env`, then those of the files that an `include`
//! names; and the project's name.

use std::{collections::BTreeMap, sync::Arc};

use super::paths;

/// Variables in layers; a variable that is set to nothing in an upper layer hides the lower ones, as in Compose.
#[derive(Clone, Debug)]
pub(super) struct Environment<'a> {
    shell: &'a BTreeMap<String, String>,
    /// From the upper to the lower ones.
    files: Vec<Arc<BTreeMap<String, String>>>,
}

/// The variable that names the project.
pub(super) const PROJECT_NAME: &str = "COMPOSE_PROJECT_NAME";
/// The variable that lists the active profiles, with commas between them.
pub(super) const PROFILES: &str = "COMPOSE_PROFILES";

impl<'a> Environment<'a> {
    pub(super) fn new(shell: &'a BTreeMap<String, String>, dotenv: BTreeMap<String, String>) -> Self {
        Self { shell, files: vec![Arc::new(dotenv)] }
    }

    /// These variables, and `lower` ones for what they don't set.
    pub(super) fn above(&self, lower: Arc<BTreeMap<String, String>>) -> Self {
        let mut below = self.clone();
        below.files.push(lower);
        below
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let from_file = || self.files.iter().find_map(|file| file.get(name));
        self.shell.get(name).or_else(from_file).map(String::as_str)
    }

    /// The file itself may use the project's name.
    pub(super) fn lookup(&self, project: &str, name: &str) -> Option<String> {
        if name == PROJECT_NAME { Some(project.to_owned()) } else { self.get(name).map(str::to_owned) }
    }

    /// The profiles that are active where no flag names any.
    pub(super) fn profiles(&self) -> Vec<String> {
        let names = self.get(PROFILES).unwrap_or_default().split(',').map(str::trim);
        names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
    }

    /// A path of this host seen from `directory`: a relative one is joined and cleaned, an absolute one stays as it was
    /// written, and a leading `~` is the home directory of the shell's HOME, whatever follows it, as in Compose.
    pub(super) fn absolute(&self, directory: &str, path: &str) -> String {
        match (path.strip_prefix('~'), self.shell.get("HOME")) {
            (Some(rest), Some(home)) => paths::clean(&format!("{home}/{rest}")),
            _ if path.starts_with('/') => path.to_owned(),
            _ => paths::join(directory, path),
        }
    }
}
