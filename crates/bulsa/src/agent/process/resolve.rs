//! Whether what a service wants to run can be run, before it is tried.
//!
//! Owns: finding the program as the kernel will (absolute, relative to the working directory, or through `PATH`) and
//! checking that the account may run it, so that a mistake in the file is one clear error instead of a crash loop.
//! Never: promises anything. The file can change before the start, and the start then reports its own error.
//!
//! Permissions are judged from mode bits for the account that the service runs as. A file with an access control list
//! is trusted: the list may grant what the bits don't show.

use std::{
    fs::{File, Metadata},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::{
    fs::getxattr_query,
    process::{getegid, geteuid, getgroups},
};

use super::{StartProblem, Subject, user::Account};

/// How much of a file the kernel looks at for `#!`, in bytes.
const SHEBANG_BYTES: u64 = 256;

/// What a service wants to run.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The first word of its command.
    pub program: &'a str,
    /// Its working directory, absolute.
    pub working_dir: &'a Path,
    /// The `PATH` of its environment.
    pub path: &'a str,
    /// The account it runs as; `None` for the agent's own.
    pub account: Option<&'a Account>,
}

/// The file that will be run.
///
/// # Errors
/// If the working directory or the program isn't there, or the account may not use it.
pub fn resolve(subject: Subject<'_>, wanted: &Wanted<'_>) -> Result<PathBuf, StartProblem> {
    let identity = Identity::of(wanted.account);
    directory(subject, wanted, &identity)?;
    if wanted.program.is_empty() {
        return Err(subject.problem("its command is empty", "write what to run in `command`"));
    }
    let found = if wanted.program.contains('/') {
        exact(subject, wanted, &identity)?
    } else {
        through_path(subject, wanted, &identity)?
    };
    interpreter(subject, &found)?;
    Ok(found)
}

fn directory(subject: Subject<'_>, wanted: &Wanted<'_>, identity: &Identity) -> Result<(), StartProblem> {
    let shown = wanted.working_dir.display();
    let fix = "create it, or set `working_dir` to one that exists";
    match wanted.working_dir.metadata() {
        Ok(metadata) if !metadata.is_dir() => {
            Err(subject.problem(format!("its working directory {shown} is no directory"), fix))
        }
        Ok(_) => match identity.cannot_reach(wanted.working_dir) {
            None => Ok(()),
            Some(barrier) => {
                Err(identity.barred(subject, &format!("enter its working directory {shown}"), &barrier))
            }
        },
        Err(e) => Err(subject.problem(format!("its working directory {shown} can't be used: {e}"), fix)),
    }
}

/// A program that is given with a slash: that file and no other.
fn exact(subject: Subject<'_>, wanted: &Wanted<'_>, identity: &Identity) -> Result<PathBuf, StartProblem> {
    let file = wanted.working_dir.join(wanted.program);
    let whence = if wanted.program.starts_with('/') {
        String::new()
    } else {
        format!(" (from its working directory {})", wanted.working_dir.display())
    };
    match judge(&file, identity) {
        Verdict::Runs => Ok(file),
        Verdict::Absent(e) => Err(subject.problem(
            format!("its program `{}` can't be found: {}{whence}: {e}", wanted.program, file.display()),
            "check the path in `command`, or `working_dir`",
        )),
        Verdict::Directory => Err(subject
            .problem(format!("its program {} is a directory", file.display()), "name the program in it")),
        Verdict::NotExecutable => Err(subject.problem(
            format!("its program {} may not be executed by {}", file.display(), identity.shown()),
            format!(
                "`chmod a+x {}`, or name the interpreter first, as in `command: node server.js`",
                file.display()
            ),
        )),
        Verdict::Barred(barrier) => {
            Err(identity.barred(subject, &format!("run {}", file.display()), &barrier))
        }
    }
}

/// A bare name: the first file of that name in `PATH` that may be executed.
fn through_path(
    subject: Subject<'_>,
    wanted: &Wanted<'_>,
    identity: &Identity,
) -> Result<PathBuf, StartProblem> {
    let mut near = None;
    for directory in wanted.path.split(':') {
        // An empty entry is the working directory, as for a shell.
        let file = wanted.working_dir.join(directory).join(wanted.program);
        match judge(&file, identity) {
            Verdict::Runs => return Ok(file),
            Verdict::Absent(_) | Verdict::Directory => {}
            Verdict::NotExecutable | Verdict::Barred(_) => near = near.or(Some(file)),
        }
    }
    if let Some(file) = near {
        return exact(subject, &Wanted { program: &file.to_string_lossy(), ..*wanted }, identity);
    }
    let here = wanted.working_dir.join(wanted.program);
    let hint = if here.is_file() {
        format!("{} exists: write `./{}`", here.display(), wanted.program)
    } else {
        "install it, write its full path, or set `PATH` in `environment`".to_owned()
    };
    Err(subject
        .problem(format!("its program `{}` is nowhere in PATH ({})", wanted.program, wanted.path), hint))
}

