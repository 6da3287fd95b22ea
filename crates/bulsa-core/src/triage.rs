//! Whether a check that failed says something about the service, or about itself.
//!
//! Owns: the reading of a check program's exit code and words. Never: runs it, or decides what follows: a check that is broken
//! never costs a service its life (ARCHITECTURE.md, invariant 9).
//!
//! Docker doesn't tell the two apart: a `curl` that left the image makes a service unhealthy that serves, and whoever restarts
//! what is unhealthy restarts it for ever. What it takes to know better is in the check's own words.

/// Exit codes of a shell (or `env`, `timeout`) that could not run what it was told to: not executable, not found.
const NOT_RUN: [i64; 2] = [126, 127];

/// What is wrong with a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// What it runs isn't there, or can't be run. The program's name, where that is said.
    NoProgram(Option<String>),
    /// It asks a name that can't be resolved.
    NoSuchHost,
    /// It asks `localhost`, was sent to `::1`, and nothing listens there. That is for somebody to find out who can ask the
    /// service over IPv4: one that is dead looks the same.
    Ipv6Localhost,
}

/// Reads how a check's program ended: `code` is its exit code, `output` what it wrote, `argv` what was run.
#[must_use]
pub fn broken(code: i64, output: &str, argv: &[String]) -> Option<Broken> {
    let missing = output.lines().find_map(missing_program);
    if NOT_RUN.contains(&code) {
        return Some(Broken::NoProgram(missing.map(str::to_owned)));
    }
    // `curl … || exit 1` hides the shell's 127, and its words don't.
    if let Some(program) = missing {
        return Some(Broken::NoProgram(Some(program.to_owned())));
    }
    let said = output.to_ascii_lowercase();
    let unresolved = [
        "could not resolve host",
        "bad address '",
        "unable to resolve host address",
        "temporary failure in name resolution",
        "name or service not known",
    ];
    if unresolved.iter().any(|words| said.contains(words)) {
        return Some(Broken::NoSuchHost);
    }
    let asks_localhost = argv.iter().any(|word| word.contains("localhost"));
    let was_refused = said.contains("refused") && (said.contains("::1]") || said.contains("(::1)"));
    (asks_localhost && was_refused).then_some(Broken::Ipv6Localhost)
}

/// The program that a shell, or the Engine, says it didn't find.
fn missing_program(line: &str) -> Option<&str> {
    if let Some((before, _)) = line.split_once(": executable file not found in $PATH") {
        let name = before.rsplit("exec: ").next()?.trim_matches(['"', '\\']);
        return Some(name.rsplit(' ').next().unwrap_or(name).trim_matches('"'));
    }
    let line = line.trim();
    let rest = line.strip_suffix(": not found").or_else(|| line.strip_suffix(": command not found"))?;
    let (shell, program) = rest.rsplit_once(": ")?;
    let shell = shell.split(':').next()?;
    let is_shell = ["sh", "ash", "dash", "bash", "busybox"].contains(&shell.rsplit('/').next()?);
    is_shell.then_some(program)
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoProgram(Some(program)) => {
                write!(f, "`{program}` isn't in the image: have the check run something that is, or give the service `x-bulsa.probe`")
            }
            Self::NoProgram(None) => {
                f.write_str("what it runs isn't in the image: have it run something that is, or give the service `x-bulsa.probe`")
            }
            Self::NoSuchHost => {
                f.write_str("it asks a name that can't be resolved: a check should ask its own service, at 127.0.0.1")
            }
            Self::Ipv6Localhost => {
                f.write_str("`localhost` is ::1 to it, and the service listens on IPv4 only: write 127.0.0.1")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(code: i64, output: &str, test: &str) -> Option<Broken> {
        broken(code, output, &["/bin/sh".to_owned(), "-c".to_owned(), test.to_owned()])
    }

    #[test]
    fn a_program_that_is_not_there_is_known_by_the_code_or_by_the_words() {
        let curl = Some(Broken::NoProgram(Some("curl".to_owned())));
        assert_eq!(read(127, "/bin/sh: curl: not found", "curl -f http://127.0.0.1/"), curl);
        assert_eq!(read(1, "sh: 1: curl: not found\n", "curl -f http://127.0.0.1/ || exit 1"), curl);
        assert_eq!(read(1, "bash: line 1: curl: command not found", "curl || exit 1"), curl);
        let engine = r#"OCI runtime exec failed: exec failed: unable to start container process: exec: "curl": executable file not found in $PATH: unknown"#;
        assert_eq!(read(126, engine, ""), curl);
        assert_eq!(read(126, "", "x"), Some(Broken::NoProgram(None)));
    }

    #[test]
    fn names_and_the_wrong_localhost_are_known() {
        for words in ["curl: (6) Could not resolve host: web", "wget: bad address 'web:80'"] {
            assert_eq!(read(6, words, "curl http://web/"), Some(Broken::NoSuchHost), "{words}");
        }
        let refused = "Connecting to localhost:3000 ([::1]:3000)\nwget: can't connect to remote host: Connection refused";
        assert_eq!(read(1, refused, "wget -q localhost:3000"), Some(Broken::Ipv6Localhost));
        assert_eq!(read(1, refused, "wget -q [::1]:3000"), None, "whoever writes ::1 means it");
    }

    #[test]
    fn an_app_that_says_not_found_is_not_a_broken_check() {
        for words in [
            "wget: server returned error: HTTP/1.1 404 Not Found",
            "table users: not found",
            "Error: module redis: not found",
            "curl: (7) Failed to connect to 127.0.0.1 port 3000: Connection refused",
            "curl: (22) The requested URL returned error: 503",
            "",
        ] {
            assert_eq!(read(1, words, "wget localhost"), None, "{words}");
        }
    }

    proptest! {
        #[test]
        fn no_words_panic(code in any::<i64>(), words in "[a-z:/\"'\\$\n ()\\[\\].]{0,80}|\\PC{0,40}") {
            let _read = broken(code, &words, std::slice::from_ref(&words));
        }
    }
}
