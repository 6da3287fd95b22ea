//! Which changes are a rule's affair.

use std::path::{Path, PathBuf};

use bulsa_core::{compose::develop::WatchRule, image::Ignore, sync};
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::cli::watch::Changed;

/// One rule, ready to be asked.
pub(super) struct Rule {
    pub(super) rule: WatchRule,
    /// What doesn't count.
    but: Gitignore,
    /// What counts alone.
    only: Option<Gitignore>,
    /// What the build of the service leaves out, seen from there; for what is copied.
    left_out: Option<(PathBuf, Ignore)>,
}

impl Rule {
    pub(super) fn new(rule: WatchRule, left_out: Option<(PathBuf, Ignore)>) -> Result<Self, ignore::Error> {
        let patterns = |patterns: &[String]| {
            let mut builder = GitignoreBuilder::new(&rule.path);
            for pattern in patterns {
                builder.add_line(None, pattern)?;
            }
            builder.build()
        };
        let but = patterns(&rule.ignore)?;
        let only = if rule.include.is_empty() { None } else { Some(patterns(&rule.include)?) };
        Ok(Self { but, only, left_out, rule })
    }

    /// What of the changes is the rule's affair. Directories are so only where they are copied.
    pub(super) fn of(&self, changed: &Changed) -> Changed {
        let pick = |paths: &[PathBuf], is_directory| {
            paths.iter().filter(|path| self.counts(path, is_directory)).cloned().collect()
        };
        let directories =
            if self.rule.copied.is_some() { pick(&changed.directories, true) } else { Vec::new() };
        Changed { files: pick(&changed.files, false), directories }
    }

    fn counts(&self, path: &Path, is_directory: bool) -> bool {
        let is_in =
            |patterns: &Gitignore| patterns.matched_path_or_any_parents(path, is_directory).is_ignore();
        path.starts_with(&self.rule.path)
            && !is_in(&self.but)
            && self.only.as_ref().is_none_or(is_in)
            && (self.rule.copied.is_none() || !self.is_left_out(path))
    }

    /// Whether it is nothing to copy: not in the image either, or only on its way.
    fn is_left_out(&self, path: &Path) -> bool {
        let name = path.file_name().map(|name| name.to_string_lossy());
        let by_build = || {
            let (root, ignore) = self.left_out.as_ref()?;
            Some(ignore.leaves_out(&path.strip_prefix(root).ok()?.to_string_lossy()))
        };
        name.is_some_and(|name| sync::is_passing(&name)) || by_build().unwrap_or_default()
    }
}
