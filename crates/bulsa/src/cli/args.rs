//! Flags that more than one command has.

use std::path::PathBuf;

use clap::Args;

/// Flags of every command, before or after its name.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Global options")]
pub(super) struct Global {
    /// The project's name, instead of the one in the file or its directory's
    #[arg(short, long, alias = "project-name", value_name = "NAME", global = true)]
    pub(super) project: Option<String>,
    /// Where the daemon keeps its state [default: /var/lib/bulsa as root, else ~/.local/state/bulsa]
    #[arg(long, value_name = "DIR", global = true)]
    pub(super) state_dir: Option<PathBuf>,
    /// The daemon's socket [default: $BULSA_SOCKET, /run/bulsa/api.sock, then the user's own]
    #[arg(long, value_name = "PATH", global = true)]
    pub(super) socket: Option<PathBuf>,
    /// Print JSON: one object, or one a line
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Print data and errors only
    #[arg(long, global = true)]
    pub(super) quiet: bool,
    /// Print no colors (as with NO_COLOR)
    #[arg(long, global = true)]
    pub(super) no_color: bool,
}

/// Which files a project is read from. They may stand before the command's name too, as with `docker compose`.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct FileArgs {
    /// A compose file (can be repeated) [default: compose.yaml here or in a directory above]
    #[arg(short, long = "file", value_name = "FILE")]
    pub(super) files: Vec<PathBuf>,
    /// A file with variables for the compose file (can be repeated) [default: .env beside it]
    #[arg(long = "env-file", value_name = "FILE")]
    pub(super) env_files: Vec<PathBuf>,
    /// Switch on the services of a profile (can be repeated) [default: those in COMPOSE_PROFILES]
    #[arg(long = "profile", value_name = "NAME")]
    pub(super) profiles: Vec<String>,
    /// What relative paths are seen from [default: the directory of the first compose file]
    #[arg(long, value_name = "DIR")]
    pub(super) project_directory: Option<PathBuf>,
}

impl FileArgs {
    /// What stands behind the command's name wins over what stands before it.
    pub(super) fn over(self, before: &Self) -> Self {
        Self {
            files: if self.files.is_empty() { before.files.clone() } else { self.files },
            env_files: if self.env_files.is_empty() { before.env_files.clone() } else { self.env_files },
            profiles: if self.profiles.is_empty() { before.profiles.clone() } else { self.profiles },
            project_directory: self.project_directory.or_else(|| before.project_directory.clone()),
        }
    }
}

/// `bulsa demo`
#[derive(Clone, Debug, Default, Args)]
pub struct DemoArgs {
    /// Leave everything running afterwards
    #[arg(long)]
    pub keep: bool,
    /// Shorter pauses and half the load
    #[arg(long, hide = true)]
    pub quick: bool,
}
