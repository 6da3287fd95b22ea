//! A Docker Engine, seen through its command line: the machine's own, or one that a test has for itself.

use std::{
    env,
    path::PathBuf,
    process::{Command, Stdio},
};

use crate::support::{own_engine::OwnEngine, parts, ran::Ran};

/// Which Engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Generation {
    /// The one that this machine has.
    Installed,
    /// The newer one that `cargo xtask parts` has fetched.
    Next,
}

/// An Engine. Everything that is run with it goes through [`Engine::command`]: so it is where the Engine is.
#[derive(Debug)]
pub(crate) struct Engine {
    host: String,
    own: Option<OwnEngine>,
}

impl Engine {
    /// The machine's Engine for the installed generation, one of our own for the next one. `None` where there is none,
    /// which is said.
    pub(crate) fn of(generation: Generation) -> Option<Self> {
        match generation {
            Generation::Installed => Self::machine(),
            Generation::Next => Self::own(generation, false),
        }
    }

    /// The Engine that this machine runs, where `DOCKER_HOST` or its usual socket leads to.
    fn machine() -> Option<Self> {
        let host = env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned());
        let this = Self { host, own: None };
        match this.try_docker(&["version", "--format", "{{.Server.Version}}"]) {
            Ok(_) => Some(this),
            Err(said) => {
                eprintln!("skipped: no Docker Engine answers at {}: {said}", this.host);
                None
            }
        }
    }

    /// An Engine of the test's own, which it may restart, kill and prune.
    pub(crate) fn own(generation: Generation, live_restore: bool) -> Option<Self> {
        let own = OwnEngine::start(generation, live_restore)?;
        Some(Self { host: own.host(), own: Some(own) })
    }

    /// The daemon behind it, where it is the test's own.
    pub(crate) fn daemon(&self) -> &OwnEngine {
        self.own.as_ref().expect("an Engine of the test's own")
    }

    /// Where its containers' addresses and published ports are to be reached; `None`: on the machine itself.
    pub(crate) fn namespace(&self) -> Option<PathBuf> {
        self.own.as_ref().map(OwnEngine::namespace)
    }

    /// A program that is to use this Engine, in the Engine's network.
    pub(crate) fn command(&self, program: impl Into<PathBuf>) -> Command {
        let mut command = match self.namespace() {
            Some(path) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={}", path.display())).arg("--").arg(program.into());
                command
            }
            None => Command::new(program.into()),
        };
        command.env("DOCKER_HOST", &self.host).env("DOCKER_BUILDKIT", "0").env("PATH", search_path());
        command.stdin(Stdio::null());
        command
    }

    /// `docker …` to its end.
    #[track_caller]
    pub(crate) fn run(&self, words: &[&str]) -> Ran {
        // Its own command line speaks to it from anywhere; and it needs the builder that every Engine has.
        Ran::of(
            Command::new("docker")
                .args(words)
                .env("DOCKER_HOST", &self.host)
                .env("DOCKER_BUILDKIT", "0")
                .stdin(Stdio::null()),
        )
    }

    /// What `docker …` writes; its complaint where it fails.
    pub(crate) fn try_docker(&self, words: &[&str]) -> Result<String, String> {
        let ran = self.run(words);
        match ran.code {
            Some(0) => Ok(ran.out.trim().to_owned()),
            _ => Err(ran.err),
        }
    }

    /// The same, where it can't fail.
    #[track_caller]
    pub(crate) fn docker(&self, words: &[&str]) -> String {
        self.run(words).exits(0).out.trim().to_owned()
    }

    /// Ids or names, one a line, as a list.
    #[track_caller]
    pub(crate) fn list(&self, words: &[&str]) -> Vec<String> {
        self.docker(words).lines().map(str::to_owned).collect()
    }

    /// One value of a container or another object, as a Go template gives it.
    #[track_caller]
    pub(crate) fn inspect(&self, object: &str, template: &str) -> String {
        self.docker(&["inspect", "--format", template, object])
    }

    /// A further image: another one with further lines of a Dockerfile, as a new version of an app is.
    #[track_caller]
    pub(crate) fn tag(&self, name: &str, from: &str, lines: &[&str]) {
        let directory = tempfile::tempdir().unwrap();
        let text = format!("FROM {from}\nLABEL bulsa.test=1\n{}\n", lines.join("\n"));
        std::fs::write(directory.path().join("Dockerfile"), text).unwrap();
        self.docker(&["build", "--quiet", "--tag", name, directory.path().to_str().unwrap()]);
    }

    /// The ids of a project's containers that have all of these labels (`name=value`).
    #[track_caller]
    pub(crate) fn containers(&self, labels: &[&str]) -> Vec<String> {
        let filters: Vec<_> = labels.iter().map(|label| format!("label={label}")).collect();
        let mut words = vec!["ps", "--all", "--quiet", "--no-trunc"];
        words.extend(filters.iter().flat_map(|filter| ["--filter", filter.as_str()]));
        self.list(&words)
    }

    /// Removes images of a repository but for the newest ones; one that is in use stays.
    pub(crate) fn forget_images(&self, repository: &str, keep: usize) {
        let words = ["images", "--format", "{{.Repository}}:{{.Tag}}", repository];
        for name in self.try_docker(&words).unwrap_or_default().lines().skip(keep) {
            // Another test may be using it, or have removed it.
            self.try_docker(&["rmi", name]).ok();
        }
    }

    /// Removes all that the Engine has of a Compose project.
    pub(crate) fn remove_project(&self, project: &str) {
        let filter = format!("label=com.docker.compose.project={project}");
        let remove_by = |filter: &str, list: &[&str], remove: &[&str]| {
            let Ok(found) = self.try_docker(&[list, &["--quiet", "--filter", filter]].concat()) else {
                return;
            };
            let found: Vec<_> = found.lines().collect();
            if !found.is_empty() {
                self.try_docker(&[remove, found.as_slice()].concat()).ok();
            }
        };
        let remove = |list: &[&str], words: &[&str]| remove_by(&filter, list, words);
        // Anchors are none of Compose's business, and hold on to the networks.
        let anchors = format!("label=bulsa.project={project}");
        remove_by(&anchors, &["ps", "--all"], &["rm", "--force", "--volumes"]);
        remove(&["ps", "--all"], &["rm", "--force", "--volumes"]);
        remove(&["network", "ls"], &["network", "rm"]);
        remove(&["volume", "ls"], &["volume", "rm", "--force"]);
    }
}

/// Where programs are looked for: the system's own first, before anybody's wrappers of them.
pub(crate) fn search_path() -> String {
    format!("/usr/sbin:/usr/bin:/sbin:/bin:{}", env::var("PATH").unwrap_or_default())
}

/// The programs of a generation, before those of the system.
pub(crate) fn programs_of(generation: Generation) -> String {
    match generation {
        Generation::Installed => search_path(),
        Generation::Next => format!("{}:{}", parts::next_programs().display(), search_path()),
    }
}
