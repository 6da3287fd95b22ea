//! Running `ip` of iproute2.
//!
//! Owns: one bounded run and a clear error. Never: knows what a run is for.

use std::{
    io,
    process::{Output, Stdio},
    time::Duration,
};

use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

use super::{NEEDS_ROOT, NetnsError, problem};

/// The longest that one run may take; they take a few milliseconds.
const RUN_TIMEOUT: Duration = Duration::from_secs(5);

/// Where `ip` is looked for: a daemon's own search path often lacks the places of system programs.
const SEARCH_PATH: &str = "/usr/sbin:/sbin:/usr/bin:/bin";

/// Runs `ip` and returns what it printed.
pub(super) async fn ip(name: &str, arguments: &[&str], input: &str) -> Result<String, NetnsError> {
    let shown = if input.is_empty() { arguments.join(" ") } else { input.trim_end().replace('\n', "; ") };
    let fail = |text: String, hint| problem(name, format!("`ip {shown}` {text}"), hint);
    let output = match timeout(RUN_TIMEOUT, run(arguments, input)).await {
        Err(_) => return Err(fail(format!("gave no answer in {RUN_TIMEOUT:?}"), "try it by hand")),
        Ok(Err(e)) if e.kind() == io::ErrorKind::NotFound => {
            return Err(fail("can't be run: there is no `ip`".to_owned(), "install iproute2"));
        }
        Ok(Err(e)) => return Err(fail(format!("can't be run: {e}"), "try it by hand")),
        Ok(Ok(output)) => output,
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', ", ");
        return Err(fail(format!("failed: {said}"), NEEDS_ROOT));
    }
    String::from_utf8(output.stdout).map_err(|_| fail("printed what isn't text".to_owned(), "try it by hand"))
}

async fn run(arguments: &[&str], input: &str) -> io::Result<Output> {
    let mut child = Command::new("ip")
        .args(arguments)
        .env_clear()
        .env("PATH", SEARCH_PATH)
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(input.as_bytes()).await {
            // It has ended already; its own message says why.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {}
            other => other?,
        }
    }
    child.wait_with_output().await
}
