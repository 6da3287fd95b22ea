//! A command that stays, as the first process of a container: `ENTRYPOINT ["bulsa", "run", "--workers", "cpus", "--"]`.
//!
//! Owns: where a daemon keeps its state in a container, of which nothing may be writable, and how commands find it there.
//! Never: runs anything. The process becomes the keeper ([`crate::keeper`]), whose child this command then is.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{args::Global, serve::ServeOptions};
use crate::{
    keeper::{Init, KEEPER_LOCK},
    link::lock::FileLock,
    paths::{First, Given, Paths, Surroundings},
    report::CommandError,
};

/// How long everything in a container may take to end when nobody says: `docker stop` kills after 10 s.
pub(super) const STOP_LIMIT: Duration = Duration::from_secs(9);

/// Where state may be kept when the usual place can't be written. The last is a tmpfs also where the root filesystem is
/// read-only.
const FURTHER_PLACES: [&str; 3] = ["/run", "/tmp", "/dev/shm"];

/// Whether this is the first process of a container, or of whatever else has a process 1 of its own.
pub(super) fn is_first_process() -> bool {
    rustix::process::getpid().is_init()
}

/// What the first process becomes. `args` is its whole command line.
pub(super) fn options(
    global: &Global,
    args: Vec<OsString>,
    stop_limit: Option<Duration>,
) -> Result<ServeOptions, CommandError> {
    let directory = std::env::current_dir()
        .map_err(|error| CommandError::user("can't find the working directory").cause(error))?;
    let around = &Surroundings {
        root: rustix::process::geteuid().is_root(),
        directory: &directory,
        variable: &|name| std::env::var(name).ok(),
        first: None,
    };
    let given = Given { state_dir: global.state_dir.clone(), socket: global.socket.clone() };
    let state_dir = place(&given, around)?;
    let paths = Paths::resolve(&Given { state_dir: Some(state_dir), ..given }, around)?;
    forget_output(&paths.state_dir);
    let command = args.into_iter().skip(1).collect();
    Ok(ServeOptions {
        state_dir: paths.state_dir.clone(),
        socket: paths.own_socket().to_path_buf(),
        background: false,
        init: Some(Init { command, stop_limit: stop_limit.unwrap_or(STOP_LIMIT) }),
    })
}

/// Forgets what workers wrote in an earlier life of this container: its log has shown it. Nobody of that life is left;
/// whoever else has the directory holds its lock.
fn forget_output(state_dir: &Path) {
    let Ok(_lock) = FileLock::acquire(&state_dir.join(KEEPER_LOCK)) else { return };
    let Ok(entries) = fs::read_dir(state_dir.join("logs")) else { return };
    // A directory for each project. What can't be removed is shown once more.
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        fs::remove_dir_all(entry.path()).ok();
    }
}

/// The first place that can be written.
fn place(given: &Given, around: &Surroundings<'_>) -> Result<PathBuf, CommandError> {
    let usual = Paths::resolve(given, around);
    let places: Vec<(PathBuf, bool)> = match (&given.state_dir, usual) {
        (Some(_), paths) => vec![(paths?.state_dir, false)],
        (None, usual) => {
            let usual = usual.into_iter().map(|paths| (paths.state_dir, false));
            usual.chain(further().map(|place| (place, true))).collect()
        }
    };
    let mut causes = Vec::new();
    for (place, is_shared) in places {
        match usable(&place, is_shared) {
            Ok(()) => return Ok(place),
            Err(error) => causes.push(format!("{}: {error}", place.display())),
        }
    }
    let error = CommandError::user("there is no place for Bulsa's state: no directory can be written");
    let error = causes.into_iter().fold(error, CommandError::cause);
    Err(error
        .hint("give the container a place in memory, as with `docker run --tmpfs /run`")
        .hint("or mount a volume and name a directory in it with `--state-dir DIR`"))
}

fn further() -> impl Iterator<Item = PathBuf> {
    let uid = rustix::process::geteuid().as_raw();
    FURTHER_PLACES.into_iter().map(move |parent| Path::new(parent).join(format!("bulsa-{uid}")))
}

