//! Starting a replica, and saying why one could not be started.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Rlimit;

use super::marker::{KEEPER_ENV, Marker, NOTE_ENV, TASK_ENV};
use super::procfs;
use super::unsafe_exec::{ChildSetup, Step, prepare};
use crate::link::memfd::{self, MAX_SPEC_BYTES};
use crate::link::messages::{MAX_ID_BYTES, MAX_NOTE_BYTES, SpawnSpec};

/// A process that was just started: a child of ours and not reaped, so the pid is certainly its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Started {
    pub(crate) pid: i32,
    pub(crate) start_time: u64,
}

/// What comes beside a `Spawn` message.
#[derive(Debug)]
pub(crate) struct SpawnFds {
    spec: OwnedFd,
    log: OwnedFd,
    netns: Option<OwnedFd>,
}

impl SpawnFds {
    /// Takes the descriptors of a message, in their order.
    pub(crate) fn take(fds: Vec<OwnedFd>) -> Option<Self> {
        let mut fds = fds.into_iter();
        let taken = Self { spec: fds.next()?, log: fds.next()?, netns: fds.next() };
        fds.next().is_none().then_some(taken)
    }
}

/// Starts a replica as the leader of a session and process group of its own. A session is also what the kernel shares
/// the cores by where there are no cgroups (sched(7), autogroup): a replica with many threads leaves the proxy and the
/// other replicas theirs.
///
/// # Errors
/// A sentence for people; nothing of the replica is left then.
pub(crate) fn replica(
    marker: &Marker,
    id: &str,
    fds: SpawnFds,
    open_files: Rlimit,
) -> Result<(Started, String), String> {
    if id.is_empty() || id.len() > MAX_ID_BYTES || id.contains('\0') {
        return Err(format!("the replica's id must have 1 to {MAX_ID_BYTES} bytes and no NUL"));
    }
    let bytes = memfd::read(&fds.spec, MAX_SPEC_BYTES).map_err(|error| format!("its spawn spec: {error}"))?;
    let spec: SpawnSpec =
        serde_json::from_slice(&bytes).map_err(|error| format!("its spawn spec: {error}"))?;
    if spec.note.len() > MAX_NOTE_BYTES || spec.note.contains('\0') {
        return Err(format!("its note must have at most {MAX_NOTE_BYTES} bytes and no NUL"));
    }
    let (program, arguments) = spec.argv.split_first().ok_or("its command is empty")?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(spec.env.iter().map(|(name, value)| (name, value)));
    command.env(KEEPER_ENV, marker.value()).env(TASK_ENV, id).env(NOTE_ENV, &spec.note);
    if let Some(cwd) = &spec.cwd {
        command.current_dir(cwd);
    }
    let second = fds.log.as_fd().try_clone_to_owned().map_err(|error| format!("its log: {error}"))?;
    command.stdin(Stdio::null()).stdout(fds.log).stderr(second);
    let changes_user = spec.uid.is_some() || spec.gid.is_some();
    let may_change = rustix::process::geteuid().is_root();
    let setup = ChildSetup {
        session: true,
        cgroups: entrances(&spec)?,
        netns: fds.netns,
        open_files: Some(open_files),
        // Without the right to change groups the keeper's own stay; becoming oneself is then still possible.
        groups: (changes_user && may_change).then(|| spec.groups.clone()),
        gid: spec.gid,
        uid: spec.uid,
        no_new_privs: false,
    };
    prepare(&mut command, setup);
    let child = command.spawn().map_err(|error| explain(&spec, program, &error))?;
    Ok((identify(child.id())?, spec.note))
}

/// Opens what the replica enters its control groups by.
fn entrances(spec: &SpawnSpec) -> Result<Vec<OwnedFd>, String> {
    let open = |path: &String| {
        let file = fs::OpenOptions::new().write(true).open(path);
        file.map(OwnedFd::from)
            .map_err(|error| format!("its control group {path} cannot be entered: {error}"))
    };
    spec.cgroups.iter().map(open).collect()
}

/// Names a child that was just spawned.
pub(crate) fn identify(pid: u32) -> Result<Started, String> {
    let pid = i32::try_from(pid).map_err(|error| error.to_string())?;
    let stat = procfs::stat(pid).map_err(|error| format!("/proc/{pid}/stat: {error}"))?;
    Ok(Started { pid, start_time: stat.start_time })
}

fn explain(spec: &SpawnSpec, program: &str, error: &io::Error) -> String {
    if let Some((step, cause)) = Step::of(error) {
        return explain_step(spec, step, &cause);
    }
    if let Some(cwd) = &spec.cwd {
        match fs::metadata(cwd) {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => return format!("the working directory {cwd:?} is not a directory"),
            Err(error) => return format!("the working directory {cwd:?} cannot be used: {error}"),
        }
    }
    let path = spec.env.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.as_str());
    match error.kind() {
        io::ErrorKind::NotFound if !program.contains('/') => match path {
            Some(path) => format!("there is no program {program:?} in PATH={path}"),
            None => format!(
                "there is no program {program:?} in /bin or /usr/bin, and its environment has no PATH"
            ),
        },
        io::ErrorKind::NotFound if exists(spec, program) => {
            format!("the program {program:?} exists, but the interpreter that it names does not")
        }
        io::ErrorKind::NotFound => format!("there is no program {program:?}"),
        io::ErrorKind::PermissionDenied => {
            format!("no permission to run {program:?}: is it a file that its user may execute?")
        }
        io::ErrorKind::ArgumentListTooLong => {
            "its arguments and environment are too long for the kernel".to_owned()
        }
        io::ErrorKind::InvalidInput => "its command or environment holds a NUL character".to_owned(),
        _ if error.raw_os_error() == Some(libc::ENOEXEC) => {
            format!("{program:?} is neither a program for this machine nor a script with a #! line")
        }
        _ => format!("{program:?} cannot be started: {error}"),
    }
}

