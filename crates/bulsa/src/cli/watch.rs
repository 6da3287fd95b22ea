//! Waiting for files to change, as somebody changes them who writes a program.
//!
//! Owns: which files count, when a burst of changes is over, and what was changed. Never: does anything about it.
//!
//! The kernel's events are hints: after each burst the tree is looked at, and what differs from the look before is what
//! changed. So no event is relied on, files that git ignores never count, and where the kernel gives no more watches the
//! same looks are taken at a steady pace.

mod hints;
mod tree;

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::{Instant, timeout_at};

pub(super) use self::tree::Changed;
use self::{hints::Hints, tree::Tree};
use crate::report::CommandError;

/// A burst of changes is over when nothing changed for so long.
const QUIET: Duration = Duration::from_millis(300);
/// A burst that doesn't end is looked at after this time all the same.
const BURST_MAX: Duration = Duration::from_secs(3);
/// How often the tree is looked at where the kernel gives no events.
const POLL: Duration = Duration::from_secs(1);

/// Files and directories that are watched.
pub(super) struct Watch {
    roots: Vec<PathBuf>,
    except: PathBuf,
    tree: Tree,
    hints: Hints,
}

impl Watch {
    /// Watches these, but for what is in `except`, where the daemon writes. The second is what one should know, if the kernel gives no events.
    ///
    /// # Errors
    /// When one isn't there or can't be read, or they hold too many files.
    pub(super) fn new(
        paths: &[PathBuf],
        directory: &Path,
        except: &Path,
    ) -> Result<(Self, Option<String>), CommandError> {
        let roots: Vec<PathBuf> = paths.iter().map(|path| directory.join(path)).collect();
        for root in &roots {
            root.metadata().map_err(|error| {
                CommandError::user(format!("can't watch {}", root.display()))
                    .cause(error)
                    .hint("name a file or a directory that is there")
            })?;
        }
        let tree = tree::look(&roots, except).map_err(|error| unreadable(&error))?;
        let (hints, note) = match Hints::of(&tree) {
            Ok(hints) => (hints, None),
            Err(error) => (Hints::Every(POLL), Some(no_events(&error))),
        };
        Ok((Self { roots, except: except.to_owned(), tree, hints }, note))
    }

    /// Waits until something has changed and the burst is over; what differs.
    ///
    /// # Errors
    /// When the files can't be looked at any more.
    pub(super) async fn changed(&mut self) -> Result<Changed, CommandError> {
        loop {
            self.hints.next().await;
            let end = Instant::now() + BURST_MAX;
            while let Hints::Events(events) = &self.hints {
                let quiet = (Instant::now() + QUIET).min(end);
                if timeout_at(quiet, events.next()).await.is_err() {
                    break;
                }
            }
            let mut now = self.look().await?;
            if now != self.tree
                && let Hints::Events(events) = &self.hints
            {
                // Directories that are new, or made anew, are watched from now on. What came into them before is seen by
                // another look.
                if events.watch(&now).is_err() {
                    self.hints = Hints::Every(POLL);
                }
                now = self.look().await?;
            }
            let changed = now.differs_from(&self.tree);
            self.tree = now;
            if changed != Changed::default() {
                return Ok(changed);
            }
        }
    }

    async fn look(&self) -> Result<Tree, CommandError> {
        let (roots, except) = (self.roots.clone(), self.except.clone());
        let looked = tokio::task::spawn_blocking(move || tree::look(&roots, &except)).await;
        looked.map_err(|error| CommandError::bug(error.to_string()))?.map_err(|error| unreadable(&error))
    }
}

/// All that is watched at these places.
pub(super) async fn all(roots: Vec<PathBuf>, except: PathBuf) -> Result<Changed, CommandError> {
    let looked = tokio::task::spawn_blocking(move || tree::look(&roots, &except)).await;
    let tree = looked.map_err(|error| CommandError::bug(error.to_string()))?;
    tree.map(Tree::all).map_err(|error| unreadable(&error))
}

fn unreadable(error: &io::Error) -> CommandError {
    CommandError::user("can't look at the files to watch").cause(error)
}

/// What it means that the kernel gives no events.
fn no_events(error: &io::Error) -> String {
    let why = match rustix::io::Errno::from_io_error(error) {
        Some(rustix::io::Errno::NOSPC) => {
            "the kernel gives no more watches (fs.inotify.max_user_watches)".to_owned()
        }
        Some(rustix::io::Errno::MFILE) => {
            "the kernel gives no more watchers (fs.inotify.max_user_instances)".to_owned()
        }
        _ => format!("the kernel gives no events: {error}"),
    };
    format!("{why}: the files are looked at every {} s instead", POLL.as_secs())
}

/// What changed in a few words: `src/app.js and 2 more`. Directories are named where no file is.
pub(super) fn in_words(changed: &Changed, directory: &Path) -> String {
    let named = if changed.files.is_empty() { &changed.directories } else { &changed.files };
    let Some(first) = named.first() else { return "nothing".to_owned() };
    let first = first.strip_prefix(directory).unwrap_or(first).display();
    match named.len() {
        1 => first.to_string(),
        more => format!("{first} and {} more", more - 1),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tokio::time::timeout;

    use super::*;

    /// Longer than a change can take to be seen on the busiest machine.
    const LIMIT: Duration = Duration::from_secs(60);

    async fn seen(watch: &mut Watch, dir: &Path) -> String {
        let changed = timeout(LIMIT, watch.changed()).await.expect("a change is seen").unwrap();
        in_words(&changed, dir)
    }

    #[tokio::test]
    async fn a_change_is_seen_by_event_and_by_looking_and_in_directories_that_are_new() {
        for polls in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path();
            fs::write(path.join("app.js"), "1").unwrap();
            let (mut watch, note) = Watch::new(&[".".into()], path, Path::new("/nowhere")).unwrap();
            assert_eq!(note, None);
            if polls {
                watch.hints = Hints::Every(Duration::from_millis(10));
            }
            let write = |name: &str, text: &str| fs::write(path.join(name), text).unwrap();
            write("app.js", "22");
            assert_eq!(seen(&mut watch, path).await, "app.js");
            fs::create_dir(path.join("lib")).unwrap();
            assert_eq!(seen(&mut watch, path).await, "lib");
            write("lib/new.js", "1");
            assert_eq!(seen(&mut watch, path).await, "lib/new.js");
            write("lib/new.js", "22");
            assert_eq!(seen(&mut watch, path).await, "lib/new.js");
            fs::rename(path.join("lib/new.js"), path.join("lib/newer.js")).unwrap();
            assert_eq!(seen(&mut watch, path).await, "lib/new.js and 1 more");
            fs::remove_file(path.join("app.js")).unwrap();
            assert_eq!(seen(&mut watch, path).await, "app.js");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_there_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let error = Watch::new(&["nope".into()], dir.path(), dir.path()).err().unwrap();
        assert!(error.message.contains("nope"), "{error:?}");
    }

    #[test]
    fn why_the_kernel_gives_no_events_is_said_with_the_setting() {
        let said = |errno: rustix::io::Errno| no_events(&errno.into());
        assert!(said(rustix::io::Errno::NOSPC).contains("max_user_watches"));
        assert!(said(rustix::io::Errno::MFILE).contains("max_user_instances"));
        assert!(said(rustix::io::Errno::NOSYS).contains("every 1 s"));
    }
}
