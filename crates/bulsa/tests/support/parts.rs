//! Where real programs are found: this machine's own, and those that `cargo xtask test` has unpacked from Debian's
//! packages beside the build.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

/// The build's directory, where `xtask` leaves what it fetches.
pub(crate) fn target_dir() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().to_owned()
}

/// A newer Engine with what it needs, and a newer Compose: a directory of programs. `cargo xtask parts` makes it.
pub(crate) fn next_programs() -> PathBuf {
    target_dir().join("parts/engine/bin")
}

/// Packages that are unpacked, not installed: a tree like `/`.
fn unpacked() -> PathBuf {
    target_dir().join("parts/debian")
}

/// Where `path` (from the root, without its slash) is on this machine.
pub(crate) fn find(path: &str) -> Option<PathBuf> {
    let path = path.trim_start_matches('/');
    [unpacked(), PathBuf::from("/")].iter().map(|root| root.join(path)).find(|found| found.exists())
}

/// Whether all of these are there; says what is missing, and so that something is skipped.
pub(crate) fn have(paths: &[&str]) -> bool {
    let missing: Vec<_> = paths.iter().copied().filter(|path| find(path).is_none()).collect();
    if !missing.is_empty() {
        eprintln!("skipped: {} is missing (`cargo xtask parts` gets it)", missing.join(", "));
    }
    missing.is_empty()
}

/// `path` as it is from the root of a container: without the root where it was found, and with `/lib` in `/usr`.
pub(crate) fn inside(path: &Path) -> String {
    let mut whole = PathBuf::new();
    for part in path.strip_prefix(unpacked()).unwrap_or(path).components() {
        match part {
            std::path::Component::RootDir | std::path::Component::CurDir => {}
            std::path::Component::ParentDir => drop(whole.pop()),
            part => whole.push(part),
        }
    }
    let path = whole.to_str().unwrap().to_owned();
    match ["bin/", "sbin/", "lib/", "lib64/"].iter().any(|top| path.starts_with(top)) {
        true => format!("usr/{path}"),
        false => path,
    }
}

/// The shared libraries of programs and libraries: where each belongs, and where it is.
pub(crate) fn libraries(of: &[PathBuf]) -> BTreeMap<String, PathBuf> {
    if of.is_empty() {
        return BTreeMap::new();
    }
    let triple = format!("{}-linux-gnu", std::env::consts::ARCH);
    let dirs = ["usr/lib", "lib"].map(|lib| unpacked().join(lib).join(&triple).display().to_string());
    let output = Command::new("ldd").args(of).env("LD_LIBRARY_PATH", dirs.join(":")).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    // `libm.so.6 => /lib/…/libm.so.6 (0x…)`, or for the loader `/lib64/ld-linux-x86-64.so.2 (0x…)`.
    let paths = text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    let paths = paths.filter(|path| !path.ends_with(':')).map(PathBuf::from);
    paths.map(|path| (inside(&path), path)).collect()
}
