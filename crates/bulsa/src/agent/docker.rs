//! The docker engine's host side: replicas as containers of a Docker Engine, over its API.
//!
//! Owns: the connection, and every word that is said to the Engine: how a replica's container is made
//! ([`create`], `start`), what is there ([`found`], [`watch`]), networks and volumes, probes by exec, logs.
//! Never: decides anything, keeps a state of its own beside the Engine's, pulls or builds an image, or touches a
//! container, network or volume that it was not asked about by id or that carries no label of ours.
//!
//! Ours is what has the label [`label::OWNER`] with this daemon's identity. Engines from 20.10 (API 1.41) on are
//! served; what a newer one can do better is asked for by [`EngineInfo::api`]. The requests carry no version, so an
//! Engine answers in its own newest shape; what is read here is in all of them.

mod containers;
pub mod create;
pub mod error;
mod exec;
pub mod found;
pub mod logs;
mod networks;
mod recreate;
mod start;
pub mod subnets;
mod sync;
mod upload;
mod volumes;
pub mod watch;

use std::{
    collections::BTreeSet,
    future::Future,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

pub use self::{
    create::StartReplica,
    error::{DockerError, StartProblem},
    exec::ExecOutcome,
    found::{Found, State},
    logs::{LogLine, LogQuery},
    start::Running,
    watch::{Happened, News},
};

/// Where an Engine listens unless `DOCKER_HOST` says otherwise.
pub const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// The oldest API that is served: that of Docker Engine 20.10.
pub const API_OLDEST: (u32, u32) = (1, 41);

/// How long the Engine may take for an answer that it has at hand.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(30);

/// How long it may take to make or start something: pulling up a file system or a network on a busy disk.
pub(crate) const WORK_MAX: Duration = Duration::from_secs(120);

/// The labels that are Bulsa's own.
pub mod label {
    /// The identity of the daemon that made it.
    pub const OWNER: &str = "bulsa.owner";
    /// The project.
    pub const PROJECT: &str = "bulsa.project";
    /// [`bulsa_core::ids::ReplicaId`] as text.
    pub const REPLICA: &str = "bulsa.replica";
    /// [`bulsa_core::ids::ReleaseId`] as text.
    pub const RELEASE: &str = "bulsa.release";
    /// The service whose name an anchor carries.
    pub const ANCHOR: &str = "bulsa.anchor";
    /// `app`, `shared`, `worker` or `job`.
    pub const ROLE: &str = "bulsa.role";
    /// [`bulsa_core::spec::drift::form`]: what a `shared` service's container was made from.
    pub const FORM: &str = "bulsa.form";
}

/// What is known of the Engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineInfo {
    /// Its version, as it writes it: `20.10.24+dfsg1`.
    pub version: String,
    /// Its newest API.
    pub api: (u32, u32),
    /// Whether containers survive its restart.
    pub live_restore: bool,
    /// 1 or 2.
    pub cgroup: u8,
    /// As it writes it: `Debian GNU/Linux 12 (bookworm)`, `Docker Desktop`.
    pub operating_system: String,
}

impl EngineInfo {
    /// Whether its API is at least 1.`minor`.
    #[must_use]
    pub fn has(&self, minor: u32) -> bool {
        self.api >= (1, minor)
    }
}

/// A connection to an Engine; cheap to clone.
#[derive(Clone, Debug)]
pub struct Docker {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    client: bollard::Docker,
    socket: PathBuf,
    owner: String,
    engine: Mutex<EngineInfo>,
    /// Projects whose containers made by Compose are listed and watched too.
    adopted: Mutex<BTreeSet<String>>,
    /// Held while networks are looked for and made: old Engines make two of the same name.
    making_networks: tokio::sync::Mutex<()>,
}

