//! Real parts for tests: images of real programs, Docker Engines of two generations, projects on them, and load.
//!
//! Used by a test target with `#[path = "../support/support.rs"] mod support;`. Everything that is started or made is
//! ended and removed when its owner is dropped, but for images, which the next run finds again. What a machine doesn't
//! have is said, and the test is skipped: `cargo xtask test` gets what can be got.

pub(crate) mod compose;
pub(crate) mod engine;
pub(crate) mod figures;
pub(crate) mod images;
pub(crate) mod load;
pub(crate) mod network;
pub(crate) mod own_engine;
pub(crate) mod parts;
pub(crate) mod project;
pub(crate) mod ran;
pub(crate) mod rootfs;

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use sha2::{Digest, Sha256};

/// The longest that anything may take; only what is broken needs so long.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);
/// How often something is looked at that can't be waited for.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A name that nobody else on this machine has now: tests run side by side, as processes and as threads.
pub(crate) fn unique(prefix: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}{}x{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Eight letters for a text.
pub(crate) fn short_hash(text: &str) -> String {
    Sha256::digest(text).iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

/// Whether the long form of the tests is asked for, with `BULSA_LONG=1`.
pub(crate) fn is_long() -> bool {
    std::env::var_os("BULSA_LONG").is_some_and(|value| value == "1")
}

/// Asks `check` again and again until it gives something; fails the test where that takes too long.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let end = std::time::Instant::now() + LIMIT;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(std::time::Instant::now() < end, "{what}: never so");
        std::thread::sleep(LOOK_EVERY);
    }
}
