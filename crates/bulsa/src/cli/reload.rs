//! Replacing workers because files changed, while their output is shown.
//!
//! Owns: `--watch`'s loop: a change, a deploy of the same command, and one line on what came of it. Never: takes the
//! workers before away. That is the deploy's own affair: new ones that don't get ready are given up, and the old ones stay.

use std::{convert::Infallible, path::PathBuf, time::Duration};

use bulsa_core::wire::api::ProgressKind;
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};

use super::{
    attend::Said,
    context::Accepted,
    deploy::{self, Wanted},
    develop::{Develop, On},
    follow,
    watch::{self, Watch},
};
use crate::{
    client::Client,
    report::{CommandError, ErrorKind, ExitCode},
};

/// How long a deploy that runs already, such as the first one, is waited for before one for a change is asked for.
const OTHER_MAX: Duration = Duration::from_secs(600);

/// What follows a change.
pub(super) enum Follows {
    /// A deploy of the same command.
    Again(Again),
    /// What the file says.
    Develop(Box<Develop>),
}

/// What is deployed at each change.
pub(super) type Again = Box<dyn Fn() -> Result<Wanted, CommandError>>;

/// Files that are watched, and what is deployed when they change.
pub(super) struct Reload {
    pub(super) watch: Watch,
    /// From where changed files are named.
    pub(super) directory: PathBuf,
    pub(super) follows: Follows,
}

impl Reload {
    /// Never ends but when the files can't be looked at any more.
    pub(super) async fn run(
        mut self,
        client: &Client,
        project: &str,
        say: &mpsc::Sender<Said>,
    ) -> Result<Infallible, CommandError> {
        let on = On { client, project, say };
        match self.follows {
            Follows::Again(again) => loop {
                let changed = self.watch.changed().await?;
                // A program isn't made of empty directories.
                if !changed.files.is_empty() {
                    reload(&again, &watch::in_words(&changed, &self.directory), &on).await;
                }
            },
            Follows::Develop(develop) => {
                let opened = Notify::new();
                let changes = async {
                    // Whatever a change starts anew is to have the files.
                    opened.notified().await;
                    loop {
                        let changed = self.watch.changed().await?;
                        develop.act(&changed, &watch::in_words(&changed, &self.directory), &on).await;
                    }
                };
                tokio::select! {
                    failed = changes => failed,
                    failed = develop.attend_starts(&on, &opened) => failed,
                }
            }
        }
    }
}

/// Deploys after a change, and tells what came of it.
async fn reload(again: &Again, words: &str, on: &On<'_>) {
    let On { client, project, say } = on;
    tell(say, format!("{words} changed: reloading")).await;
    let begun = Instant::now();
    let line = match once(again, client, project, say).await {
        Ok(ExitCode::Done) => {
            format!("reloaded after {words} changed, in {:.1} s", begun.elapsed().as_secs_f64())
        }
        Ok(_) => format!("not reloaded after {words} changed: the workers before go on"),
        Err(error) => format!("not reloaded after {words} changed: {}", error.message),
    };
    tell(say, line).await;
}

/// Deploys once nobody else does.
async fn once(
    again: &Again,
    client: &Client,
    project: &str,
    say: &mpsc::Sender<Said>,
) -> Result<ExitCode, CommandError> {
    loop {
        let idle = follow::until(client, OTHER_MAX, |snapshot| {
            let project = snapshot.project(project);
            project.is_none_or(|project| project.deploying().is_none()).then_some(())
        });
        if idle.await?.is_none() {
            return Err(CommandError::new(ErrorKind::Denied, "another deploy runs and runs"));
        }
        match deploy::ask(client, again()?).await {
            Ok(Accepted::Begun { deploy: Some(id), .. }) => {
                return followed(client, project, id, say).await;
            }
            Ok(_) => return Ok(ExitCode::Done),
            // Somebody else was quicker.
            Err(error) if error.kind == ErrorKind::Denied => {}
            Err(error) => return Err(error),
        }
    }
}

/// Tells a deployment's progress to its end; the exit code that it gives.
async fn followed(
    client: &Client,
    project: &str,
    id: u32,
    say: &mpsc::Sender<Said>,
) -> Result<ExitCode, CommandError> {
    let mut shown = 0;
    loop {
        let ended = async {
            let mut stream = client.progress(project, id, shown).await?;
            while let Some(line) = stream.next().await? {
                shown = line.n;
                if line.kind == ProgressKind::Done {
                    return Ok(Some(ExitCode::of_deploy(line.exit_code.unwrap_or(0))));
                }
                tell(say, line.text).await;
            }
            Ok::<_, crate::client::ClientError>(None)
        };
        match ended.await {
            Ok(Some(code)) => return Ok(code),
            Err(error) if !error.may_pass() => return Err(error.into()),
            Ok(None) | Err(_) => drop(follow::back(client).await?),
        }
    }
}

pub(super) async fn tell(say: &mpsc::Sender<Said>, text: String) {
    // Whoever shows it ends together with this.
    drop(say.send(Said::Remark(text)).await);
}
