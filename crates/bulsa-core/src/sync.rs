//! What changed files mean for a container: which place each one has there, what is put in and what is deleted.
//!
//! Owns: the way from a path of this host to one of the container, and making one order of many changes. Never: touches
//! a file or a container; what a path is now is an argument.

use std::collections::BTreeMap;

use crate::compose::{develop::Copied, paths};

/// A command line has at most so many bytes of paths: far below what a kernel takes, with an environment beside it.
pub const ARGUMENTS_MAX: usize = 64 << 10;

/// What a path that changed is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A file or a symlink.
    File,
    /// A directory.
    Directory,
    /// Nothing, and it was a file.
    Gone,
    /// Nothing, and it was a directory.
    GoneDirectory,
}

/// Something to put into a container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Put {
    /// Where it goes, seen from [`Copied::base`].
    pub place: String,
    /// Where it is on this host.
    pub path: String,
}

/// What is to be done in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// What is deleted, first: absolute, and nothing that lies in another one of them.
    pub remove: Vec<String>,
    /// What is put there then: directories before what is in them.
    pub put: Vec<Put>,
}

impl Orders {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.put.is_empty()
    }
}

/// What of `path` lies below `root`, without a slash at its start; empty for the root itself, `None` outside it.
#[must_use]
pub fn below<'p>(root: &str, path: &'p str) -> Option<&'p str> {
    let rest = path.strip_prefix(root.trim_end_matches('/'))?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
}

/// Where in a container a path goes whose `root` is at `target` there. A target that ends with a slash is a directory also
/// where the root is a file.
#[must_use]
pub fn place(target: &str, root: &str, path: &str) -> Option<String> {
    let rest = below(root, path)?;
    let rest = if rest.is_empty() && target.ends_with('/') { paths::base_name(root) } else { rest };
    Some(paths::join(target, rest))
}

/// What the changes below `root` mean in a container. Each path once, as it is now.
#[must_use]
pub fn orders(copied: &Copied, root: &str, seen: &BTreeMap<String, Seen>) -> Orders {
    // Of a root that is a directory only what is in it is our affair: the image's own directory stays.
    let target = copied.target.trim_end_matches('/');
    let of_directory = |path: &str| match below(root, path)? {
        "" => None,
        rest => Some(paths::join(if target.is_empty() { "/" } else { target }, rest)),
    };
    let (mut put, mut gone, mut files) = (Vec::new(), Vec::new(), Vec::new());
    for (path, seen) in seen {
        let place = match seen {
            Seen::File | Seen::Gone => place(&copied.target, root, path),
            Seen::Directory | Seen::GoneDirectory => of_directory(path),
        };
        let Some(place) = place else { continue };
        match seen {
            Seen::Gone | Seen::GoneDirectory => gone.push(place),
            Seen::File | Seen::Directory => {
                let Some(inside) = below(&copied.base, &place).filter(|inside| !inside.is_empty()) else {
                    continue;
                };
                put.push(Put { place: inside.to_owned(), path: path.clone() });
                if *seen == Seen::File {
                    files.push(place);
                }
            }
        }
    }
    put.sort();
    // What was in a directory where a file is now goes with the directory.
    gone.retain(|place| !files.iter().any(|file| below(file, place).is_some_and(|rest| !rest.is_empty())));
    Orders { remove: topmost(gone), put }
}

/// Without those that lie in another one.
fn topmost(mut all: Vec<String>) -> Vec<String> {
    // By their parts: as text, `a-b` would come between `a` and `a/b`.
    all.sort_by(|one, other| one.split('/').cmp(other.split('/')));
    let mut kept: Vec<String> = Vec::new();
    for place in all {
        if kept.last().is_none_or(|last| below(last, &place).is_none()) {
            kept.push(place);
        }
    }
    kept
}

/// The same in pieces, each of at most [`ARGUMENTS_MAX`] bytes or one path.
#[must_use]
pub fn pieces(paths: &[String]) -> Vec<&[String]> {
    let (mut all, mut from, mut size) = (Vec::new(), 0, 0);
    for (at, path) in paths.iter().enumerate() {
        if size + path.len() > ARGUMENTS_MAX && at > from {
            all.extend(paths.get(from..at));
            (from, size) = (at, 0);
        }
        size += path.len() + 1;
    }
    all.extend(paths.get(from..).filter(|rest| !rest.is_empty()));
    all
}

