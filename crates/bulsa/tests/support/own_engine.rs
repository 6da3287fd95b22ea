//! A Docker Engine of a test's own: a daemon in its own network namespace, with all of its state in one directory.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::{
    LIMIT, LOOK_EVERY,
    engine::{Generation, programs_of},
    network::Namespace,
    parts, unique, until,
};

/// How long a daemon may take to end; then it is killed.
const ENDING_MAX: Duration = Duration::from_secs(30);

/// A `dockerd` with its containers. Dropped, nothing of it is left: no process, mount, control group or file.
#[derive(Debug)]
pub(crate) struct OwnEngine {
    directory: TempDir,
    namespace: Namespace,
    /// Under this name it has its control groups and its part of containerd.
    name: String,
    generation: Generation,
    live_restore: bool,
    daemon: Mutex<Option<Child>>,
}

impl OwnEngine {
    /// Starts one and waits until it answers. `None` where the machine can't have one, which is said.
    pub(crate) fn start(generation: Generation, live_restore: bool) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root can run a Docker Engine of its own");
            return None;
        }
        let is_there = match generation {
            Generation::Installed => {
                parts::find("usr/sbin/dockerd").or_else(|| parts::find("usr/bin/dockerd"))
            }
            Generation::Next => {
                Some(parts::next_programs().join("dockerd")).filter(|program| program.exists())
            }
        };
        if is_there.is_none() {
            eprintln!(
                "skipped: there is no `dockerd` of the generation {generation:?} (`cargo xtask parts` gets one)"
            );
            return None;
        }
        let directory = tempfile::Builder::new().prefix("bulsa-engine-").tempdir().unwrap();
        let (namespace, name) = (Namespace::new(), unique("bulsa-engine"));
        let this = Self { directory, namespace, name, generation, live_restore, daemon: Mutex::default() };
        this.begin();
        Some(this)
    }

    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.path("docker.sock").display())
    }

    pub(crate) fn namespace(&self) -> PathBuf {
        self.namespace.path()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts the daemon anew, on the same state, and waits until it answers.
    pub(crate) fn begin(&self) {
        let mut daemon = self.daemon.lock().unwrap();
        assert!(daemon.is_none(), "it runs");
        fs::write(self.path("daemon.json"), "{}").unwrap();
        // What a killed daemon has left would be taken for a living one.
        for file in ["docker.pid", "run/containerd/containerd.pid"] {
            fs::remove_file(self.path(file)).ok();
        }
        let log = File::options().create(true).append(true).open(self.path("log")).unwrap();
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.namespace().display()));
        // As two programs in one process: its id is that of the daemon.
        command.args(["--", "dockerd", "--host", &self.host(), "--cgroup-parent", &self.name]);
        for (flag, file) in [
            ("--config-file", "daemon.json"),
            ("--data-root", "data"),
            ("--exec-root", "run"),
            ("--pidfile", "docker.pid"),
        ] {
            command.arg(flag).arg(self.path(file));
        }
        // Where the machine has a containerd of its own it is shared, under other names.
        command.args([
            "--containerd-namespace",
            &self.name,
            "--containerd-plugins-namespace",
            &self.plugins(),
        ]);
        command.args(["--exec-opt", "native.cgroupdriver=cgroupfs"]);
        if self.live_restore {
            command.arg("--live-restore");
        }
        command.env("PATH", programs_of(self.generation)).stdin(Stdio::null());
        *daemon = Some(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
        let end = Instant::now() + LIMIT;
        while !self.answers() {
            let ended = daemon.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < end, "no Engine: {ended:?}\n{}", self.log());
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn plugins(&self) -> String {
        format!("{}-plugins", self.name)
    }

    fn answers(&self) -> bool {
        let mut command = Command::new("docker");
        command.args(["version", "--format", "{{.Server.Version}}"]).env("DOCKER_HOST", self.host());
        command.stdin(Stdio::null()).output().is_ok_and(|output| output.status.success())
    }

    /// Ends the daemon as an upgrade or a reboot does: SIGTERM. Containers end with it, unless they are to live on.
    pub(crate) fn end(&self) {
        self.signal(Signal::TERM, ENDING_MAX);
    }

    /// Kills the daemon without a word, and the containerd that it had started. What runs in containers goes on.
    pub(crate) fn kill(&self) {
        self.signal(Signal::KILL, ENDING_MAX);
        let config = self.path("run/containerd/containerd.toml").display().to_string();
        until("containerd has ended", || {
            let is_it = |pid: &i32| {
                let words = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                words.contains(&config)
            };
            let left: Vec<_> = self.processes().into_iter().filter(is_it).collect();
            left.iter().for_each(|pid| kill_now(*pid));
            left.is_empty().then_some(())
        });
    }

    fn signal(&self, signal: Signal, limit: Duration) {
        let Some(mut daemon) = self.daemon.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        let pid = Pid::from_child(&daemon);
        kill_process(pid, signal).ok();
        let end = Instant::now() + limit;
        while daemon.try_wait().unwrap().is_none() {
            if Instant::now() > end {
                kill_process(pid, Signal::KILL).ok();
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// What the daemon wrote.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Every living process of this Engine: containerd and shims by what they were started with, containers by their
    /// control group.
    fn processes(&self) -> Vec<i32> {
        let directory = self.directory.path().to_str().unwrap().to_owned();
        let group = format!("/{}/", self.name);
        let pids = fs::read_dir("/proc").unwrap().flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let reads =
            |pid: i32, file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let is_ours = |pid: &i32| {
            let words = reads(*pid, "cmdline");
            let is_part = ["dockerd", "containerd", "docker-proxy"].iter().any(|name| words.contains(name));
            // A process that has ended, and that its parent hasn't seen yet, is not one that lives.
            let is_dead = reads(*pid, "stat").rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z"));
            let is_ours = is_part && (words.contains(&directory) || words.contains(&self.name));
            !is_dead && (is_ours || reads(*pid, "cgroup").contains(&group))
        };
        pids.filter(is_ours).collect()
    }

    fn unmount(&self) {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let mut inside: Vec<_> = mounts.lines().filter_map(|line| line.split(' ').nth(1)).collect();
        inside.retain(|place| Path::new(place).starts_with(self.directory.path()));
        // What was mounted last is unmounted first.
        for place in inside.iter().rev() {
            Command::new("umount").args(["--lazy", place]).stderr(Stdio::null()).status().ok();
        }
    }
}

impl Drop for OwnEngine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let from = log.len().saturating_sub(4000);
            eprintln!("the end of what the Engine wrote:\n{}", log.get(from..).unwrap_or(&log));
        }
        if self.daemon.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            let mut docker = Command::new("docker");
            docker.args(["ps", "--all", "--quiet"]).env("DOCKER_HOST", self.host());
            let listed = docker.output().map(|output| output.stdout).unwrap_or_default();
            let listed = String::from_utf8_lossy(&listed).into_owned();
            let mut docker = Command::new("docker");
            docker.args(["rm", "--force", "--volumes"]).args(listed.lines()).env("DOCKER_HOST", self.host());
            if !listed.trim().is_empty() {
                docker.stdout(Stdio::null()).stderr(Stdio::null()).status().ok();
            }
        }
        self.end();
        // A test that panics must not panic again.
        for _ in 0..100 {
            let left = self.processes();
            if left.is_empty() {
                break;
            }
            left.into_iter().for_each(kill_now);
            std::thread::sleep(LOOK_EVERY);
        }
        self.unmount();
        let groups = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
        for group in groups.chain([PathBuf::from("/sys/fs/cgroup")]) {
            remove_groups(&group.join(&self.name));
        }
    }
}

/// Sends a signal to a process, which may be gone.
pub(crate) fn send(pid: i32, signal: Signal) {
    Pid::from_raw(pid).and_then(|pid| kill_process(pid, signal).ok());
}

/// SIGKILL, for a process that may be gone.
pub(crate) fn kill_now(pid: i32) {
    send(pid, Signal::KILL);
}

/// Removes a control group and those in it, where they are empty.
fn remove_groups(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_groups(&entry.path());
        }
    }
    fs::remove_dir(group).ok();
}

/// Waits until a process has ended that may be anybody's child.
pub(crate) fn ended(pid: i32) {
    until("the process ends", || (!Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
}
