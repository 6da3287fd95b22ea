//! `cargo xtask tidy`: style as a test.
//!
//! Owns: the rules that no other tool checks, and the exceptions to them, each with its reason. Never: changes a file;
//! a finding says where and how to put it right.

use std::{fs, process::Command};

use crate::{
    docs,
    run::{Trouble, output_of, root, say},
};

/// A source file has at most this many lines.
const LINES_MAX: usize = 500;

/// Files that may be longer than [`LINES_MAX`], and why.
const LONG: &[(&str, &str)] =
    &[("crates/bulsa-core/tests/simulation/world.rs", "one fake world: its parts share all of their state")];

/// What only means something on the machine of whoever wrote it. In two parts, so that this file doesn't have them.
const MACHINE_PATHS: &[&str] = &[concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/Us", "ers/")];

/// Macros that say that something isn't done yet. In two parts, so that this file doesn't have them.
const UNDONE: &[&str] = &[concat!("to", "do!("), concat!("db", "g!("), concat!("unimpl", "emented!(")];

/// Leftovers of tools.
const LEFTOVERS: &[&str] = &[".pending-snap", ".snap.new", ".orig", ".rej", ".proptest-regressions"];

/// The headings that a version in the changelog may have.
const CHANGES: &[&str] = &["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"];

/// Checks every file of the repository; each finding is a line with its place and what to do.
pub(crate) fn run() -> Result<(), Trouble> {
    let mut findings = Vec::new();
    let files = files()?;
    for path in &files {
        // One that was deleted but is still in git's list.
        let Ok(bytes) = fs::read(root().join(path)) else { continue };
        if let Some(end) = LEFTOVERS.iter().find(|end| path.ends_with(**end)) {
            findings.push(format!("{path}:1: a leftover (`{end}`): accept or delete it"));
        }
        if let Ok(text) = String::from_utf8(bytes) {
            findings.extend(of_file(path, &text));
        }
    }
    findings.extend(docs::stale()?);
    for finding in &findings {
        say(finding);
    }
    match findings.len() {
        0 => {
            say(&format!("tidy: {} files, nothing found", files.len()));
            Ok(())
        }
        count => Err(Trouble::Other(format!("tidy: {count} findings"))),
    }
}

/// Every file that git has or would have.
fn files() -> Result<Vec<String>, Trouble> {
    let mut git = Command::new("git");
    git.current_dir(root()).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let list = output_of(&mut git)?;
    Ok(list.split_terminator('\0').map(str::to_owned).collect())
}

fn of_file(path: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    if path.ends_with(".rs") {
        findings.extend(length(path, text));
        findings.extend(module_docs(path, text));
        findings.extend(lines_with(path, text, UNDONE, "finish it, or leave it out"));
    }
    if path != "Cargo.lock" {
        let fix = "a path of one machine: name it relative to the repository, or leave it out";
        findings.extend(lines_with(path, text, MACHINE_PATHS, fix));
    }
    if path == "CHANGELOG.md" {
        findings.extend(changelog(path, text));
    }
    findings
}

fn length(path: &str, text: &str) -> Option<String> {
    let lines = text.lines().count();
    let is_listed = LONG.iter().any(|(listed, _)| *listed == path);
    match (lines > LINES_MAX, is_listed) {
        (true, false) => Some(format!(
            "{path}:{LINES_MAX}: {lines} lines, at most {LINES_MAX}: split it, or give a reason in xtask/src/tidy.rs"
        )),
        (false, true) => Some(format!("{path}:1: has {lines} lines: take it out of xtask/src/tidy.rs")),
        _ => None,
    }
}

fn module_docs(path: &str, text: &str) -> Option<String> {
    if path.ends_with("/mod.rs") {
        return Some(format!("{path}:1: a module `foo` is in foo.rs, its parts are in foo/: rename it"));
    }
    // A module of tests is described by the module that it tests.
    let is_test = path.ends_with("/tests.rs") || path.contains("/tests/");
    let has_docs = text.lines().next().is_some_and(|first| first.starts_with("//!"));
    (!is_test && !has_docs).then(|| {
        format!("{path}:1: no module docs: begin with `//!`, and say what it owns and what it never does")
    })
}

fn lines_with<'a>(
    path: &'a str,
    text: &'a str,
    patterns: &'a [&str],
    fix: &'a str,
) -> impl Iterator<Item = String> + 'a {
    text.lines().enumerate().filter_map(move |(index, line)| {
        let found = patterns.iter().find(|pattern| line.contains(**pattern))?;
        Some(format!("{path}:{}: `{found}…`: {fix}", index + 1))
    })
}

