//! Files on their way into containers, as whoever watches them asks for it.
//!
//! Owns: the news that a watcher gets, and the runs that it asks for. Never: has the files themselves; they are the body
//! of a request, a tar.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a watcher of services hears: one object a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "news", rename_all = "snake_case")]
pub enum SyncNews {
    /// From now on nothing starts without its being told.
    Open,
    /// A container is made and starts once the watcher has said that its files are in, or has taken too long.
    Starts {
        /// By which the watcher says so.
        ticket: u64,
        /// The service's name in the compose file.
        service: String,
        /// The container's id.
        container: String,
    },
    /// It runs.
    Started {
        /// The service's name in the compose file.
        service: String,
        /// The container's id.
        container: String,
    },
    /// Something that a later version tells of.
    #[serde(other)]
    Unknown,
}

/// A command to run in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncRun {
    /// The project's name.
    pub project: String,
    /// The container's id.
    pub container: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// As whom; the container's own user where none is given.
    #[serde(default)]
    pub user: Option<String>,
    /// With all rights.
    #[serde(default)]
    pub privileged: bool,
    /// Where; the container's own directory where none is given.
    #[serde(default)]
    pub working_dir: Option<String>,
    /// Further variables.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
}

/// What came of a [`SyncRun`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ran", rename_all = "snake_case")]
pub enum SyncRan {
    /// It ended.
    Ended {
        /// Its exit code.
        code: i64,
        /// The beginning of what it wrote.
        output: String,
    },
    /// It did not end in time.
    TooLong {
        /// The beginning of what it wrote.
        output: String,
    },
    /// It could not be run: no such program, a container that doesn't run.
    Not {
        /// Why.
        reason: String,
    },
}

/// Whose a file or directory of a container is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncOwner {
    /// The user's number.
    pub uid: u64,
    /// The group's.
    pub gid: u64,
}
