//! The environment variables by which the keeper's processes are found again after its death.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::procfs;

/// Which daemon a process belongs to: the same for every keeper of one state directory and user.
pub const KEEPER_ENV: &str = "BULSA_KEEPER";
/// The id of the replica that a process belongs to.
pub const TASK_ENV: &str = "BULSA_TASK";
/// The note given at the replica's spawn.
pub const NOTE_ENV: &str = "BULSA_NOTE";
/// `agent` or `proxy`.
pub const ROLE_ENV: &str = "BULSA_ROLE";
/// Which agent or proxy, counted from 1.
pub const GENERATION_ENV: &str = "BULSA_GENERATION";
/// The state directory, for agent and proxy.
pub const STATE_DIR_ENV: &str = "BULSA_STATE_DIR";

/// The value of `BULSA_KEEPER`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Marker(String);

/// What a marked process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Role {
    Task { id: String, note: String },
    Agent { number: u64 },
    Proxy { generation: u64 },
}

impl Marker {
    /// The marker of a state directory, which must exist.
    pub(crate) fn new(state_dir: &Path) -> io::Result<Self> {
        let path = fs::canonicalize(state_dir)?;
        let uid = rustix::process::geteuid().as_raw();
        let digest = Sha256::new()
            .chain_update(path.as_os_str().as_bytes())
            .chain_update(uid.to_le_bytes())
            .finalize();
        Ok(Self(digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()))
    }

    /// The text of the marker.
    pub(crate) fn value(&self) -> &str {
        &self.0
    }

    /// What a process is, if it is one of ours. A process whose environment we may not read is not.
    pub(crate) fn role(&self, pid: i32) -> Option<Role> {
        self.role_in(&procfs::environ(pid).ok()?)
    }

    fn role_in(&self, environ: &[u8]) -> Option<Role> {
        if procfs::variable(environ, KEEPER_ENV) != Some(self.value()) {
            return None;
        }
        if let Some(id) = procfs::variable(environ, TASK_ENV) {
            let note = procfs::variable(environ, NOTE_ENV).unwrap_or_default();
            return Some(Role::Task { id: id.to_owned(), note: note.to_owned() });
        }
        let generation = procfs::variable(environ, GENERATION_ENV)?.parse().ok()?;
        match procfs::variable(environ, ROLE_ENV)? {
            "agent" => Some(Role::Agent { number: generation }),
            "proxy" => Some(Role::Proxy { generation }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_directories_have_two_markers_and_one_has_one() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let marker = Marker::new(a.path()).unwrap();
        assert_eq!(marker, Marker::new(&a.path().join(".")).unwrap());
        assert_ne!(marker, Marker::new(b.path()).unwrap());
        assert_eq!(marker.value().len(), 16);
    }

    #[test]
    fn a_process_of_another_keeper_is_not_ours() {
        let marker = Marker("aa".to_owned());
        let role = |text: &str| marker.role_in(text.replace(' ', "\0").as_bytes());
        assert_eq!(role("BULSA_KEEPER=bb BULSA_TASK=x"), None);
        assert_eq!(role("BULSA_TASK=x"), None);
        let task = Role::Task { id: "x".to_owned(), note: "n".to_owned() };
        assert_eq!(role("BULSA_NOTE=n BULSA_TASK=x BULSA_KEEPER=aa"), Some(task));
        assert_eq!(
            role("BULSA_KEEPER=aa BULSA_ROLE=proxy BULSA_GENERATION=3"),
            Some(Role::Proxy { generation: 3 })
        );
        assert_eq!(
            role("BULSA_KEEPER=aa BULSA_ROLE=agent BULSA_GENERATION=1"),
            Some(Role::Agent { number: 1 })
        );
    }
}
