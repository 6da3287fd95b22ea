//! Docker Compose of two generations, on a project of ours.

use std::path::PathBuf;

use crate::support::{parts, project::Project, ran::Ran};

/// A Docker Compose.
#[derive(Clone, Debug)]
pub(crate) struct Compose {
    program: PathBuf,
}

impl Compose {
    /// 1.29, the last one in Python, which Debian 12 has. `None` where it isn't, which is said.
    pub(crate) fn first() -> Option<Self> {
        parts::have(&["usr/bin/docker-compose"]).then(|| Self { program: "/usr/bin/docker-compose".into() })
    }

    /// 2.40 or what `cargo xtask parts` found newer.
    pub(crate) fn second() -> Option<Self> {
        let program = parts::next_programs().join("docker-compose");
        if !program.exists() {
            eprintln!("skipped: {} is missing (`cargo xtask parts` gets it)", program.display());
            return None;
        }
        Some(Self { program })
    }

    /// Runs it on the project's files, with the project's variables.
    #[track_caller]
    pub(crate) fn run(&self, project: &Project<'_>, words: &[&str]) -> Ran {
        let mut command = project.engine.command(&self.program);
        command.current_dir(project.directory()).envs(project.variables());
        command.args(["--project-name", project.name()]).args(words);
        Ran::of(&mut command)
    }
}
