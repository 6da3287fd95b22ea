//! Where the daemon keeps its state and where it listens.
//!
//! Owns: the defaults of `--state-dir` and `--socket`. Never: makes a directory or looks whether one is there.
//!
//! Root's daemon keeps its state in `/var/lib/bulsa` and listens on `/run/bulsa/api.sock`. A user's keeps both under
//! the XDG state directory; a user's client asks root's daemon first, so that no second one is started beside it. In a
//! container whose first process is a daemon it is that one which is meant.

use std::path::{Path, PathBuf};

use crate::report::CommandError;

/// Root's state.
const ROOT_STATE_DIR: &str = "/var/lib/bulsa";
/// Root's socket.
const ROOT_SOCKET: &str = "/run/bulsa/api.sock";
/// The socket's name in a state directory.
const SOCKET_NAME: &str = "api.sock";
/// The longest path that the kernel takes for a Unix socket, in bytes (`sun_path` without its terminator).
const SOCKET_PATH_MAX_BYTES: usize = 107;

/// What was given on the command line.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// `--state-dir`.
    pub state_dir: Option<PathBuf>,
    /// `--socket`.
    pub socket: Option<PathBuf>,
}

/// What is taken from the surroundings.
pub struct Surroundings<'a> {
    /// Whether we are root.
    pub root: bool,
    /// The working directory, absolute.
    pub directory: &'a Path,
    /// Looks up an environment variable; an empty one counts as absent.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// The daemon that is process 1.
    pub first: Option<&'a First>,
}

/// A daemon that is the first process of the container that we are in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct First {
    /// Its state directory.
    pub state_dir: PathBuf,
    /// Its API's socket.
    pub socket: PathBuf,
}

/// Where things are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// The state directory of the daemon that we would start; absolute.
    pub state_dir: PathBuf,
    /// Where a daemon may listen, in the order to look; never empty. The last is where one that we start listens.
    pub sockets: Vec<PathBuf>,
}