impl Docker {
    /// Connects to the Engine that `DOCKER_HOST` names (a Unix socket), or the system's.
    ///
    /// `owner` is this daemon's identity, which every container, network and volume made here carries.
    ///
    /// # Errors
    /// If there is none, it may not be used, or it is older than [`API_OLDEST`].
    pub async fn connect(owner: &str) -> Result<Self, DockerError> {
        let host = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty());
        Self::connect_to(&socket_of(host.as_deref())?, owner).await
    }

    /// Connects to the Engine that listens at `socket`.
    ///
    /// # Errors
    /// As [`Docker::connect`].
    pub async fn connect_to(socket: &std::path::Path, owner: &str) -> Result<Self, DockerError> {
        let client = bollard::Docker::connect_with_unix(
            &socket.to_string_lossy(),
            ANSWER_MAX.as_secs(),
            bollard::API_DEFAULT_VERSION,
        )
        .map_err(|error| DockerError::unreachable(socket, &error))?;
        let inner = Inner {
            client,
            socket: socket.to_owned(),
            owner: owner.to_owned(),
            engine: Mutex::default(),
            adopted: Mutex::default(),
            making_networks: tokio::sync::Mutex::default(),
        };
        let docker = Self { inner: Arc::new(inner) };
        docker.look().await?;
        Ok(docker)
    }

    /// What is known of the Engine, as of the last time it was connected to.
    #[must_use]
    pub fn engine(&self) -> EngineInfo {
        self.inner.engine.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The identity that marks what is ours.
    #[must_use]
    pub fn owner(&self) -> &str {
        &self.inner.owner
    }

    /// From now on, lists and news also have what Compose made for these projects.
    pub fn adopt(&self, projects: BTreeSet<String>) {
        *self.inner.adopted.lock().unwrap_or_else(PoisonError::into_inner) = projects;
    }

    fn adopted(&self) -> BTreeSet<String> {
        self.inner.adopted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The client, for the parts of the agent that have words of their own for the Engine (images, anchors).
    #[must_use]
    pub fn client(&self) -> &bollard::Docker {
        &self.inner.client
    }

    /// Asks the Engine who it is. It may have been upgraded since the last time.
    async fn look(&self) -> Result<EngineInfo, DockerError> {
        let unreachable =
            |error: &bollard::errors::Error| DockerError::unreachable(&self.inner.socket, error);
        let version = limited("asked for its version", ANSWER_MAX, self.client().version()).await;
        let version = match version {
            Ok(version) => version.map_err(|error| unreachable(&error))?,
            Err(error) => return Err(error),
        };
        let api = version.api_version.as_deref().and_then(parse_api);
        let text = version.version.unwrap_or_default();
        let api = match api {
            Some(api) if api >= API_OLDEST => api,
            api => return Err(DockerError::TooOld { version: text, api }),
        };
        let info = limited("asked for its state", ANSWER_MAX, self.client().info())
            .await?
            .map_err(|error| unreachable(&error))?;
        if info.security_options.unwrap_or_default().iter().any(|option| option.contains("rootless")) {
            return Err(DockerError::Rootless { socket: self.inner.socket.display().to_string() });
        }
        let engine = EngineInfo {
            version: text,
            api,
            live_restore: info.live_restore_enabled.unwrap_or_default(),
            cgroup: match info.cgroup_version {
                Some(bollard::models::SystemInfoCgroupVersionEnum::_2) => 2,
                _ => 1,
            },
            operating_system: info.operating_system.unwrap_or_default(),
        };
        *self.inner.engine.lock().unwrap_or_else(PoisonError::into_inner) = engine.clone();
        Ok(engine)
    }

    /// One call, bounded in time: the client's own limit ends with the head of an answer.
    pub(crate) async fn call<T>(
        &self,
        what: &str,
        limit: Duration,
        work: impl Future<Output = Result<T, bollard::errors::Error>>,
    ) -> Result<T, DockerError> {
        limited(what, limit, work).await?.map_err(|error| DockerError::of(what, &self.inner.socket, error))
    }
}

async fn limited<T>(what: &str, limit: Duration, work: impl Future<Output = T>) -> Result<T, DockerError> {
    tokio::time::timeout(limit, work)
        .await
        .map_err(|_| DockerError::Silent { what: what.to_owned(), seconds: limit.as_secs() })
}

/// The socket that `DOCKER_HOST` means; without one it is the system's.
///
/// # Errors
/// [`DockerError::NotLocal`] for anything but a Unix socket.
pub fn socket_of(host: Option<&str>) -> Result<PathBuf, DockerError> {
    match host {
        None => Ok(PathBuf::from(DEFAULT_SOCKET)),
        Some(host) => match host.strip_prefix("unix://") {
            Some(path) if path.starts_with('/') => Ok(PathBuf::from(path)),
            _ => Err(DockerError::NotLocal { host: host.to_owned() }),
        },
    }
}

fn parse_api(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_socket_of_this_host_is_taken() {
        assert_eq!(socket_of(None).unwrap(), PathBuf::from(DEFAULT_SOCKET));
        assert_eq!(socket_of(Some("unix:///run/x.sock")).unwrap(), PathBuf::from("/run/x.sock"));
        for host in ["tcp://10.0.0.1:2376", "ssh://me@there", "unix://relative", "/run/x.sock"] {
            let error = socket_of(Some(host)).unwrap_err().to_string();
            assert!(error.contains(host) && error.contains("unix:///"), "{error}");
        }
    }

    #[test]
    fn versions_are_compared_by_number() {
        let engine = EngineInfo { api: parse_api("1.9").unwrap(), ..EngineInfo::default() };
        assert!(!engine.has(41));
        assert!(EngineInfo { api: parse_api("1.100").unwrap(), ..EngineInfo::default() }.has(44));
        assert_eq!(parse_api("x"), None);
    }
}
