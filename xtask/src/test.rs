//! `cargo xtask test`: everything that the tests need, then the tests.
//!
//! Owns: the list of what the tests use of this machine. Never: installs what is there already, or gives up because
//! something can't be installed: the tests that need it say so themselves.

use std::{path::Path, process::Command};

use crate::{
    engine::Engine,
    parts,
    run::{Trouble, cargo, is_program, run, say, succeeds},
};

/// How it is seen that a package is there, however it came here.
#[derive(Clone, Copy, Debug)]
enum Sign {
    /// A program in `PATH`.
    Program(&'static str),
    /// A file.
    File(&'static str),
}

/// The Debian packages that the tests use.
const PACKAGES: &[(&str, Sign, &str)] = &[
    ("python3", Sign::Program("python3"), "small web apps as replicas"),
    ("nodejs", Sign::Program("node"), "the cluster programs of the posts that Bulsa began with"),
    ("node-express", Sign::File("/usr/share/nodejs/express/package.json"), "a real Express app as replicas"),
    ("apache2-utils", Sign::Program("htpasswd"), "registries that want a login"),
    ("busybox-static", Sign::File("/bin/busybox"), "images that need nothing from outside"),
    ("docker-registry", Sign::Program("docker-registry"), "a registry to pull from"),
    ("iproute2", Sign::Program("ip"), "network namespaces, as root"),
    ("procps", Sign::Program("ps"), "looking at processes"),
    ("docker.io", Sign::Program("dockerd"), "the Docker Engine"),
    (
        "docker-compose",
        Sign::File("/usr/bin/docker-compose"),
        "Docker Compose 1.29, as a user of it would be",
    ),
    ("iptables", Sign::Program("iptables"), "networks of the Docker Engine"),
    ("binutils", Sign::Program("strip"), "small images of our own program"),
    ("curl", Sign::Program("curl"), "health checks of compose files"),
    ("g++", Sign::Program("c++"), "building the fuzzer (`cargo xtask fuzz`)"),
];

/// Installs what is missing, then runs the documentation's tests and all others. The runner's summary comes last.
pub(crate) fn run_all(args: &[&str]) -> Result<(), Trouble> {
    packages();
    parts::get()?;
    nextest()?;
    let _engine = Engine::where_none_runs();
    let documentation = run(cargo().args(["test", "--quiet", "--workspace", "--doc"]));
    let mut command = cargo();
    command.args(["nextest", "run", "--workspace"]);
    if std::env::var_os("CI").is_some_and(|ci| ci == "true") {
        command.args(["--profile", "ci"]);
    }
    run(command.args(args))?;
    documentation
}

fn packages() {
    let missing: Vec<_> = PACKAGES.iter().filter(|(_, sign, _)| !is_there(*sign)).collect();
    if missing.is_empty() {
        return;
    }
    let names: Vec<&str> = missing.iter().map(|(name, ..)| *name).collect();
    let install = || -> Result<(), Trouble> {
        let apt = |args: &[&str]| {
            let mut command = Command::new("apt-get");
            run(command.env("DEBIAN_FRONTEND", "noninteractive").args(args))
        };
        apt(&["update", "--quiet=2"])?;
        apt(&[&["install", "--yes", "--quiet=2", "--no-install-recommends"], names.as_slice()].concat())
    };
    let why = if !rustix::process::geteuid().is_root() {
        "only root can install them".to_owned()
    } else if !is_program("apt-get") {
        "there is no apt-get here".to_owned()
    } else {
        match install() {
            Ok(()) => return,
            Err(trouble) => trouble.to_string(),
        }
    };
    say(&format!("warning: the tests need programs that are missing here, and {why}; going on without:"));
    for (name, _, purpose) in missing {
        say(&format!("  {name} (Debian's name): {purpose}"));
    }
}

fn is_there(sign: Sign) -> bool {
    match sign {
        Sign::Program(name) => is_program(name),
        Sign::File(path) => Path::new(path).exists(),
    }
}

fn nextest() -> Result<(), Trouble> {
    if succeeds(cargo().args(["nextest", "--version"])) {
        return Ok(());
    }
    run(cargo().args(["install", "--locked", "cargo-nextest"]))
}
