//! The agent: the control plane. It sees, decides and acts, and may be killed at any moment.
//!
//! Owns: the driver and everything that it uses: the links to the keeper and the proxies, the store, the process
//! engine's host side, the probes, the API. Never: faces the internet, or is needed for a request to be answered.
//!
//! One process, one thread for everything but the store's disk: what it has to do is little, and its memory counts.

pub mod access_log;
pub mod anchor;
pub mod api;
pub mod docker;
mod driver;
pub mod host;
pub mod images;
pub mod injure;
pub mod keeper_client;
pub mod notify;
pub mod probe;
pub mod process;
pub mod proxy_link;
pub mod store;
pub mod watchers;

use std::{
    io,
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use tokio::signal::unix::{SignalKind, signal};

use self::{
    driver::{Driver, Identity, Input, Parts, Told},
    keeper_client::KeeperClient,
    notify::{Notifier, Tester},
    process::{heartbeat::Heartbeats, ports::PortAllocator},
    store::{Change, Store},
};

/// How long an agent waits for the one before it to let go of its lock.
const LOCK_WAIT: std::time::Duration = std::time::Duration::from_secs(5);

/// Where things are and who the keeper is.
#[derive(Clone, Debug)]
pub struct Config {
    /// The state directory.
    pub state_dir: PathBuf,
    /// The API's socket.
    pub socket: PathBuf,
}

/// Why an agent could not start. Traffic flows on without it, and the keeper tries again.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// It was not started by a keeper.
    #[error("the keeper can't be reached: {0}")]
    Keeper(#[from] crate::link::LinkError),
    /// The store can't be used.
    #[error(transparent)]
    Store(#[from] store::StoreError),
    /// Something of this machine.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// No ports for replicas.
    #[error(transparent)]
    Ports(#[from] process::ports::PortError),
}

/// Runs an agent until the daemon stops.
///
/// # Errors
/// If it can't start; it has changed nothing then.
pub fn run(config: &Config) -> Result<(), AgentError> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |source| AgentError::Io { what, source }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed("the runtime can't be started"))?;
    let ended = runtime.block_on(start(config));
    // A look-up of a name may be stuck on its thread for long; nobody waits for it.
    runtime.shutdown_background();
    ended
}

async fn start(config: &Config) -> Result<(), AgentError> {
    let lock = config.state_dir.join("agent.lock");
    let _lock =
        crate::link::lock::FileLock::acquire_within(&lock, LOCK_WAIT).map_err(|error| AgentError::Io {
            what: format!("another agent holds {}", lock.display()),
            source: io::Error::other(error.to_string()),
        })?;
    let (keeper, welcome) = KeeperClient::connect_from_env().await?;
    let (store, stored) = Store::open(&config.state_dir)?;
    let identity = identity(&store, &stored.values).await?;
    let listener = bind_api(&config.socket)?;
    let host = notify::host_name();
    let (settings, wanted) = tokio::sync::watch::channel(Default::default());
    let (views, seen) = tokio::sync::watch::channel(Default::default());
    let (telling, teller) = (store.clone(), wanted.clone());
    let parts = Parts {
        keeper,
        keeper_pid: rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get().unsigned_abs()),
        store,
        identity,
        state_dir: config.state_dir.clone(),
        ports: PortAllocator::from_host()?,
        notify: Told { settings, views: seen },
        tester: Tester::new(wanted, host.clone()),
        heartbeats: Heartbeats::beside(&config.socket)
            .inspect_err(|error| tracing::warn!(%error, "no heartbeats can be received"))
            .ok(),
    };
    let (driver, ears, handle) = Driver::new(parts);
    let notifier = notify::Parts {
        store: telling,
        clock: driver.clock(),
        events: handle.events.subscribe(),
        snapshot: handle.snapshot.clone(),
        settings: teller,
        views,
        driver: driver.inbox(),
        host,
    };
    let telling = tokio::spawn(Notifier::new(notifier, &stored.values).run());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let mut first = handle.snapshot.clone();
    let serving = tokio::spawn(async move {
        // Whoever followed the agent before would take a snapshot without projects for their end, so they wait in the
        // listen queue. Of a driver that ends before it shows anything the API ends at once.
        drop(first.wait_for(|snapshot| snapshot.number > 0).await);
        let stopped = async move {
            // The sender is dropped, or sends, when the driver is done: either way the API ends.
            stopped.await.ok();
        };
        api::serve(listener, handle, stopped).await
    });
    let inbox = driver.inbox();
    let mut terminate = signal(SignalKind::terminate())
        .map_err(|source| AgentError::Io { what: "SIGTERM can't be caught".to_owned(), source })?;
    let watching = tokio::spawn(async move {
        if terminate.recv().await.is_some() {
            inbox.send(Input::Stop).await.ok();
        }
    });
    driver.run(ears, &stored, welcome).await;
    watching.abort();
    telling.abort();
    stop.send(()).ok();
    match serving.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(%error, "the API failed"),
        Err(error) => tracing::error!(%error, "the API ended badly"),
    }
    remove_socket(&config.socket);
    Ok(())
}

/// Who this daemon is: made once, then read back.
async fn identity(store: &Store, values: &[(String, String)]) -> Result<Identity, AgentError> {
    const KEY: &str = "identity";
    if let Some((_, owner)) = values.iter().find(|(key, _)| key == KEY) {
        return Ok(Identity { owner: owner.clone() });
    }
    let owner = uuid::Uuid::new_v4().to_string();
    let value = Some(owner.clone());
    store.commit(Change::SetValue { project: String::new(), key: KEY.to_owned(), value }).await?;
    Ok(Identity { owner })
}

/// Binds the API's socket with mode 0600. A socket file that nobody serves any more is replaced.
fn bind_api(socket: &Path) -> Result<UnixListener, AgentError> {
    let io_error =
        |what: &str, source| AgentError::Io { what: format!("{what} {}", socket.display()), source };
    if UnixStream::connect(socket).is_ok() {
        let source = io::Error::from(io::ErrorKind::AddrInUse);
        return Err(io_error("another daemon serves the API at", source));
    }
    if let Some(directory) = socket.parent() {
        std::fs::create_dir_all(directory)
            .map_err(|e| io_error("no directory can be made for the API's socket", e))?;
    }
    // Bound under another name first, so that nobody meets a socket with a looser mode, or none at all.
    let fresh = socket.with_extension("new");
    remove_socket(&fresh);
    let listener = UnixListener::bind(&fresh).map_err(|e| io_error("the API's socket can't be bound:", e))?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))
        .and_then(|()| std::fs::rename(&fresh, socket))
        .map_err(|e| io_error("the API's socket can't be put in its place:", e))?;
    Ok(listener)
}

fn remove_socket(socket: &Path) {
    if let Err(error) = std::fs::remove_file(socket)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, socket = %socket.display(), "the API's socket can't be removed");
    }
}
