//! Memory that runs out in one container, or one process that has limits.
//!
//! Owns: a lower limit for it, and a helper in its control group that takes what is left until the kernel
//! kills. The helper is this program (`__drill-memory`); the kernel is told to choose the replica's main process before it,
//! and it ends with that, or with the agent. Never: takes memory that isn't the replica's: without its limit nothing is taken.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::fs::{MemfdFlags, memfd_create};
use tokio::{
    io::AsyncWriteExt,
    process::{Child, ChildStdin, Command},
};

use super::is_of_container;
use crate::agent::{docker::Docker, process::memory};

/// So much more than it uses now is left to it, in bytes: below its use an old kernel takes no limit.
const HEADROOM_BYTES: u64 = 8 << 20;
/// The Engine takes no lower limit, in bytes.
const LIMIT_BYTES_MIN: u64 = 16 << 20;
/// The helper takes memory in pieces of so many bytes, and so many of them at most.
const PIECE_BYTES: usize = 1 << 20;
const PIECES_MAX: usize = 256;
/// From one piece to the next.
const PAUSE: Duration = Duration::from_millis(5);
/// The kernel chooses one with this for its victim before all others. (To spare the helper altogether would take a right
/// that not every daemon has.)
const FIRST: &str = "1000";

/// The control group in which a replica's memory is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryGroup {
    directory: PathBuf,
    /// The file that says how much is used.
    usage: &'static str,
}

impl MemoryGroup {
    /// The one of a container, whose main process is `pid`.
    ///
    /// # Errors
    /// In words, if it can't be found: another kind of host, or no right to look.
    pub fn of(pid: u32, container: &str) -> Result<Self, String> {
        let path = format!("/proc/{pid}/cgroup");
        let text = fs::read_to_string(&path).map_err(|error| format!("{path} can't be read: {error}"))?;
        let found = parse(&text).filter(|_| is_of_container(pid, container));
        let group = found.ok_or("its container has no control group of its own for memory")?;
        group.used().map_err(|error| {
            format!(
                "how much memory its container uses can't be read in {}: {error}",
                group.directory.display()
            )
        })?;
        Ok(group)
    }

    /// The one of a process that has limits, by its groups' directories.
    ///
    /// # Errors
    /// In words, if none of them counts memory.
    pub fn among(directories: &[PathBuf]) -> Result<Self, String> {
        let usages = ["memory.usage_in_bytes", "memory.current"];
        let groups = directories
            .iter()
            .flat_map(|directory| usages.map(|usage| Self { directory: directory.clone(), usage }));
        let mut groups = groups.filter(|group| group.used().is_ok());
        groups.next().ok_or_else(|| {
            "it is a process without a control group of its own for memory, which a limit (`mem_limit`) gives it".to_owned()
        })
    }

    /// The file of the limit.
    fn limit(&self) -> PathBuf {
        let is_first = self.usage == "memory.usage_in_bytes";
        self.directory.join(if is_first { "memory.limit_in_bytes" } else { "memory.max" })
    }

    fn used(&self) -> io::Result<u64> {
        let text = fs::read_to_string(self.directory.join(self.usage))?;
        text.trim().parse().map_err(|_| io::Error::other(format!("`{}` is no number", text.trim())))
    }

    /// A limit that is used up soon, in bytes.
    fn scarce(&self) -> Result<u64, String> {
        let used = self.used().map_err(|error| format!("its use of memory can't be read: {error}"))?;
        Ok(used.saturating_add(HEADROOM_BYTES).max(LIMIT_BYTES_MIN))
    }

    fn add(&self, pid: u32) -> io::Result<()> {
        fs::write(self.directory.join("cgroup.procs"), pid.to_string())
    }
}

fn parse(cgroup: &str) -> Option<MemoryGroup> {
    memory::place(cgroup).map(|(directory, usage, _)| MemoryGroup { directory, usage })
}

/// Makes memory run out in a container.
///
/// # Errors
/// In words. The container's limit may be lower then: whoever asked replaces the container.
pub async fn run_out(engine: &Docker, container: &str, pid: u32) -> Result<Helper, String> {
    let group = MemoryGroup::of(pid, container)?;
    engine.limit_memory(container, group.scarce()?).await.map_err(|error| error.to_string())?;
    take_the_rest(&group, pid).await
}