/// A changelog has the shape of keepachangelog.com: what isn't released first, then the versions, newest first.
fn changelog(path: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let mut versions = Vec::new();
    let mut say = |index: usize, what: &str| findings.push(format!("{path}:{}: {what}", index + 1));
    if text.lines().next() != Some("# Changelog") {
        say(0, "begin with `# Changelog`");
    }
    for (index, line) in text.lines().enumerate() {
        if let Some(heading) = line.strip_prefix("## ") {
            versions.push((index, heading));
        } else if let Some(heading) = line.strip_prefix("### ")
            && !CHANGES.contains(&heading)
        {
            say(index, &format!("`{heading}` is none of {}", CHANGES.join(", ")));
        }
    }
    let mut last: Option<Vec<u32>> = None;
    for (number, (index, heading)) in versions.iter().enumerate() {
        if number == 0 {
            if *heading != "[Unreleased]" {
                say(*index, "the first section is `## [Unreleased]`");
            }
            continue;
        }
        let Some(version) = released(heading) else {
            say(*index, "a released version is headed `## [1.2.3] - 2026-01-31`");
            continue;
        };
        if last.as_ref().is_some_and(|newer| *newer <= version) {
            say(*index, "the newest version comes first");
        }
        last = Some(version);
    }
    if versions.is_empty() {
        say(0, "add `## [Unreleased]`");
    }
    findings
}

/// The numbers of `[1.2.3] - 2026-01-31`.
fn released(heading: &str) -> Option<Vec<u32>> {
    let (version, date) = heading.strip_prefix('[')?.split_once("] - ")?;
    let numbers = |text: &str, by: char| -> Option<Vec<u32>> {
        text.split(by)
            .map(|part| part.parse().ok())
            .collect::<Option<Vec<u32>>>()
            .filter(|all| all.len() == 3)
    };
    let is_date = date.len() == 10 && numbers(date, '-').is_some();
    numbers(version, '.').filter(|_| is_date)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_too_long_is_found_and_a_listed_one_that_shrank_too() {
        let long = "//! Docs.\n".repeat(LINES_MAX + 1);
        assert!(of_file("crates/x/src/a.rs", &long)[0].starts_with("crates/x/src/a.rs:500: 501 lines"));
        assert_eq!(of_file(LONG[0].0, &long), Vec::<String>::new());
        assert!(of_file(LONG[0].0, "//! Docs.\n")[0].contains("take it out"));
    }

    #[test]
    fn sources_begin_with_docs_and_modules_of_tests_need_none() {
        assert!(of_file("crates/x/src/a.rs", "fn a() {}\n")[0].contains("no module docs"));
        assert!(of_file("crates/x/src/a/mod.rs", "//! Docs.\n")[0].contains("rename"));
        assert_eq!(of_file("crates/x/src/a/tests.rs", "use super::*;\n"), Vec::<String>::new());
        assert_eq!(of_file("README.md", "hello\n"), Vec::<String>::new());
    }

    #[test]
    fn paths_of_a_machine_and_unfinished_code_are_found_with_their_line() {
        let path = format!("first\nsee {}notes\n", MACHINE_PATHS[0]);
        assert!(of_file("README.md", &path)[0].starts_with("README.md:2: "));
        let undone = format!("//! Docs.\nfn a() {{ {}); }}\n", UNDONE[0]);
        assert!(of_file("crates/x/src/a.rs", &undone)[0].starts_with("crates/x/src/a.rs:2: "));
    }

    #[test]
    fn the_changelogs_shape_is_checked() {
        let of = |text: &str| changelog("CHANGELOG.md", text);
        let good = "# Changelog\n\n## [Unreleased]\n\n### Added\n\n- x\n\n## [1.10.0] - 2026-02-01\n\n## [1.9.0] - 2026-01-31\n";
        assert_eq!(of(good), Vec::<String>::new());
        assert_eq!(of("# Changelog\n").len(), 1);
        assert!(of(&good.replace("### Added", "### News"))[0].starts_with("CHANGELOG.md:5: `News`"));
        assert!(of(&good.replace("1.10.0", "1.8.0"))[0].contains("newest"));
        assert!(of(&good.replace(" - 2026-01-31", ""))[0].contains("headed"));
        assert!(of(&good.replace("[Unreleased]", "Next"))[0].contains("first section"));
    }
}
