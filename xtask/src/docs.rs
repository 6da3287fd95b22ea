//! `cargo xtask docs`: the pages under `docs/` that are made from the code.
//!
//! Owns: their text. Never: holds a fact of its own; each comes from where the program has it.

use std::{fmt::Write as _, fs, path::Path, process::Command};

use bulsa::report::ExitCode;
use bulsa_core::compose::keys::{self, Keys, Support};

use crate::run::{Trouble, built_bulsa, output_of, root, say};

/// The first line of each page.
const MADE: &str = "<!-- Made by `cargo xtask docs`; don't edit. -->";

/// A page: its path in the repository and its text.
type Page = (&'static str, String);

/// Writes every page.
pub(crate) fn write() -> Result<(), Trouble> {
    for (path, text) in pages()? {
        fs::write(root().join(path), text).map_err(Trouble::io(format!("can't write {path}")))?;
        say(&format!("{path} written"));
    }
    Ok(())
}

/// Fails where a page isn't what it should be.
pub(crate) fn check() -> Result<(), Trouble> {
    let stale = stale()?;
    if stale.is_empty() {
        return Ok(());
    }
    Err(Trouble::Other(stale.join("\n")))
}

/// Every page that isn't what it should be, as a finding.
pub(crate) fn stale() -> Result<Vec<String>, Trouble> {
    let finding = |(path, text): Page| {
        let found = fs::read_to_string(root().join(path)).unwrap_or_default();
        let line = found.lines().zip(text.lines()).take_while(|(is, should)| is == should).count() + 1;
        (found != text).then(|| format!("{path}:{line}: isn't what the code says: run `cargo xtask docs`"))
    };
    Ok(pages()?.into_iter().filter_map(finding).collect())
}

fn pages() -> Result<Vec<Page>, Trouble> {
    Ok(vec![
        ("docs/cli.md", cli(&built_bulsa()?)?),
        ("docs/exit-codes.md", exit_codes()),
        ("docs/compose-support.md", compose_support()),
    ])
}

fn exit_codes() -> String {
    let mut page = format!(
        "{MADE}\n# Exit codes\n\nA number is never given another meaning.\n\n| code | meaning |\n|---:|---|\n"
    );
    for (code, meaning) in ExitCode::ALL {
        line(&mut page, &format!("| {} | {meaning} |", code.code()));
    }
    page
}

/// Every mapping of `x-bulsa`, and its keys.
const LEVELS: &[(&str, &str, Keys)] = &[
    ("Bulsa, for the project", "x-bulsa", keys::BULSA_TOP),
    ("Keep", "x-bulsa.keep", keys::BULSA_KEEP),
    ("Limits", "x-bulsa.limits", keys::BULSA_LIMITS),
    ("Bulsa, for a service", "services.*.x-bulsa", keys::BULSA),
    ("Route", "services.*.x-bulsa.route", keys::BULSA_ROUTE),
    ("Redirect, long form", "services.*.x-bulsa.route.redirect", keys::BULSA_REDIRECT),
    ("Probe", "services.*.x-bulsa.probe", keys::BULSA_PROBE),
    ("Gate", "services.*.x-bulsa.gate", keys::BULSA_GATE),
    ("Balance", "services.*.x-bulsa.balance", keys::BULSA_BALANCE),
    ("Drain", "services.*.x-bulsa.drain", keys::BULSA_DRAIN),
    ("Hold", "services.*.x-bulsa.hold", keys::BULSA_HOLD),
    ("Timeouts", "services.*.x-bulsa.timeouts", keys::BULSA_TIMEOUTS),
    ("Bake", "services.*.x-bulsa.bake", keys::BULSA_BAKE),
    ("Drill", "services.*.x-bulsa.drill", keys::BULSA_DRILL),
    ("The app's own port, long form", "services.*.x-bulsa.app_port", keys::BULSA_APP_PORT),
];

fn compose_support() -> String {
    let mut page = format!(
        "{MADE}\n# Which keys of a compose file work\n\n\
         No key is ignored silently. A key that is valid but doesn't work yet is an error that names it and its\n\
         line; a key that isn't known at all is one too, with the nearest name. A key that works may still refuse a\n\
         value; the error then says which.\n\n\
         A service with `image` or `build` runs in containers, any other directly on this host, on the process\n\
         engine. `x-` keys of your own are allowed wherever Compose allows them, and mean nothing to Bulsa.\n"
    );
    for object in keys::matrix() {
        let place = if object.place.is_empty() { String::new() } else { format!(" (`{}`)", object.place) };
        line(
            &mut page,
            &format!("\n## {}{place}\n\n| key | containers | process engine |\n|---|---|---|", object.title),
        );
        for field in object.fields {
            let (docker, process) = match field.support {
                Support::Both => ("yes", "yes".to_owned()),
                Support::Docker => ("yes", "no".to_owned()),
                Support::Needless => ("yes", "no effect, and `up --watch` and `check` say so".to_owned()),
                Support::Noted => ("no effect, and the plan says so", "no".to_owned()),
                Support::Refused(why) => ("no", format!("no: it {}", why.reason())),
            };
            line(&mut page, &format!("| `{}` | {docker} | {process} |", field.key));
        }
    }
    for (title, path, keys) in LEVELS {
        let place = if path.is_empty() { String::new() } else { format!(" (`{path}`)") };
        line(&mut page, &format!("\n## {title}{place}\n"));
        let known: Vec<String> = keys.known.iter().map(|key| format!("`{key}`")).collect();
        line(&mut page, &format!("Works: {}.", known.join(", ")));
        if keys.extensions {
            line(&mut page, "\nOther keys that begin with `x-` are allowed and mean nothing to Bulsa.");
        }
        for (why, names) in not_yet(keys) {
            line(&mut page, &format!("\nNot yet ({}): {}.", why, names.join(", ")));
        }
    }
    page
}

/// The keys that don't work yet, by reason, in the order in which the reasons come up.
fn not_yet(keys: &Keys) -> Vec<(&'static str, Vec<String>)> {
    let mut by_reason: Vec<(&'static str, Vec<String>)> = Vec::new();
    for (key, later) in keys.later {
        let name = format!("`{key}`");
        match by_reason.iter_mut().find(|(why, _)| *why == later.reason()) {
            Some((_, names)) => names.push(name),
            None => by_reason.push((later.reason(), vec![name])),
        }
    }
    by_reason
}

/// The help of the program and of each command.
fn cli(bulsa: &Path) -> Result<String, Trouble> {
    let help = |args: &[&str]| {
        let mut command = Command::new(bulsa);
        output_of(command.args(args).arg("--help").env_remove("COLUMNS").env_remove("BULSA_SOCKET"))
    };
    let all = help(&[])?;
    let names: Vec<&str> = all
        .lines()
        .skip_while(|text| *text != "Commands:")
        .skip(1)
        .take_while(|text| !text.is_empty())
        .filter_map(|text| text.split_whitespace().next())
        .collect();
    if names.is_empty() {
        return Err(Trouble::Other(
            "`bulsa --help` names no commands: docs.rs must learn its shape".to_owned(),
        ));
    }
    let mut page = format!("{MADE}\n# The command line\n\n```text\n{}\n```\n", all.trim_end());
    line(&mut page, "\nEvery command takes the global options too; they are left out below.");
    for name in names {
        let text = help(&[name])?;
        let own = text.split("\nGlobal options:").next().unwrap_or(&text);
        line(&mut page, &format!("\n## `bulsa {name}`\n\n```text\n{}\n```", own.trim_end()));
    }
    Ok(page)
}

fn line(page: &mut String, text: &str) {
    // Writing to a String can't fail.
    writeln!(page, "{text}").ok();
}
