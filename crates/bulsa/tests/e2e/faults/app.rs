//! The world with the app in it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use bulsa_core::wire::api::{Event, Snapshot};

use super::ledger::Ledger;
use crate::{
    watch::pids,
    world::{World, has},
};

/// The app in a world of its own.
pub(super) struct App {
    pub(super) world: World,
    pub(super) ledger: Ledger,
}

impl App {
    /// Two replicas that are well, where this machine has the programs.
    pub(super) async fn up(variables: &[(&'static str, &str)]) -> Option<Self> {
        if !is_possible() {
            return None;
        }
        let mut world = World::new("faults/compose.yaml");
        world.set("NODE_PATH", node_path());
        let ledger = Ledger(world.path("ledger"));
        world.set("LEDGER", ledger.0.to_str().unwrap());
        for (name, value) in variables {
            world.set(name, *value);
        }
        world.up().await;
        let this = Self { world, ledger };
        assert_eq!(this.replicas(&this.world.well("faults").await).len(), 2);
        Some(this)
    }

    /// The processes of the replicas, by replica.
    pub(super) fn replicas(&self, snapshot: &Snapshot) -> BTreeMap<String, i32> {
        pids(snapshot.project("faults").unwrap())
    }

    /// Waits for an event of this kind after `after`.
    pub(super) async fn event(&self, after: u64, kind: &str) -> Event {
        self.world.event(after, kind, |event| event.kind == kind).await
    }
}

/// Whether the app can run here; says that something is skipped where it can't.
pub(super) fn is_possible() -> bool {
    let is_missing = |module: &&str| !modules().iter().any(|dir| dir.join(module).is_dir());
    let missing = ["express", "ws"].into_iter().find(is_missing);
    if let Some(module) = missing {
        eprintln!("skipped: Debian's node-{module} is missing (`cargo xtask parts` gets it)");
    }
    has("node") && missing.is_none()
}

/// Where Debian's packages are: unpacked beside the build, or installed.
pub(super) fn debian() -> [PathBuf; 2] {
    [Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("parts").join("debian"), PathBuf::from("/")]
}

/// The modules for Node in them.
fn modules() -> [PathBuf; 2] {
    debian().map(|root| root.join("usr/share/nodejs"))
}

/// The same, as Node is told.
pub(super) fn node_path() -> String {
    modules().map(|dir| dir.display().to_string()).join(":")
}

/// The children of a process.
pub(crate) fn children(pid: i32) -> Vec<i32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().map(|child| child.parse().unwrap()).collect()
}
