//! What is in the files that are watched, as far as their directory entries say.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use ignore::WalkBuilder;

/// More files than this are not what one writes; a `.gitignore` is missing.
const FILES_MAX: usize = 100_000;

/// Never watched, whatever git ignores: what tools keep for themselves.
const TOOLS: &[&str] = &[".git", ".hg", ".svn", "node_modules", "__pycache__"];

/// One look at all of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tree {
    files: BTreeMap<PathBuf, Stamp>,
    /// Where changes of these show.
    pub(super) directories: BTreeSet<PathBuf>,
}

/// What differs between two looks, in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::cli) struct Changed {
    /// Files that differ, are new or are gone.
    pub(in crate::cli) files: Vec<PathBuf>,
    /// Directories that are new or gone.
    pub(in crate::cli) directories: Vec<PathBuf>,
}

/// By what a file is known to be another than before: editors write anew and rename, or write in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Tree {
    /// What differs, is new or is gone.
    pub(super) fn differs_from(&self, before: &Self) -> Changed {
        let all: BTreeSet<&PathBuf> = self.files.keys().chain(before.files.keys()).collect();
        let differ = all.into_iter().filter(|path| self.files.get(*path) != before.files.get(*path));
        let directories = self.directories.symmetric_difference(&before.directories);
        Changed { files: differ.cloned().collect(), directories: directories.cloned().collect() }
    }

    /// All of it.
    pub(super) fn all(self) -> Changed {
        Changed {
            files: self.files.into_keys().collect(),
            directories: self.directories.into_iter().collect(),
        }
    }
}

/// Looks at all files below these, but for those that git ignores, those of tools, and what is in `except`.
pub(super) fn look(roots: &[PathBuf], except: &Path) -> io::Result<Tree> {
    let mut tree = Tree::default();
    let Some((first, more)) = roots.split_first() else { return Ok(tree) };
    let mut walk = WalkBuilder::new(first);
    for root in more {
        walk.add(root);
    }
    let except = except.to_owned();
    // Where there is no repository, as in an image, its rules hold all the same. Hidden files are programs' settings.
    walk.hidden(false).require_git(false).filter_entry(move |entry| {
        let is_tool = TOOLS.iter().any(|tool| entry.file_name() == *tool);
        entry.depth() == 0 || !is_tool && entry.path() != except
    });
    for entry in walk.build() {
        // What goes while one looks is gone.
        let Ok(entry) = entry else { continue };
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            tree.directories.insert(entry.into_path());
            continue;
        }
        // Sockets and the like aren't what a program is made of.
        if !metadata.is_file() && !metadata.is_symlink() {
            continue;
        }
        if tree.files.len() >= FILES_MAX {
            let text =
                format!("there are more than {FILES_MAX} files; what isn't source belongs in a .gitignore");
            return Err(io::Error::other(text));
        }
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        let stamp = Stamp { inode: metadata.ino(), size: metadata.size(), modified };
        if entry.depth() == 0 {
            tree.directories.extend(entry.path().parent().map(Path::to_owned));
        }
        tree.files.insert(entry.into_path(), stamp);
    }
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_git_ignores_and_what_tools_keep_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        for name in [
            "src/a.js",
            ".env",
            "node_modules/x/i.js",
            ".git/HEAD",
            "state/bulsa.db",
            "log/a.log",
            "a.tmp",
            "keep.tmp",
        ] {
            write(name, "1");
        }
        write(".gitignore", "log/\n*.tmp\n!keep.tmp\n");
        write("src/.gitignore", "made.js\n");
        write("src/made.js", "1");
        let tree = look(&[dir.path().to_owned()], &dir.path().join("state")).unwrap();
        let names: Vec<_> = tree
            .files
            .keys()
            .map(|path| path.strip_prefix(dir.path()).unwrap().display().to_string())
            .collect();
        assert_eq!(names, [".env", ".gitignore", "keep.tmp", "src/.gitignore", "src/a.js"]);
        assert!(!tree.directories.contains(&dir.path().join("node_modules")), "{tree:?}");
        assert_eq!(tree.directories.len(), 2, "{tree:?}");
        fs::create_dir(dir.path().join("empty")).unwrap();
        let after = look(&[dir.path().to_owned()], &dir.path().join("state")).unwrap();
        let changed = after.differs_from(&tree);
        assert_eq!((changed.files.len(), changed.directories), (0, vec![dir.path().join("empty")]));
    }

    #[test]
    fn a_single_file_is_watched_where_it_lies() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("app.js");
        fs::write(&file, "1").unwrap();
        let before = look(std::slice::from_ref(&file), Path::new("/nowhere")).unwrap();
        assert_eq!(before.directories, BTreeSet::from([dir.path().to_owned()]));
        fs::write(dir.path().join("other"), "1").unwrap();
        let after = look(std::slice::from_ref(&file), Path::new("/nowhere")).unwrap();
        assert_eq!(after.differs_from(&before), Changed::default());
        fs::write(&file, "22").unwrap();
        assert_eq!(
            look(std::slice::from_ref(&file), Path::new("/nowhere")).unwrap().differs_from(&after).files,
            [file]
        );
    }
}