fn exists(spec: &SpawnSpec, program: &str) -> bool {
    Path::new(spec.cwd.as_deref().unwrap_or_default()).join(program).exists()
}

fn explain_step(spec: &SpawnSpec, step: Step, cause: &io::Error) -> String {
    let hint = match cause.kind() {
        io::ErrorKind::PermissionDenied => "; only a daemon that runs as root may do that",
        _ => "",
    };
    let number = |id: Option<u32>| id.map_or_else(|| "-".to_owned(), |id| id.to_string());
    match step {
        Step::Session => format!("it cannot have a session of its own: {cause}"),
        Step::Cgroups => format!("its control groups {:?} cannot be entered: {cause}{hint}", spec.cgroups),
        Step::Netns => format!("its network namespace cannot be entered: {cause}{hint}"),
        Step::OpenFiles => format!("its limit of open files cannot be set: {cause}"),
        Step::Groups => format!("the groups {:?} cannot be set: {cause}{hint}", spec.groups),
        Step::Gid => format!("it cannot become group {}: {cause}{hint}", number(spec.gid)),
        Step::Uid => format!("it cannot become user {}: {cause}{hint}", number(spec.uid)),
        Step::NoNewPrivs => format!("its privileges cannot be limited: {cause}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn try_spawn(spec: &SpawnSpec) -> Result<(Started, std::fs::File), String> {
        let dir = tempfile::tempdir().unwrap();
        let marker = Marker::new(dir.path()).unwrap();
        let log = tempfile::tempfile().unwrap();
        let fds = SpawnFds {
            spec: memfd::sealed("spec", &serde_json::to_vec(spec).unwrap()).unwrap(),
            log: log.try_clone().unwrap().into(),
            netns: None,
        };
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        replica(&marker, "web.1", fds, limit).map(|(started, _)| (started, log))
    }

    fn spec(argv: &[&str]) -> SpawnSpec {
        SpawnSpec {
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
            env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned()), ("A".to_owned(), "1".to_owned())],
            ..SpawnSpec::default()
        }
    }

    fn output(spec: &SpawnSpec) -> String {
        use std::io::Seek;
        let (started, mut log) = try_spawn(spec).unwrap();
        let pid = rustix::process::Pid::from_raw(started.pid).unwrap();
        rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()).unwrap();
        let mut text = String::new();
        log.rewind().unwrap();
        log.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn the_environment_is_exactly_what_was_given_and_the_marks() {
        let names: Vec<String> = output(&spec(&["/usr/bin/env"]))
            .lines()
            .filter_map(|line| line.split_once('=').map(|(name, _)| name.to_owned()))
            .collect();
        assert_eq!(names, ["A", "BULSA_KEEPER", "BULSA_NOTE", "BULSA_TASK", "PATH"]);
    }

    #[test]
    fn no_descriptor_but_the_standard_three_is_inherited() {
        let leak = rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), 50).unwrap();
        rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
        let text = output(&spec(&["sh", "-c", "ls -l /proc/self/fd | grep -c '[0-9] -> '; echo $$"]));
        // The listing program itself holds one more, for the directory.
        assert!(text.starts_with("4\n"), "{text}");
    }

    #[test]
    fn each_reason_not_to_start_is_said() {
        let said = |spec: &SpawnSpec| try_spawn(spec).map(|_| ()).unwrap_err();
        assert_eq!(said(&spec(&[])), "its command is empty");
        assert_eq!(said(&spec(&["nope-x"])), "there is no program \"nope-x\" in PATH=/usr/bin:/bin");
        assert_eq!(said(&spec(&["/nope/x"])), "there is no program \"/nope/x\"");
        assert!(said(&spec(&["/etc"])).starts_with("no permission to run \"/etc\""));
        let lost = SpawnSpec { cwd: Some("/nope".to_owned()), ..spec(&["true"]) };
        assert!(said(&lost).starts_with("the working directory \"/nope\" cannot be used"), "{}", said(&lost));
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("script");
        fs::write(&script, "#!/nope/sh\n").unwrap();
        fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let error = said(&spec(&[script.to_str().unwrap()]));
        assert!(error.ends_with("the interpreter that it names does not"), "{error}");
    }

    #[test]
    fn a_replica_leads_a_session_and_a_group() {
        let text = output(&spec(&["cut", "-d ", "-f1,5,6", "/proc/self/stat"]));
        let numbers: Vec<&str> = text.split_whitespace().collect();
        assert!(numbers.len() == 3 && numbers.iter().all(|number| *number == numbers[0]), "{text}");
    }

    #[test]
    fn user_group_and_groups_are_set() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let other = SpawnSpec {
            uid: Some(4242),
            gid: Some(4243),
            groups: vec![4244],
            ..spec(&["sh", "-c", "id -u; id -g; id -G"])
        };
        assert_eq!(output(&other), "4242\n4243\n4243 4244\n");
    }

    #[test]
    fn becoming_somebody_else_without_the_right_says_so() {
        if rustix::process::geteuid().is_root() {
            return;
        }
        let other = SpawnSpec { uid: Some(0), ..spec(&["true"]) };
        let error = try_spawn(&other).map(|_| ()).unwrap_err();
        assert!(error.contains("cannot become user 0"), "{error}");
    }
}