/// Makes memory run out for a process that has limits.
///
/// # Errors
/// In words. Its limit may be lower then: whoever asked replaces it.
pub async fn run_out_of(directories: &[PathBuf], pid: u32) -> Result<Helper, String> {
    let group = MemoryGroup::among(directories)?;
    let (file, limit) = (group.limit(), group.scarce()?);
    fs::write(&file, limit.to_string())
        .map_err(|error| format!("{} can't be written: {error}", file.display()))?;
    take_the_rest(&group, pid).await
}

async fn take_the_rest(group: &MemoryGroup, pid: u32) -> Result<Helper, String> {
    let mut child = Command::new("/proc/self/exe")
        .args(["__drill-memory", &pid.to_string()])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("the helper that takes memory can't be started: {error}"))?;
    let helper = child.id().ok_or("the helper that takes memory ended at once")?;
    let prepare = || {
        fs::write(format!("/proc/{pid}/oom_score_adj"), FIRST)?;
        group.add(helper)
    };
    prepare()
        .map_err(|error| format!("the helper can't be put into the replica's control group: {error}"))?;
    let mut go = child.stdin.take().ok_or("the helper has no input")?;
    go.write_all(b"\n").await.map_err(|error| format!("the helper does not listen: {error}"))?;
    Ok(Helper { child, _input: go })
}

/// The helper that takes memory; killed when it is dropped.
#[derive(Debug)]
pub struct Helper {
    child: Child,
    /// It stays open: when it closes, the agent is gone, and so is the helper.
    _input: ChildStdin,
}

impl Helper {
    /// Waits for its end. (What the child itself has of its input is closed by that.)
    pub async fn ended(mut self) {
        if let Err(error) = self.child.wait().await {
            tracing::debug!(%error, "the helper of a drill can't be waited for");
        }
    }
}

/// The helper: takes memory until the process `pid` is gone, or its own input closes.
///
/// # Errors
/// If its input can't be read.
pub fn helper(pid: u32) -> io::Result<()> {
    let mut line = String::new();
    // It begins when it is told so: before that its memory is counted elsewhere.
    if io::stdin().read_line(&mut line)? == 0 {
        return Ok(());
    }
    std::thread::spawn(|| {
        let mut rest = String::new();
        // Its end, or an error: nobody wants it any more either way.
        drop(io::stdin().read_line(&mut rest));
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
    });
    // Memory in a file that is nowhere: it counts for the group, and not for this process, which so stays the smallest of
    // those that the kernel may choose.
    let mut file = fs::File::from(memfd_create("bulsa-drill", MemfdFlags::CLOEXEC)?);
    let (piece, mut taken) = (vec![1; PIECE_BYTES], 0);
    while Path::new(&format!("/proc/{pid}/stat")).exists() {
        // Where there is none left the kernel has to kill, or says so: then it is tried again.
        if taken < PIECES_MAX && file.write_all(&piece).is_ok() {
            taken += 1;
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_that_counts_memory_is_found_in_both_versions() {
        let one = "12:devices:/docker/abc\n5:memory:/docker/abc\n0::/system.slice\n";
        let group = parse(one).unwrap();
        assert_eq!(group.directory, Path::new("/sys/fs/cgroup/memory/docker/abc"));
        assert_eq!(group.usage, "memory.usage_in_bytes");
        let two = parse("0::/system.slice/docker-abc.scope\n").unwrap();
        assert_eq!(two.directory, Path::new("/sys/fs/cgroup/system.slice/docker-abc.scope"));
        assert_eq!(two.usage, "memory.current");
        assert_eq!(parse("nonsense"), None);
    }

    #[test]
    fn a_process_with_limits_has_a_group_in_one_of_its_directories() {
        let (cpu, memory) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let directories = [cpu.path().to_owned(), memory.path().to_owned()];
        assert!(MemoryGroup::among(&directories).unwrap_err().contains("`mem_limit`"));
        fs::write(memory.path().join("memory.current"), "30000000\n").unwrap();
        let group = MemoryGroup::among(&directories).unwrap();
        assert_eq!(group.limit(), memory.path().join("memory.max"));
        assert_eq!(group.scarce(), Ok(30_000_000 + HEADROOM_BYTES));
    }

    #[test]
    fn a_process_in_no_container_has_no_group_to_limit() {
        let error = MemoryGroup::of(std::process::id(), "0123456789abcdef-no-such-container").unwrap_err();
        assert!(error.contains("no control group of its own"), "{error}");
    }
}
