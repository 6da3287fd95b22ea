//! One run of a check's program.
//!
//! Owns: starting it with the replica's environment, directory, account and network, waiting for it, and ending it
//! with its process group: when its time is over, when nobody waits any more, and when it has left something running.
//! Never: feeds it input or keeps more of its output than evidence needs.
//!
//! Exit 126 and 127 mean by convention that a shell (or `env`, `timeout`, …) could not run what it was told to. A
//! check whose `curl` isn't installed must not kill a healthy service, so these are "could not run".

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::ExitStatusExt,
    },
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use bulsa_core::triage;
use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use tokio::{
    io::{AsyncReadExt, Interest, unix::AsyncFd},
    net::unix::pipe,
    process::{Child, Command},
    runtime::Handle,
    sync::oneshot,
    time::{Instant, timeout_at},
};

use super::{EVIDENCE_BYTES_MAX, ExecContext, ProbeResult};

/// How long a killed program may take to be gone.
pub(super) const KILL_WAIT: Duration = Duration::from_secs(1);

/// Output that is still unread when the program ends is read up to this many bytes.
const REST_BYTES_MAX: usize = 64 << 10;

/// Runs `argv` once; exit 0 passes.
pub(super) async fn run(
    argv: &[String],
    context: &ExecContext,
    started: Instant,
    timeout: Duration,
) -> ProbeResult {
    let Some(program) = argv.first() else { return ProbeResult::could_not_run("the check names no program") };
    let could_not =
        |what: &str, e: &io::Error| ProbeResult::could_not_run(format!("`{program}` can't be {what}: {e}"));
    let (mut child, mut output) = match start(argv, context).await {
        Ok(started) => started,
        Err(e) => return could_not("run", &e),
    };
    let mut group = Group::of(&child);
    let mut tail = Tail::default();
    let ended = match exit_of(&child) {
        Ok(exit) => Ok(timeout_at(started + timeout, watch(&exit, &mut output, &mut tail)).await),
        Err(e) => Err(e),
    };
    // Before it is reaped: as long as it isn't, its number can mean no other group.
    group.kill();
    let status = tokio::time::timeout(KILL_WAIT, child.wait()).await;
    match (ended, status) {
        (Err(e) | Ok(Ok(Err(e))), _) | (_, Ok(Err(e))) => could_not("waited for", &e),
        (Ok(Ok(Ok(()))), Ok(Ok(status))) => verdict(argv, status, started.elapsed(), &tail),
        (Ok(_), status) => {
            let after = if status.is_ok() { "was killed" } else { "doesn't die" };
            ProbeResult::fail(format!(
                "`{program}` was not done after {timeout:?} and {after}{}",
                tail.shown()
            ))
        }
    }
}

fn verdict(argv: &[String], status: ExitStatus, took: Duration, tail: &Tail) -> ProbeResult {
    let program = argv.first().map_or("", String::as_str);
    match (status.code(), status.signal()) {
        (Some(0), _) => ProbeResult::Pass { took },
        (Some(code), _) => {
            let said = format!("`{program}`: exit {code}{}", tail.shown());
            match triage::broken(code.into(), &String::from_utf8_lossy(&tail.0), argv) {
                // Nothing here has an address of its own to be asked at.
                None | Some(triage::Broken::Ipv6Localhost) => ProbeResult::fail(said),
                Some(broken) => ProbeResult::could_not_run(format!("{broken} ({said})")),
            }
        }
        (None, signal) => {
            ProbeResult::fail(format!("`{program}`: ended by signal {}{}", signal.unwrap_or(0), tail.shown()))
        }
    }
}

/// Starts the program; its output and errors come through one pipe, in their order.
async fn start(argv: &[String], context: &ExecContext) -> io::Result<(Child, pipe::Receiver)> {
    let (reader, writer) = io::pipe()?;
    let mut command = Command::new(argv.first().map_or("", String::as_str));
    command
        .args(argv.iter().skip(1))
        .env_clear()
        .envs(&context.environment)
        .current_dir(&context.working_dir)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .kill_on_drop(true);
    if let Some(account) = &context.account {
        command.uid(account.uid).gid(account.gid);
    }
    let child = match &context.namespace {
        None => command.spawn()?,
        Some(namespace) => spawn_inside(command, namespace).await?,
    };
    Ok((child, pipe::Receiver::from_owned_fd(OwnedFd::from(reader))?))
}

/// Starts the program from a thread that has moved into `namespace` and ends right after: a child inherits the
/// namespace of the thread that makes it, and no other thread is touched.
async fn spawn_inside(mut command: Command, namespace: &Path) -> io::Result<Child> {
    let namespace = File::open(namespace)?;
    let runtime = Handle::current();
    let (done, spawned) = oneshot::channel();
    std::thread::Builder::new().name("probe-spawn".to_owned()).spawn(move || {
        let _entered = runtime.enter();
        let inside = move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network));
        // Where nobody waits any more the child comes back in the error, and is killed as it is dropped.
        drop(done.send(inside.map_err(io::Error::from).and_then(|()| command.spawn())));
    })?;
    spawned.await.map_err(|_| io::Error::other("the thread that should have started it failed"))?
}

/// Becomes readable when the program ends, without reaping it.
#[expect(
    deprecated,
    reason = "its successor is unsafe for types whose descriptor may change; that of OwnedFd can't"
)]
fn exit_of(child: &Child) -> io::Result<AsyncFd<OwnedFd>> {
    let pid = pid_of(child).ok_or_else(|| io::Error::other("it has no number"))?;
    AsyncFd::with_interest(pidfd_open(pid, PidfdFlags::NONBLOCK)?, Interest::READABLE)
}

/// Reads the program's output until it ends. What it leaves running may keep the pipe open: that isn't waited for.
async fn watch(exit: &AsyncFd<OwnedFd>, output: &mut pipe::Receiver, tail: &mut Tail) -> io::Result<()> {
    let mut buffer = [0_u8; 4096];
    let mut open = true;
    loop {
        tokio::select! {
            biased;
            read = output.read(&mut buffer), if open => match read {
                Ok(0) | Err(_) => open = false,
                Ok(length) => tail.push(&buffer[..length]),
            },
            ended = exit.readable() => {
                ended?.retain_ready();
                let mut rest = 0;
                while rest < REST_BYTES_MAX && let Ok(length @ 1..) = output.try_read(&mut buffer) {
                    tail.push(&buffer[..length]);
                    rest += length;
                }
                return Ok(());
            }
        }
    }
}

fn pid_of(child: &Child) -> Option<Pid> {
    child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw)
}

/// The process group of a run: killed when the run is over, however it ends.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(pid_of(child))
    }

    fn kill(&mut self) {
        let Some(pid) = self.0.take() else { return };
        match kill_process_group(pid, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => tracing::warn!(%error, "the processes of a check can't be killed"),
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The last bytes of the output: errors come last.
#[derive(Default)]
struct Tail(Vec<u8>);

impl Tail {
    /// Less than [`EVIDENCE_BYTES_MAX`]: the sentence before it takes some too.
    const BYTES: usize = EVIDENCE_BYTES_MAX - 128;

    fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        let beyond = self.0.len().saturating_sub(Self::BYTES);
        self.0.drain(..beyond);
    }

    fn shown(&self) -> String {
        let text = String::from_utf8_lossy(&self.0);
        if text.trim().is_empty() { String::new() } else { format!(": {}", text.trim()) }
    }
}
