//! A Docker Engine for the time of the tests, on a machine that has one installed but none running, such as a
//! container of a CI.
//!
//! Owns: the `dockerd` that it started. Never: touches one that runs, or starts one where the tests are given another
//! by `DOCKER_HOST`.

use std::{
    fs::File,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::{
    parts::target_dir,
    run::{Trouble, is_program, say, succeeds},
};

/// How long an Engine may take to answer for the first time, and to end.
const LIMIT: Duration = Duration::from_secs(60);
/// How often it is looked whether it is so far.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// An Engine that is ours; ended when dropped.
#[derive(Debug)]
pub(crate) struct Engine(Child);

impl Engine {
    /// Starts one where none answers; `None` where one does, or where none can be had, which is said.
    pub(crate) fn where_none_runs() -> Option<Self> {
        if answers() || !is_program("dockerd") {
            return None;
        }
        if std::env::var_os("DOCKER_HOST").is_some() || !rustix::process::geteuid().is_root() {
            say(
                "warning: no Docker Engine answers, and none is started here; the tests on Docker are skipped",
            );
            return None;
        }
        say("starting a Docker Engine for the time of the tests");
        match start() {
            Ok(engine) => Some(engine),
            Err(trouble) => {
                say(&format!("warning: {trouble}; the tests on Docker are skipped"));
                None
            }
        }
    }
}

fn start() -> Result<Engine, Trouble> {
    let parts = target_dir()?.join("parts");
    std::fs::create_dir_all(&parts).map_err(Trouble::io(format!("can't make {}", parts.display())))?;
    let log = parts.join("dockerd.log");
    let file = File::create(&log).map_err(Trouble::io(format!("can't write {}", log.display())))?;
    let other = file.try_clone().map_err(Trouble::io("can't share a file"))?;
    let mut command = Command::new("dockerd");
    command.stdin(Stdio::null()).stdout(file).stderr(other);
    let mut engine = Engine(command.spawn().map_err(Trouble::io("can't run dockerd"))?);
    let end = Instant::now() + LIMIT;
    while !answers() {
        let has_ended = matches!(engine.0.try_wait(), Ok(Some(_)) | Err(_));
        if has_ended || Instant::now() > end {
            return Err(Trouble::Other(format!("the Docker Engine does not start: see {}", log.display())));
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(engine)
}

fn answers() -> bool {
    succeeds(Command::new("docker").args(["version", "--format", "{{.Server.Version}}"]))
}

impl Drop for Engine {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        // Where that fails it has ended by itself.
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
        let end = Instant::now() + LIMIT;
        while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < end {
            std::thread::sleep(LOOK_EVERY);
        }
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