impl Paths {
    /// Decides from flags, environment and user.
    ///
    /// # Errors
    /// When there is no home to put a user's state in, or a socket's path is longer than the kernel takes.
    pub fn resolve(given: &Given, around: &Surroundings<'_>) -> Result<Self, CommandError> {
        if let Some(first) = around.first.filter(|_| given.state_dir.is_none() && given.socket.is_none()) {
            return Ok(Self { state_dir: first.state_dir.clone(), sockets: vec![first.socket.clone()] });
        }
        let variable =
            |name: &str| (around.variable)(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let state_dir = match (&given.state_dir, around.root) {
            (Some(dir), _) => around.directory.join(dir),
            (None, true) => PathBuf::from(ROOT_STATE_DIR),
            (None, false) => variable("XDG_STATE_HOME")
                .filter(|path| path.is_absolute())
                .or_else(|| variable("HOME").map(|home| home.join(".local/state")))
                .map(|dir| dir.join("bulsa"))
                .ok_or_else(|| {
                    CommandError::user(
                        "there is no place for Bulsa's state: neither HOME nor XDG_STATE_HOME is set",
                    )
                    .hint("name one with `--state-dir DIR`")
                })?,
        };
        let own = state_dir.join(SOCKET_NAME);
        let sockets = if let Some(socket) = &given.socket {
            vec![around.directory.join(socket)]
        } else if given.state_dir.is_some() {
            vec![own]
        } else if let Some(socket) = variable("BULSA_SOCKET") {
            vec![around.directory.join(socket)]
        } else if around.root {
            vec![PathBuf::from(ROOT_SOCKET)]
        } else {
            vec![PathBuf::from(ROOT_SOCKET), own]
        };
        for socket in &sockets {
            short_enough(socket)?;
        }
        Ok(Self { state_dir, sockets })
    }

    /// Where a daemon that we start listens.
    #[must_use]
    pub fn own_socket(&self) -> &Path {
        self.sockets.last().map_or(Path::new(ROOT_SOCKET), PathBuf::as_path)
    }
}

fn short_enough(socket: &Path) -> Result<(), CommandError> {
    let length = socket.as_os_str().len();
    if length <= SOCKET_PATH_MAX_BYTES {
        return Ok(());
    }
    let text = format!(
        "the socket's path has {length} bytes, and the kernel takes {SOCKET_PATH_MAX_BYTES}: {}",
        socket.display()
    );
    Err(CommandError::user(text).hint("give a shorter `--socket PATH`; the state may stay where it is"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(root: bool, given: Given, variables: &[(&str, &str)]) -> Result<Paths, CommandError> {
        let variable =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Paths::resolve(
            &given,
            &Surroundings { root, directory: Path::new("/here"), variable: &variable, first: None },
        )
    }

    fn sockets(paths: &Paths) -> Vec<&str> {
        paths.sockets.iter().map(|path| path.to_str().unwrap()).collect()
    }

    #[test]
    fn root_and_users_have_their_own_places_and_users_ask_root_first() {
        let root = resolve(true, Given::default(), &[("HOME", "/root")]).unwrap();
        assert_eq!(
            (root.state_dir.to_str().unwrap(), sockets(&root)),
            ("/var/lib/bulsa", vec!["/run/bulsa/api.sock"])
        );
        let user = resolve(false, Given::default(), &[("HOME", "/home/u")]).unwrap();
        assert_eq!(user.state_dir, Path::new("/home/u/.local/state/bulsa"));
        assert_eq!(sockets(&user), ["/run/bulsa/api.sock", "/home/u/.local/state/bulsa/api.sock"]);
        assert_eq!(user.own_socket(), Path::new("/home/u/.local/state/bulsa/api.sock"));
        let xdg = resolve(false, Given::default(), &[("HOME", "/home/u"), ("XDG_STATE_HOME", "/x")]).unwrap();
        assert_eq!(xdg.state_dir, Path::new("/x/bulsa"));
    }

    #[test]
    fn flags_win_over_the_environment() {
        let env = [("HOME", "/home/u"), ("BULSA_SOCKET", "/env.sock")];
        assert_eq!(sockets(&resolve(false, Given::default(), &env).unwrap()), ["/env.sock"]);
        let dir = Given { state_dir: Some("s".into()), socket: None };
        assert_eq!(sockets(&resolve(false, dir, &env).unwrap()), ["/here/s/api.sock"]);
        let both = Given { state_dir: Some("s".into()), socket: Some("/a.sock".into()) };
        let both = resolve(true, both, &env).unwrap();
        assert_eq!((both.state_dir.to_str().unwrap(), sockets(&both)), ("/here/s", vec!["/a.sock"]));
    }

    #[test]
    fn in_a_container_its_first_process_is_meant_unless_another_is_named() {
        let first = First { state_dir: "/dev/shm/b".into(), socket: "/dev/shm/b/api.sock".into() };
        let resolve = |given: Given| {
            let variable = |name: &str| (name == "BULSA_SOCKET").then(|| "/env.sock".to_owned());
            let around = Surroundings {
                root: true,
                directory: Path::new("/"),
                variable: &variable,
                first: Some(&first),
            };
            Paths::resolve(&given, &around).unwrap()
        };
        let found = resolve(Given::default());
        assert_eq!(
            (found.state_dir.as_path(), sockets(&found)),
            (first.state_dir.as_path(), vec!["/dev/shm/b/api.sock"])
        );
        assert_eq!(sockets(&resolve(Given { socket: Some("/x.sock".into()), state_dir: None })), ["/x.sock"]);
    }

    #[test]
    fn a_place_that_cannot_work_is_one_sentence_with_a_way_out() {
        let error = resolve(false, Given::default(), &[("HOME", "")]).unwrap_err();
        assert!(error.hints[0].contains("--state-dir"), "{error:?}");
        let deep = Given { state_dir: Some(format!("/{}", "d".repeat(120)).into()), socket: None };
        let error = resolve(true, deep, &[]).unwrap_err();
        assert!(error.message.contains("107") && error.hints[0].contains("--socket"), "{error:?}");
    }
}