/// Whether a file is only on its way: what editors write beside a file while they save it.
#[must_use]
pub fn is_passing(name: &str) -> bool {
    let ends = ["~", ".swp", ".swx", ".swo", "___jb_tmp___", "___jb_old___"];
    let begins = [".#", "#", ".goutputstream-"];
    // The name by which vim looks whether it may write.
    name == "4913"
        || ends.iter().any(|end| name.ends_with(end))
        || begins.iter().any(|begin| name.starts_with(begin))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copied(target: &str, base: &str) -> Copied {
        Copied { target: target.to_owned(), base: base.to_owned(), initial: false }
    }

    fn ordered(copied: &Copied, root: &str, seen: &[(&str, Seen)]) -> (String, String) {
        let seen = seen.iter().map(|(path, seen)| ((*path).to_owned(), *seen)).collect();
        let orders = orders(copied, root, &seen);
        let put: Vec<_> = orders.put.iter().map(|put| format!("{}={}", put.place, put.path)).collect();
        (orders.remove.join(" "), put.join(" "))
    }

    #[test]
    fn a_path_has_its_place_below_the_target() {
        for (target, root, path, expected) in [
            ("/app", "/src/web", "/src/web/a/b.js", Some("/app/a/b.js")),
            ("/app/", "/src/web", "/src/web/a.js", Some("/app/a.js")),
            ("/", "/src/web", "/src/web/a.js", Some("/a.js")),
            ("/app", "/src/web", "/src/website/a.js", None),
            ("/etc/app.conf", "/src/dev.conf", "/src/dev.conf", Some("/etc/app.conf")),
            ("/etc/", "/src/dev.conf", "/src/dev.conf", Some("/etc/dev.conf")),
            ("/app", "/", "/a.js", Some("/app/a.js")),
        ] {
            assert_eq!(place(target, root, path).as_deref(), expected, "{target} {root} {path}");
        }
    }

    #[test]
    fn directories_come_before_what_is_in_them_and_a_volume_is_the_base() {
        let seen = [("/s/b/x", Seen::File), ("/s/b", Seen::Directory), ("/s", Seen::Directory)];
        assert_eq!(
            ordered(&copied("/app/src", "/"), "/s", &seen),
            (String::new(), "app/src/b=/s/b app/src/b/x=/s/b/x".to_owned())
        );
        assert_eq!(
            ordered(&copied("/app/src", "/app"), "/s", &seen[..1]),
            (String::new(), "src/b/x=/s/b/x".to_owned())
        );
    }

    #[test]
    fn of_what_is_gone_the_topmost_is_deleted_and_never_the_target() {
        let seen = [
            ("/s", Seen::GoneDirectory),
            ("/s/a", Seen::GoneDirectory),
            ("/s/a-b", Seen::Gone),
            ("/s/a/x", Seen::Gone),
            ("/s/a/y/z", Seen::Gone),
        ];
        assert_eq!(ordered(&copied("/app", "/"), "/s", &seen).0, "/app/a /app/a-b");
        assert_eq!(ordered(&copied("/etc/c", "/"), "/s/c", &[("/s/c", Seen::Gone)]).0, "/etc/c");
        assert_eq!(ordered(&copied("/", "/"), "/s", &[("/s", Seen::GoneDirectory)]).0, "");
    }

    #[test]
    fn a_file_in_the_place_of_a_directory_takes_what_was_in_it_along() {
        let seen = [("/s/a", Seen::File), ("/s/a/x", Seen::Gone), ("/s/ab", Seen::Gone)];
        let (remove, put) = ordered(&copied("/app", "/"), "/s", &seen);
        assert_eq!((remove.as_str(), put.as_str()), ("/app/ab", "app/a=/s/a"));
    }

    #[test]
    fn command_lines_are_bounded() {
        let long = "x".repeat(ARGUMENTS_MAX / 2);
        let paths = [long.clone(), long.clone(), "y".to_owned(), "z".repeat(2 * ARGUMENTS_MAX)];
        let sizes: Vec<usize> = pieces(&paths).iter().map(|piece| piece.len()).collect();
        assert_eq!(sizes, [1, 2, 1]);
        assert!(pieces(&[]).is_empty());
    }

    #[test]
    fn what_editors_write_on_the_way_is_known() {
        for name in ["a.js~", ".a.js.swp", "4913", ".#a.js", "#a.js#", ".goutputstream-X1"] {
            assert!(is_passing(name), "{name}");
        }
        for name in ["a.js", ".env", "4914", "swp"] {
            assert!(!is_passing(name), "{name}");
        }
    }
}
