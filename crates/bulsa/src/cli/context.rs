//! What every command works with.

use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    time::Duration,
};

use bulsa_core::wire::api::{Answer, Snapshot};
use tokio::time::Instant;

use super::{
    args::{FileArgs, Global},
    init,
    which::{self, Purpose},
};
use crate::{
    client::{Client, ClientError},
    keeper::KEEPER_LOCK,
    link::lock::living_holder,
    output::Printer,
    paths::{First, Given, Paths, Surroundings},
    report::{CommandError, ErrorKind, ExitCode},
};

/// How long a command waits for the next agent of a daemon whose keeper lives.
const NEXT_AGENT_WAIT: Duration = Duration::from_secs(3);
/// How often it looks meanwhile.
const NEXT_AGENT_POLL: Duration = Duration::from_millis(10);

/// The surroundings of one command.
pub(super) struct Context<'a> {
    /// Where to print.
    pub(super) printer: &'a mut Printer,
    /// Where the daemon is.
    pub(super) paths: Paths,
    /// `-p`, or `COMPOSE_PROJECT_NAME`.
    pub(super) project: Option<String>,
    /// File flags that stood before the command's name.
    pub(super) files: FileArgs,
    /// The environment; what isn't UTF-8 is left out.
    pub(super) env: BTreeMap<String, String>,
    /// The working directory.
    pub(super) directory: PathBuf,
}

impl<'a> Context<'a> {
    /// From the process's own environment and directory.
    pub(super) fn new(
        global: Global,
        files: FileArgs,
        printer: &'a mut Printer,
    ) -> Result<Self, CommandError> {
        let env =
            std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        let directory = std::env::current_dir().map_err(|error| {
            CommandError::user("can't find the working directory").cause(error).hint("go to one that exists")
        })?;
        Self::from_parts(global, files, printer, (env.collect(), directory), init::first().as_ref())
    }

    /// From an environment and directory that are given.
    pub(super) fn from_parts(
        global: Global,
        files: FileArgs,
        printer: &'a mut Printer,
        (env, directory): (BTreeMap<String, String>, PathBuf),
        first: Option<&First>,
    ) -> Result<Self, CommandError> {
        let around = Surroundings {
            first,
            root: rustix::process::geteuid().is_root(),
            directory: &directory,
            variable: &|name| env.get(name).cloned(),
        };
        let paths = Paths::resolve(&Given { state_dir: global.state_dir, socket: global.socket }, &around)?;
        let from_env = || env.get("COMPOSE_PROJECT_NAME").filter(|name| !name.is_empty()).cloned();
        let project = global.project.or_else(from_env);
        Ok(Self { printer, paths, project, files, env, directory })
    }

    /// The daemon. One whose agent is just being replaced is waited for: its keeper lives, and so do its services.
    pub(super) async fn client(&self) -> Result<Client, CommandError> {
        let until = Instant::now() + NEXT_AGENT_WAIT;
        loop {
            match Client::find(&self.paths.sockets).await {
                Err(ClientError::NoDaemon { .. }) if self.keeper_lives() && Instant::now() < until => {
                    tokio::time::sleep(NEXT_AGENT_POLL).await;
                }
                found => return Ok(found?),
            }
        }
    }

    fn keeper_lives(&self) -> bool {
        living_holder(&self.paths.state_dir.join(KEEPER_LOCK)).is_some()
    }

    /// The project that a command means which deploys none.
    pub(super) fn which_project(
        &self,
        snapshot: &Snapshot,
        purpose: Purpose,
    ) -> Result<String, CommandError> {
        which::project(self, snapshot, purpose)
    }

    /// Shows an answer that starts nothing to wait for; the exit code with it.
    pub(super) fn answer(&mut self, answer: Answer) -> Result<ExitCode, CommandError> {
        let text = match accepted(answer)? {
            Accepted::Begun { text, .. } | Accepted::Already { text, .. } => text,
        };
        self.say(&text)?;
        Ok(ExitCode::Done)
    }

    /// What a command did, for people; as JSON an object with one text.
    pub(super) fn say(&mut self, text: &str) -> Result<(), CommandError> {
        if self.printer.json() {
            return self.printer.object(&serde_json::json!({ "text": text }));
        }
        self.printer.remark(text)
    }
}

/// An answer that isn't a refusal. `notes` are what one should know of how a deploy was prepared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Accepted {
    Begun { deploy: Option<u32>, text: String, notes: Vec<String> },
    Already { text: String, notes: Vec<String> },
}

impl Accepted {
    /// The same without notes that were `shown` already, each behind the service that it is about.
    pub(super) fn without(mut self, shown: &VecDeque<String>) -> Self {
        let (Self::Begun { notes, .. } | Self::Already { notes, .. }) = &mut self;
        notes.retain(|note| !shown.iter().any(|line| line.ends_with(note.as_str())));
        self
    }
}

/// Turns denials and refusals into errors with their exit codes.
pub(super) fn accepted(answer: Answer) -> Result<Accepted, CommandError> {
    match answer {
        Answer::Accepted { deploy, text, notes } => Ok(Accepted::Begun { deploy, text, notes }),
        Answer::AlreadySo { text, notes } => Ok(Accepted::Already { text, notes }),
        Answer::Plan(_) | Answer::Drills(_) | Answer::Drilling { .. } => {
            Err(CommandError::bug("the daemon sent an answer that nobody asked for"))
        }
        Answer::Denied { reason, who, since_ms } => {
            let mut error = CommandError::new(ErrorKind::Denied, reason);
            if let Some(who) = who {
                let since =
                    since_ms.map(|at| format!(", since {}", crate::output::Clock::local().local_time(at)));
                error = error.cause(format!("{who} is running{}", since.unwrap_or_default()));
            }
            Err(error.hint("wait for it with `bulsa wait`, then try again"))
        }
        Answer::Failed { errors, serving } => {
            let kind = if serving { ErrorKind::DeployFailed } else { ErrorKind::ServiceDown };
            let error = said(kind, errors);
            Err(if serving { error.hint("the release before it serves all traffic") } else { error })
        }
        Answer::Refused { errors } => Err(said(ErrorKind::User, errors)),
    }
}

/// The daemon's sentences as one error.
fn said(kind: ErrorKind, errors: Vec<String>) -> CommandError {
    let mut errors = errors.into_iter();
    let first = errors.next().unwrap_or_else(|| "the daemon refused, and did not say why".to_owned());
    errors.fold(CommandError::new(kind, first), CommandError::cause)
}
