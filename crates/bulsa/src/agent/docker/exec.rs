//! Running a program inside a container: probes and hooks.
//!
//! Owns: one run, its exit code and the beginning of its output; that a run which takes too long is ended. Never: says
//! what an outcome means for health. What could not run says nothing about the service, so it is told apart from what
//! ran and failed.

use std::time::Duration;

use bollard::{
    container::LogOutput,
    exec::{StartExecOptions, StartExecResults},
    models::ExecConfig,
};
use bulsa_core::spec::container::Hook;
use futures_util::StreamExt as _;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::{ANSWER_MAX, Docker, DockerError};

/// So much of the output is kept, in bytes; the rest is read and dropped.
pub(super) const OUTPUT_MAX: usize = 512;

/// The shell's and the runtime's codes for "may not be run" and "is not there".
const NOT_RUN_CODES: [i64; 2] = [126, 127];

/// How one run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecOutcome {
    /// It ran and ended.
    Exited {
        /// Its exit code.
        code: i64,
        /// At most 512 bytes of what it wrote.
        output: String,
    },
    /// It ran and did not end in time. It was killed, where this process may do that; else it was left behind.
    TimedOut {
        /// As above.
        output: String,
    },
    /// It did not run: no such program, a container that doesn't run, an Engine that doesn't answer.
    CouldNotRun {
        /// Why.
        reason: String,
    },
}

impl Docker {
    /// Runs `argv` in a container, with its own user, directory and environment.
    ///
    /// `["CMD-SHELL", …]` forms are the caller's to translate; what is passed here is the program and its arguments.
    /// `container` is the full id: a run that takes too long is only ended in that container's control group.
    pub async fn exec(&self, container: &str, argv: &[String], timeout: Duration) -> ExecOutcome {
        self.exec_as(container, argv, timeout, None).await
    }

    pub(super) async fn exec_as(
        &self,
        container: &str,
        argv: &[String],
        timeout: Duration,
        hook: Option<&Hook>,
    ) -> ExecOutcome {
        let config = ExecConfig {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(argv.to_vec()),
            user: hook.and_then(|hook| hook.user.clone()),
            privileged: hook.map(|hook| hook.privileged),
            working_dir: hook.and_then(|hook| hook.working_dir.clone()),
            env: hook
                .map(|hook| hook.environment.iter().map(|(name, value)| format!("{name}={value}")).collect()),
            ..ExecConfig::default()
        };
        let could_not = |error: DockerError| ExecOutcome::CouldNotRun { reason: error.to_string() };
        let work = self.client().create_exec(container, config);
        let id = match self.call("asked to run a program in a container", ANSWER_MAX, work).await {
            Ok(made) => made.id,
            Err(error) => return could_not(error),
        };
        let mut output = Vec::new();
        let ended = match tokio::time::timeout(timeout, self.run(&id, &mut output)).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => return could_not(error),
            Err(_) => false,
        };
        let output = String::from_utf8_lossy(&output).trim_end().to_owned();
        let work = self.client().inspect_exec(&id);
        let seen = self.call("asked how a program ended", ANSWER_MAX, work).await;
        match seen {
            Ok(seen) if !ended && seen.running.unwrap_or_default() => {
                kill(seen.pid, container);
                ExecOutcome::TimedOut { output }
            }
            Ok(seen) => judge(seen.exit_code, output),
            Err(error) => could_not(error),
        }
    }

    /// Starts it and reads its output until its end.
    async fn run(&self, id: &str, output: &mut Vec<u8>) -> Result<(), DockerError> {
        let options = StartExecOptions { detach: false, tty: false, output_capacity: None };
        let work = self.client().start_exec(id, Some(options));
        let started = self.call("asked to start a program in a container", ANSWER_MAX, work).await?;
        let StartExecResults::Attached { output: mut stream, input: _input } = started else {
            return Ok(());
        };
        while let Some(chunk) = stream.next().await {
            let chunk: LogOutput =
                chunk.map_err(|error| DockerError::of("running a program", &self.inner.socket, error))?;
            let room = OUTPUT_MAX - output.len();
            output.extend(chunk.as_ref().iter().take(room));
        }
        Ok(())
    }
}

fn judge(code: Option<i64>, output: String) -> ExecOutcome {
    match code {
        Some(code) if NOT_RUN_CODES.contains(&code) => {
            let said = if output.is_empty() { "nothing was said".to_owned() } else { output };
            ExecOutcome::CouldNotRun { reason: format!("exit code {code}: {said}") }
        }
        Some(code) => ExecOutcome::Exited { code, output },
        None => ExecOutcome::CouldNotRun { reason: "the Engine doesn't know how it ended".to_owned() },
    }
}

/// Ends a run that takes too long: the Engine has no call for it, and a probe every two seconds that hangs would fill
/// the container with processes. Where the process can't be seen (another name space, another user) it is left.
fn kill(pid: Option<i64>, container: &str) {
    let Some(raw) = pid.and_then(|pid| i32::try_from(pid).ok()) else { return };
    let Some(pid) = Pid::from_raw(raw) else { return };
    // The descriptor is opened first: once its control group is known to be the container's, it can't be another's.
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return };
    let groups = std::fs::read_to_string(format!("/proc/{raw}/cgroup")).unwrap_or_default();
    if !groups.contains(container) {
        tracing::debug!(
            container,
            pid = raw,
            "a run that takes too long can't be seen from here, and is left"
        );
        return;
    }
    if let Err(error) = pidfd_send_signal(&process, Signal::KILL) {
        tracing::debug!(container, pid = raw, %error, "a run that takes too long can't be killed, and is left");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_run_is_no_failure() {
        assert!(matches!(judge(Some(127), String::new()), ExecOutcome::CouldNotRun { .. }));
        assert!(matches!(judge(Some(126), "denied".to_owned()), ExecOutcome::CouldNotRun { .. }));
        assert!(matches!(judge(None, String::new()), ExecOutcome::CouldNotRun { .. }));
        assert_eq!(judge(Some(1), "no".to_owned()), ExecOutcome::Exited { code: 1, output: "no".to_owned() });
    }

    #[test]
    fn a_process_of_another_control_group_is_never_killed() {
        // Our own process is in no container of that name; had it been killed, this test would be gone.
        kill(Some(i64::from(std::process::id())), "0123456789abcdef-no-such-container");
    }
}