/// Checks what a script's first line asks for: the kernel's own error for it names the script, which is there.
fn interpreter(subject: Subject<'_>, file: &Path) -> Result<(), StartProblem> {
    let mut head = Vec::new();
    // A program that may be executed but not read keeps its first line to itself.
    let Ok(opened) = File::open(file) else { return Ok(()) };
    if opened.take(SHEBANG_BYTES).read_to_end(&mut head).is_err() {
        return Ok(());
    }
    let Some(interpreter) = parse_shebang(&head) else { return Ok(()) };
    if !interpreter.starts_with('/') || Path::new(&interpreter).exists() {
        return Ok(());
    }
    let hint = if interpreter.ends_with('\r') {
        "the line ends with a carriage return: save the file with Unix line ends".to_owned()
    } else {
        "install it, or change that line".to_owned()
    };
    let shown = interpreter.escape_debug();
    Err(subject
        .problem(format!("{} asks for `{shown}` in its first line, which isn't there", file.display()), hint))
}

/// The interpreter of a script that begins `#! /bin/sh -e`.
fn parse_shebang(head: &[u8]) -> Option<String> {
    let line = head.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let word = line.split(blank).find(|word| !word.is_empty())?;
    Some(String::from_utf8_lossy(word).into_owned())
}

enum Verdict {
    Runs,
    Absent(io::Error),
    Directory,
    NotExecutable,
    /// A directory on the way may not be entered.
    Barred(PathBuf),
}

fn judge(file: &Path, identity: &Identity) -> Verdict {
    match file.metadata() {
        Err(e) => Verdict::Absent(e),
        Ok(metadata) if metadata.is_dir() => Verdict::Directory,
        Ok(metadata) if !identity.may_execute(file, &metadata) => Verdict::NotExecutable,
        Ok(_) => match file.parent().and_then(|parent| identity.cannot_reach(parent)) {
            Some(barrier) => Verdict::Barred(barrier),
            None => Verdict::Runs,
        },
    }
}

/// Whose permissions count.
struct Identity {
    uid: u32,
    groups: Vec<u32>,
    name: Option<String>,
}

impl Identity {
    fn of(account: Option<&Account>) -> Self {
        if let Some(account) = account {
            let groups = account.groups.iter().copied().chain([account.gid]).collect();
            return Self { uid: account.uid, groups, name: account.name.clone() };
        }
        // Without its supplementary groups the agent may seem to have too few rights; then the start itself decides.
        let own = getgroups().unwrap_or_default();
        let groups = own.into_iter().chain([getegid()]).map(rustix::process::Gid::as_raw).collect();
        Self { uid: geteuid().as_raw(), groups, name: None }
    }

    fn shown(&self) -> String {
        self.name.as_ref().map_or_else(|| format!("user {}", self.uid), |name| format!("user `{name}`"))
    }

    fn may_execute(&self, path: &Path, metadata: &Metadata) -> bool {
        let bits =
            execute_bits(metadata.mode(), self.uid == metadata.uid(), self.groups.contains(&metadata.gid()));
        // Root may enter every directory, and run every file that anybody may run.
        let as_root = self.uid == 0 && (metadata.is_dir() || metadata.mode() & 0o111 != 0);
        bits || as_root || has_access_list(path)
    }

    /// The first directory on the way to (and including) `directory` that may not be entered.
    fn cannot_reach(&self, directory: &Path) -> Option<PathBuf> {
        if self.uid == 0 {
            return None;
        }
        // Links on the way are followed, as the kernel does.
        let real = directory.canonicalize().ok()?;
        let mut way: Vec<&Path> = real.ancestors().collect();
        way.reverse();
        let barred = |path: &&&Path| path.metadata().is_ok_and(|metadata| !self.may_execute(path, &metadata));
        way.iter().find(barred).map(|path| path.to_path_buf())
    }

    fn barred(&self, subject: Subject<'_>, what: &str, barrier: &Path) -> StartProblem {
        subject.problem(
            format!("{} may not {what}: the directory {} is closed to it", self.shown(), barrier.display()),
            format!("`chmod a+x {}`, or move the program to where that user may go", barrier.display()),
        )
    }
}

/// Whether the mode lets the owner, the group or others (the first that applies) execute.
fn execute_bits(mode: u32, owner: bool, group: bool) -> bool {
    let bit = if owner {
        0o100
    } else if group {
        0o010
    } else {
        0o001
    };
    mode & bit != 0
}

fn has_access_list(path: &Path) -> bool {
    getxattr_query(path, "system.posix_acl_access").is_ok_and(|bytes| bytes > 0)
}

#[cfg(test)]
mod tests;
