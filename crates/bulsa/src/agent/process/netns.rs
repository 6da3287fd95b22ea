//! A network namespace of its own for each replica of a program that insists on one port (`--app-port`).
//!
//! Owns: making, finding again and removing namespaces: a named one (`/run/netns/bls-…`), a pair of virtual
//! interfaces into it, and a block of four addresses from [`POOLS`]. Never: moves anything into one; the keeper does
//! that to the replica that it starts, with the open file from [`Namespace::open`].
//!
//! ```text
//!  host                                 namespace bls-abcdefghijk
//!  bls-abcdefghijk  198.18.7.1/30 ═════ eth0  198.18.7.2/30, default route to 198.18.7.1
//!                                       lo    127.0.0.1, ::1
//! ```
//!
//! Done with the `ip` program of iproute2: three short runs for a namespace, and an administrator who cleans up by
//! hand sees what is familiar. Names follow from owner and replica ([`name_of`]), so that what a killed agent left
//! is found ([`leftovers`]) and a living replica's address is observed again ([`find`]).
//!
//! Limits, for the documentation: a program in a namespace reaches this host only, at the host's side of its pair
//! (not at 127.0.0.1), and beyond it only if the host forwards and masquerades for [`POOLS`]. A program that listens
//! on 127.0.0.1 in it can't be reached at all.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io,
    net::Ipv4Addr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use bulsa_core::ids::ReplicaId;
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
    process::geteuid,
};
use tokio::time::{Instant, sleep};

mod command;
pub mod plan;

use self::plan::{Block, choose_block, parse_host_address, parse_routes};
pub use self::plan::{POOLS, name_of, prefix_of};

/// Where iproute2 keeps the names of namespaces.
const NAMES: &str = "/run/netns";

/// Where the kernel lists network interfaces.
const INTERFACES: &str = "/sys/class/net";

/// Held while addresses are chosen and taken, so that two daemons don't choose the same.
const LOCK_FILE: &str = "/run/bulsa-netns.lock";

/// The longest that another daemon may hold [`LOCK_FILE`] before we give up.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// How long to wait between two looks at a lock that is held.
const LOCK_POLL: Duration = Duration::from_millis(5);

/// Why a namespace couldn't be made, found or removed.
#[derive(Debug, thiserror::Error)]
#[error("network namespace {name}: {problem}; other replicas go on; {hint}")]
pub struct NetnsError {
    name: String,
    problem: String,
    hint: &'static str,
}

/// A replica's own network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Its name, and that of the host's interface into it.
    pub name: String,
    /// The replica's address, where the proxy and probes connect to.
    pub address: Ipv4Addr,
    /// The host's address on this pair: the replica's way to the proxy.
    pub host: Ipv4Addr,
}

impl Namespace {
    fn new(name: &str, block: Block) -> Self {
        Self { name: name.to_owned(), address: block.inside(), host: block.host() }
    }

    /// The file that stands for the namespace.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new(NAMES).join(&self.name)
    }

    /// The open namespace, for the keeper to enter.
    ///
    /// # Errors
    /// If it is gone.
    pub fn open(&self) -> io::Result<File> {
        File::open(self.path())
    }
}

/// Makes the namespace of a replica. What an earlier try left under its name is removed first.
///
/// # Errors
/// Without root or the capabilities for it, without `ip`, or without a free block of addresses; nothing is left then.
pub async fn create(owner: &str, replica: &ReplicaId) -> Result<Namespace, NetnsError> {
    let name = name_of(owner, replica);
    if !geteuid().is_root() {
        return Err(problem(&name, "Bulsa isn't root", NEEDS_ROOT));
    }
    remove(&name).await?;
    let _held = lock(&name).await?;
    let made = try_create(&name).await;
    if made.is_err() {
        // The first error is the one to report; what stays behind has a name of ours and is found later.
        if let Err(error) = remove(&name).await {
            tracing::warn!(%error, "a namespace that was half made stays behind");
        }
    }
    made
}

