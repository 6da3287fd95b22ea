//! Whether Node.js and Express are here, and the programs for them.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Where Debian's packages put their modules.
const DEBIAN_MODULES: &str = "/usr/share/nodejs";

/// Where modules are found.
pub(crate) fn module_path() -> String {
    match std::env::var("NODE_PATH") {
        Ok(path) if !path.is_empty() => format!("{path}:{DEBIAN_MODULES}"),
        _ => DEBIAN_MODULES.to_owned(),
    }
}

/// Whether an Express app can run here; says so if not.
pub(crate) fn is_here() -> bool {
    let tried = Command::new("node")
        .args(["-e", "require('express')"])
        .env("NODE_PATH", module_path())
        .stdin(Stdio::null())
        .output();
    let is_here = tried.is_ok_and(|output| output.status.success());
    if !is_here {
        eprintln!("skipped: it needs node with express (Debian: nodejs, node-express)");
    }
    is_here
}

/// A program of the fixtures.
pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}
