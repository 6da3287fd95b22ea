//! Starting a daemon where none runs.
//!
//! Owns: the daemon's log file, its first moments, and what to say when it dies in them. Never: starts a second daemon
//! beside one that answers, or beside root's that doesn't let us in.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use tokio::{
    process::Command,
    time::{Instant, sleep},
};

use super::context::Context;
use crate::{
    client::{Client, ClientError},
    daemon_log,
    keeper::{ATTENDANT_ROLE, ROLE_ENV},
    report::{CommandError, ErrorKind},
};

/// How long a new daemon may take to answer.
const START_MAX: Duration = Duration::from_secs(15);
/// How often a new daemon is asked whether it answers: its socket has no better signal than letting us in.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// At most this much of the log is shown when it dies, in bytes.
const LOG_SHOWN_MAX_BYTES: u64 = 4096;

/// A daemon that answers.
pub(super) struct Reached {
    pub(super) client: Client,
    /// Whether we started it.
    pub(super) started: bool,
    /// Whether it is a container's first process, started for this command: it ends when the command does, and says
    /// when.
    pub(super) init: bool,
}

/// The daemon that runs, or else one that we start.
pub(super) async fn reach_or_start(context: &mut Context<'_>) -> Result<Reached, CommandError> {
    if context.env.get(ROLE_ENV).is_some_and(|role| role == ATTENDANT_ROLE) {
        return attended(context).await;
    }
    match Client::find(&context.paths.sockets).await {
        Ok(client) => return Ok(Reached { client, started: false, init: false }),
        Err(ClientError::NoDaemon { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let client = start(&context.paths.state_dir, context.paths.own_socket()).await?;
    context.printer.remark("started the daemon")?;
    Ok(Reached { client, started: true, init: false })
}

/// The daemon that is our parent, a container's first process. It started its agent when it started us.
async fn attended(context: &Context<'_>) -> Result<Reached, CommandError> {
    let log = context.paths.state_dir.join(daemon_log::NAME);
    // An earlier life of the container may have left one.
    let written_before = log.metadata().map_or(0, |metadata| metadata.len());
    let client = answers(std::future::pending(), context.paths.own_socket()).await;
    let client = client.map_err(|error| with_log(error, &context.paths.state_dir, written_before))?;
    Ok(Reached { client, started: false, init: true })
}

async fn start(state_dir: &Path, socket: &Path) -> Result<Client, CommandError> {
    let (log, written_before) = open_log(state_dir)?;
    let errors = log.try_clone().map_err(|error| log_trouble(state_dir, error))?;
    let mut child = Command::new("/proc/self/exe")
        .arg("serve")
        .arg("--background")
        .arg("--state-dir")
        .arg(state_dir)
        .arg("--socket")
        .arg(socket)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::from(log))
        .stderr(Stdio::from(errors))
        .kill_on_drop(false)
        .spawn()
        .map_err(|error| CommandError::user("can't start the daemon").cause(error))?;
    let client = answers(child.wait(), socket).await;
    client.map_err(|error| with_log(error, state_dir, written_before))
}

/// Waits until it answers a real question, or dies, or takes too long.
async fn answers(
    end: impl Future<Output = io::Result<ExitStatus>>,
    socket: &Path,
) -> Result<Client, CommandError> {
    let mut end = std::pin::pin!(end);
    let deadline = Instant::now() + START_MAX;
    let sockets = [socket.to_path_buf()];
    loop {
        if let Ok(client) = Client::find(&sockets).await
            && client.snapshot().await.is_ok()
        {
            return Ok(client);
        }
        tokio::select! {
            status = &mut end => {
                let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
                let text = format!("the daemon ended before it answered ({status})");
                return Err(CommandError::new(ErrorKind::Unreachable, text));
            }
            () = sleep(LOOK_EVERY) => {}
        }
        if Instant::now() >= deadline {
            let text = format!("the daemon did not answer within {} s", START_MAX.as_secs());
            return Err(CommandError::new(ErrorKind::Unreachable, text)
                .hint("it is still running: `bulsa status` says when it answers"));
        }
    }
}

/// Opens the log for appending; its length is where this daemon's words begin.
fn open_log(state_dir: &Path) -> Result<(File, u64), CommandError> {
    daemon_log::open(state_dir).map_err(|error| log_trouble(state_dir, error))
}

fn log_trouble(state_dir: &Path, error: io::Error) -> CommandError {
    CommandError::user(format!("can't write to the state directory {}", state_dir.display()))
        .cause(error)
        .hint("name another with `--state-dir DIR`, or make this one writable")
}

/// Adds what the daemon said itself.
fn with_log(error: CommandError, state_dir: &Path, from: u64) -> CommandError {
    let path = state_dir.join(daemon_log::NAME);
    let error = match said(&path, from) {
        Ok(text) => text.lines().filter(|line| !line.trim().is_empty()).fold(error, own_words),
        Err(trouble) => error.cause(format!("its log can't be read: {trouble}")),
    };
    error.hint(format!("its log is {}", path.display()))
}

/// A line of the daemon's log: its own hints stay hints.
fn own_words(error: CommandError, line: &str) -> CommandError {
    match line.strip_prefix("hint: ") {
        Some(hint) => error.hint(hint),
        None => error
            .cause(line.strip_prefix("error: ").or_else(|| line.strip_prefix("caused by: ")).unwrap_or(line)),
    }
}

/// The end of what was written to the log since `from`.
fn said(path: &Path, from: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(from.max(length.saturating_sub(LOG_SHOWN_MAX_BYTES))))?;
    let mut bytes = Vec::new();
    file.take(LOG_SHOWN_MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_daemon_that_died_speaks_for_itself_and_only_for_this_time() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(daemon_log::NAME), "error: long ago\n").unwrap();
        let (mut log, before) = open_log(dir.path()).unwrap();
        io::Write::write_all(&mut log, b"error: port 8080 is taken\nhint: stop it\n").unwrap();
        let error = with_log(CommandError::new(ErrorKind::Unreachable, "died"), dir.path(), before);
        assert_eq!(error.causes, ["port 8080 is taken"]);
        assert_eq!(error.hints[0], "stop it");
    }

    #[tokio::test]
    async fn a_daemon_that_ends_before_it_answers_is_noticed_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new("/bin/sh").args(["-c", "exit 3"]).spawn().unwrap();
        let error = answers(child.wait(), &dir.path().join("api.sock")).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unreachable);
        assert!(error.message.contains("exit status: 3"), "{error:?}");
    }

    #[test]
    fn a_state_directory_that_cannot_be_written_is_one_sentence_and_a_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let error = open_log(&file.join("state")).unwrap_err();
        assert!(
            error.message.contains("state directory") && error.hints[0].contains("--state-dir"),
            "{error:?}"
        );
    }
}