/// The namespace of a replica that is running, as it is now; `None` if there is none.
///
/// # Errors
/// If `ip` can't be run.
pub async fn find(owner: &str, replica: &ReplicaId) -> Result<Option<Namespace>, NetnsError> {
    let name = name_of(owner, replica);
    if !exists(&name) {
        return Ok(None);
    }
    let addresses = command::ip(&name, &["-4", "-json", "address", "show", "dev", &name], "").await?;
    Ok(parse_host_address(&addresses).map(|host| Namespace::new(&name, Block::of_host(host))))
}

/// Takes the network away from what is inside a namespace, by its interface.
///
/// # Errors
/// If there is no such namespace, or `ip` can't be run.
pub async fn cut(name: &str) -> Result<(), NetnsError> {
    command::ip(name, &["-n", name, "link", "set", "eth0", "down"], "").await.map(drop)
}

/// Names of `owner`'s namespaces and interfaces that aren't in `keep`, for [`remove`].
///
/// # Errors
/// If the kernel's lists can't be read.
pub fn leftovers(owner: &str, keep: &BTreeSet<String>) -> io::Result<Vec<String>> {
    let prefix = prefix_of(owner);
    let mut found = BTreeSet::new();
    for directory in [NAMES, INTERFACES] {
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        for entry in entries {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.starts_with(&prefix) && !keep.contains(&name) {
                found.insert(name);
            }
        }
    }
    Ok(found.into_iter().collect())
}

/// Removes a namespace and its interfaces. Nothing there is success. Processes still inside live on without a network.
///
/// # Errors
/// If something is there and stays there.
pub async fn remove(name: &str) -> Result<(), NetnsError> {
    // Without the pair the name would be free while the kernel still takes the namespace down in the background.
    let steps: [(PathBuf, &[&str]); 2] = [
        (Path::new(INTERFACES).join(name), &["link", "delete", name]),
        (Path::new(NAMES).join(name), &["netns", "delete", name]),
    ];
    for (sign, arguments) in steps {
        if !sign.exists() {
            continue;
        }
        if let Err(error) = command::ip(name, arguments, "").await
            && sign.exists()
        {
            return Err(error);
        }
    }
    Ok(())
}

const NEEDS_ROOT: &str = "`--app-port` needs root with CAP_NET_ADMIN and CAP_SYS_ADMIN: run Bulsa as root on the \
                          host, let the program read PORT, or run one replica";

fn problem(name: &str, problem: impl Into<String>, hint: &'static str) -> NetnsError {
    NetnsError { name: name.to_owned(), problem: problem.into(), hint }
}

fn exists(name: &str) -> bool {
    Path::new(NAMES).join(name).exists() && Path::new(INTERFACES).join(name).exists()
}

async fn try_create(name: &str) -> Result<Namespace, NetnsError> {
    let routes = command::ip(name, &["-4", "-json", "route", "show", "table", "all"], "").await?;
    let routes = parse_routes(&routes).ok_or_else(|| {
        problem(name, "the routes that `ip` prints aren't understood", "install iproute2 4.14 or later")
    })?;
    let block = choose_block(name, &routes).ok_or_else(|| {
        problem(name, "every block of addresses tried is routed already", "remove routes into 198.18.0.0/15")
    })?;
    let (host, inside) = (block.host(), block.inside());
    command::ip(name, &["netns", "add", name], "").await?;
    let outside = format!(
        "link add {name} type veth peer name eth0 netns {name}\naddress add {host}/30 dev {name}\nlink set {name} up\n"
    );
    command::ip(name, &["-batch", "-"], &outside).await?;
    let within = format!(
        "link set lo up\naddress add {inside}/30 dev eth0\nlink set eth0 up\nroute add default via {host}\n"
    );
    command::ip(name, &["-n", name, "-batch", "-"], &within).await?;
    Ok(Namespace::new(name, block))
}

/// Waits for the lock of this host's daemons; it is let go when the file is dropped.
async fn lock(name: &str) -> Result<File, NetnsError> {
    const HINT: &str = "look for another bulsa that hangs while it makes a namespace";
    let failed = |e: io::Error| problem(name, format!("{LOCK_FILE} can't be locked: {e}"), HINT);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(LOCK_FILE)
        .map_err(failed)?;
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => sleep(LOCK_POLL).await,
            Err(e) => return Err(failed(e.into())),
        }
    }
}

#[cfg(test)]
mod tests;
