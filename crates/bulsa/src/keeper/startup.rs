//! From nothing, or from what a dead predecessor left, to a running keeper.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

use super::adopt::{self, Found};
use super::agents::Agents;
use super::attendant::Attendant;
use super::journal::{Entry, Journal, Left};
use super::log::log;
use super::marker::{Marker, Role};
use super::proxies::Proxies;
use super::replicas::Replicas;
use super::signals::Signals;
use super::takeover::{self, TakenOver};
use super::{Config, KEEPER_LOCK, Keeper, KeeperError};
use crate::link::lock::FileLock;
use crate::link::messages::{ExitRecord, ExitStatus};

/// How long an old agent may take to end by itself, and then to be gone after SIGKILL.
const OLD_AGENT_GRACE: Duration = Duration::from_secs(1);

/// How often processes of dead replicas are looked for: each round kills all that it finds.
const MAX_STRAY_ROUNDS: usize = 16;

/// Starts a keeper: its proxy and agent run, or are scheduled to, when this returns.
pub(crate) fn start(config: Config) -> Result<Keeper, KeeperError> {
    for (argv, what) in [(&config.agent, "agent"), (&config.proxy, "proxy")] {
        if argv.is_empty() {
            return Err(KeeperError::NoProgram(what));
        }
    }
    let dir = config.state_dir.clone();
    let run_path = dir.join("run");
    let unusable = |error| KeeperError::StateDir { dir: dir.clone(), error };
    private_dir(&dir).and_then(|()| private_dir(&run_path)).map_err(unusable)?;
    let lock =
        FileLock::acquire(&dir.join(KEEPER_LOCK)).map_err(|error| KeeperError::from((error, dir.clone())))?;
    let marker = Marker::new(&dir).map_err(unusable)?;
    let run_dir = open_dir(&run_path).map_err(unusable)?;
    let system = |doing| move |error| KeeperError::System { doing, error };
    let own = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(own))
        .map_err(io::Error::from)
        .map_err(system("become a subreaper"))?;
    let signals = Signals::install(config.init.is_some()).map_err(system("listen to signals"))?;
    let open_files = raise_open_files();
    let journal_path = run_path.join("replicas");
    let left = Journal::left(&journal_path);
    let mut found = find(&marker, &left);
    let agent_number = end_old_agents(&found);
    let taken = take_over(&run_dir, &mut found, &run_path);
    let replicas = adopt_replicas(found, left, journal_path);
    let attendant = config.init.clone().map(Attendant::new);
    let mut keeper = Keeper {
        config,
        marker,
        run_dir,
        open_files,
        signals,
        sockets: taken.sockets,
        table: taken.table,
        replicas,
        agents: Agents::new(agent_number),
        proxies: Proxies::new(taken.proxies, taken.last_generation),
        attendant,
        stop_by: None,
        ending: None,
        _lock: lock,
    };
    if keeper.proxies.is_empty() {
        keeper.start_proxy();
    }
    keeper.start_agent();
    keeper.start_attendant();
    Ok(keeper)
}

/// Makes a directory that only we can enter, or checks that it is one we can use.
fn private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let meta = fs::metadata(path)?;
    if !meta.is_dir() {
        return Err(io::Error::new(io::ErrorKind::NotADirectory, "it is not a directory"));
    }
    fs::set_permissions(path, Permissions::from_mode(0o700))
}

fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// The keeper holds every listening socket and a link per proxy; replicas get the limit it was started with.
fn raise_open_files() -> Rlimit {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        log!("the limit of open files stays at {:?}: {error}", limit.current);
    }
    limit
}

/// Finds what is left of a dead keeper, and kills what belongs to nothing, until nothing such is left.
fn find(marker: &Marker, left: &Left) -> Found {
    let mut found = adopt::sort(adopt::scan(marker), left);
    for _ in 0..MAX_STRAY_ROUNDS {
        if found.strays.is_empty() {
            return found;
        }
        for stray in &found.strays {
            log!("process {} belongs to a replica whose leader is gone: killed", stray.pid);
            adopt::signal_verified(stray.pid, stray.start_time, Signal::KILL);
        }
        found = adopt::sort(adopt::scan(marker), left);
    }
    log!("{} processes of dead replicas do not die", found.strays.len());
    found
}

/// Ends agents of a dead keeper. Two agents never live at once; their lock file guards that too.
/// Returns the highest number among them.
fn end_old_agents(found: &Found) -> u64 {
    if !found.agents.is_empty() && !adopt::end(&found.agents, OLD_AGENT_GRACE) {
        log!("an agent of the keeper before this one does not die; the new one waits for its lock");
    }
    let number = |role: &Role| if let Role::Agent { number } = role { *number } else { 0 };
    found.agents.iter().map(|one| number(&one.role)).max().unwrap_or(0)
}

fn take_over(run_dir: &OwnedFd, found: &mut Found, run_path: &Path) -> TakenOver {
    let mut generations: BTreeSet<u64> = takeover::socket_files(run_path);
    let mut taken = TakenOver::default();
    let mut living = BTreeMap::new();
    for (generation, process) in std::mem::take(&mut found.proxies) {
        generations.insert(generation);
        // Proxies start nothing, so two with one generation cannot be: the leader counts.
        if process.leads_group {
            living.insert(generation, process);
        }
    }
    taken.last_generation = generations.iter().next_back().copied().unwrap_or(0);
    // The newest last, so that its sockets and table are the ones kept.
    for (generation, process) in &living {
        match takeover::take(run_dir, *generation, process) {
            Ok(proxy) => taken.add(proxy),
            Err(error) => {
                log!(
                    "proxy {generation} (process {}) cannot be taken over and is killed: {error}",
                    process.pid
                );
                adopt::signal_verified(process.pid, process.start_time, Signal::KILL);
            }
        }
    }
    for generation in generations {
        if !taken.proxies.iter().any(|proxy| proxy.generation == generation) {
            takeover::remove_socket(run_dir, generation);
        }
    }
    taken
}

fn adopt_replicas(found: Found, left: Left, journal_path: PathBuf) -> Replicas {
    let mut exits = left.exits;
    exits.extend(found.gone.iter().map(unseen_exit));
    if !found.replicas.is_empty() {
        log!("{} replicas go on under this keeper", found.replicas.len());
    }
    Replicas::new(found.replicas, exits, Journal::new(journal_path))
}

fn unseen_exit(entry: &Entry) -> ExitRecord {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    ExitRecord {
        id: entry.id.clone(),
        pid: entry.pid,
        start_time: entry.start_time,
        status: ExitStatus::Unknown,
        at_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
    }
}