/// Whether a directory, which is made, can be written. In one that is shared with others it must be ours, and no link of
/// theirs to somewhere else.
fn usable(place: &Path, is_shared: bool) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(place)?;
    let metadata = fs::symlink_metadata(place)?;
    let is_ours = metadata.is_dir() && metadata.uid() == rustix::process::geteuid().as_raw();
    if is_shared && !is_ours {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it belongs to another user"));
    }
    tempfile::tempfile_in(place).map(drop)
}

/// The daemon that is process 1, if it is one: then whoever asks inside its container means it.
pub(super) fn first() -> Option<First> {
    // Nobody but process 1 itself says what it is, so nobody can be led to a socket of theirs.
    parse(&fs::read("/proc/1/cmdline").ok()?)
}

fn parse(cmdline: &[u8]) -> Option<First> {
    let text = std::str::from_utf8(cmdline).ok()?;
    let mut words = text.split('\0');
    if (words.next()?, words.next()?) != ("bulsa", "__keeper") {
        return None;
    }
    Some(First { state_dir: words.next()?.into(), socket: words.next()?.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_process_says_itself_where_it_listens() {
        let line =
            b"bulsa\0__keeper\0/dev/shm/bulsa-1000\0/dev/shm/bulsa-1000/api.sock\x009000\0run\0--\0node\0";
        let first = parse(line).unwrap();
        assert_eq!(first.socket, Path::new("/dev/shm/bulsa-1000/api.sock"));
        assert_eq!(first.state_dir, Path::new("/dev/shm/bulsa-1000"));
        for other in [&b"/sbin/init\0"[..], b"bulsa\0run\0x\0y\0", b"bulsa\0__keeper\0", b"", b"\xff"] {
            assert!(parse(other).is_none(), "{other:?}");
        }
    }

    #[test]
    fn a_place_that_cannot_be_written_is_passed_over_and_said() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let around = Surroundings { root: false, directory: dir.path(), variable: &|_| None, first: None };
        let given = |state: &Path| Given { state_dir: Some(state.to_owned()), socket: None };
        let error = place(&given(&file.join("state")), &around).unwrap_err();
        assert!(error.causes[0].contains("Not a directory"), "{error:?}");
        assert!(error.hints[0].contains("--tmpfs"), "{error:?}");
        let good = dir.path().join("a/b");
        assert_eq!(place(&given(&good), &around).unwrap(), good);
        assert_eq!(fs::metadata(&good).unwrap().mode() & 0o777, 0o700);
        // Without HOME there is no usual place, and one of the further ones is taken.
        let place = place(&Given::default(), &around).unwrap();
        assert!(FURTHER_PLACES.iter().any(|further| place.starts_with(further)), "{}", place.display());
    }

    #[test]
    fn output_of_an_earlier_life_is_forgotten_unless_somebody_lives_there() {
        let dir = tempfile::tempdir().unwrap();
        let (old, kept) =
            (dir.path().join("logs/shop/web/web-r1-1.1.log"), dir.path().join("logs/access.log"));
        fs::create_dir_all(old.parent().unwrap()).unwrap();
        for file in [&old, &kept] {
            fs::write(file, "x").unwrap();
        }
        let lock = FileLock::acquire(&dir.path().join(KEEPER_LOCK)).unwrap();
        forget_output(dir.path());
        assert!(old.exists());
        drop(lock);
        forget_output(dir.path());
        assert!(!old.exists() && kept.exists());
    }

    #[test]
    fn the_keeper_is_told_what_it_was_started_for() {
        let dir = tempfile::tempdir().unwrap();
        let global = Global { state_dir: Some(dir.path().to_owned()), ..Global::default() };
        let line = ["bulsa", "run", "--", "node", "a b.js"].map(OsString::from).to_vec();
        let options = options(&global, line, Some(Duration::from_millis(1500))).unwrap();
        let read = ServeOptions::from_args(&options.keeper_args()[1..]).unwrap();
        assert_eq!((&read.state_dir, read.socket), (&dir.path().to_owned(), dir.path().join("api.sock")));
        let init = read.init.unwrap();
        assert_eq!(init.command, ["run", "--", "node", "a b.js"]);
        assert_eq!(init.stop_limit, Duration::from_millis(1500));
    }
}
