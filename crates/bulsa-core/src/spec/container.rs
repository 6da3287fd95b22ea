//! What a replica on the docker engine is made of: the image and everything that the Engine is told beside it.
//!
//! Owns: the resolved form of every compose key that says how a container is built and run. These types are part of
//! the stored form of a release ([`crate::wire::spec`], version 1): a field that is added has a default, and none
//! changes its meaning. Sizes are in bytes, times in nanoseconds where the Engine has them so, else [`Duration`].
//!
//! Never: knows a container's id, an address, or the Engine's API; that is the agent's docker engine.

mod build;
mod isolation;
mod mount;
mod network;
mod resources;

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

pub use build::{Build, BuildSecret};
pub use isolation::Isolation;
pub use mount::{Mount, MountSource, Volume};
pub use network::{Attachment, Network, NetworkMode, PortNumber, Published, Subnet};
pub use resources::{BlockIo, DeviceRequest, Resources, Ulimit};

/// How the replicas of a service are made on the docker engine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Container {
    /// The image as the file names it (`shop:1.4`); `PROJECT-SERVICE` for one that is only built.
    pub image: String,
    /// The image that this release means, by its id (`sha256:…`); `None` until the release is made.
    pub image_id: Option<String>,
    /// Whether a registry gave that image, or said that it is still the one, when the release was made.
    pub is_pulled: bool,
    /// How it is built.
    pub build: Option<Build>,
    /// When it is pulled.
    pub pull_policy: PullPolicy,
    /// `os/arch[/variant]`.
    pub platform: Option<String>,
    /// The name that the file gives the container. An `app` service has it as an alias on its networks.
    pub container_name: Option<String>,
    /// Replaces the image's entrypoint; an empty list removes it.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's command.
    pub command: Option<Vec<String>>,
    /// Inside the container; the image's where the file says nothing.
    pub working_dir: Option<String>,
    /// `hostname`
    pub hostname: Option<String>,
    /// `domainname`
    pub domainname: Option<String>,
    /// The file's labels, `label_file` included. Compose's and our own are not in it.
    pub labels: BTreeMap<String, String>,
    /// `annotations`
    pub annotations: BTreeMap<String, String>,
    /// `volumes`: named, anonymous, binds; and `tmpfs` in its long form.
    pub mounts: Vec<Mount>,
    /// The short form of `tmpfs`, by path, with its options (`size=64m`, or empty).
    pub tmpfs: BTreeMap<String, String>,
    /// `volumes_from`: `service[:ro]` or `container:NAME[:ro]`.
    pub volumes_from: Vec<String>,
    /// The networks that it joins, by their key in the file. Empty with [`Container::network_mode`].
    pub networks: BTreeMap<String, Attachment>,
    /// `network_mode`, where it isn't a set of networks.
    pub network_mode: Option<NetworkMode>,
    /// The ports that the file says it listens on: `expose`, and the targets of `ports`. After the release is made,
    /// the image's too.
    pub expose: Vec<PortNumber>,
    /// The ports that Docker publishes: those of a `shared` service. What Bulsa publishes is in
    /// [`super::Service::ports`].
    pub published: Vec<Published>,
    /// The ports at which the service's name is served by Bulsa inside the project's networks, through an anchor.
    /// Empty: the replicas carry the name themselves.
    pub anchor: Vec<u16>,
    /// `extra_hosts`, in the order of the file: name and address, or `host-gateway`.
    pub extra_hosts: Vec<(String, String)>,
    /// `dns`
    pub dns: Vec<String>,
    /// `dns_search`
    pub dns_search: Vec<String>,
    /// `dns_opt`
    pub dns_options: Vec<String>,
    /// `links`: service and the alias that it has here.
    pub links: Vec<(String, String)>,
    /// `external_links`, as written.
    pub external_links: Vec<String>,
    /// `healthcheck`, as Docker itself is to run it; `None` leaves the image's.
    pub healthcheck: Option<Healthcheck>,
    /// Memory, processors and other bounds.
    pub resources: Resources,
    /// Rights and isolation.
    pub isolation: Isolation,
    /// `init`
    pub init: Option<bool>,
    /// `tty`
    pub tty: bool,
    /// `stdin_open`
    pub stdin_open: bool,
    /// `logging`; `None` leaves the Engine's default.
    pub logging: Option<Logging>,
    /// `runtime`
    pub runtime: Option<String>,
    /// `shm_size`, in bytes.
    pub shm_size: Option<i64>,
    /// `storage_opt`
    pub storage_options: BTreeMap<String, String>,
    /// `stop_signal` as written (`SIGQUIT`, `3`); `None` leaves the image's.
    pub stop_signal: Option<String>,
    /// `secrets` and `configs`, with what is in them.
    pub files: Vec<FileGrant>,
    /// `post_start`
    pub post_start: Vec<Hook>,
    /// `pre_stop`
    pub pre_stop: Vec<Hook>,
    /// `restart` in Docker's own words (`no`, `always`, `unless-stopped`, `on-failure:N`), for what Docker restarts:
    /// a `shared` service. `None`: the file says nothing.
    pub docker_restart: Option<String>,
    /// Notes on keys that were understood and can't be kept on this engine, for the plan.
    pub notes: Vec<String>,
}

impl Container {
    /// The keys of the volumes that it mounts.
    pub fn named_volumes(&self) -> impl Iterator<Item = &str> {
        self.mounts.iter().filter_map(|mount| match &mount.source {
            MountSource::Volume { name: Some(name), .. } => Some(name.as_str()),
            _ => None,
        })
    }
}

/// `pull_policy`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PullPolicy {
    /// The file says nothing: an `app`'s image is pulled at each deploy (a tag may have moved), any other when missing.
    #[default]
    Default,
    /// `always`
    Always,
    /// `missing`, `if_not_present`
    Missing,
    /// `never`
    Never,
    /// `build`
    Build,
    /// `daily`, `weekly`, `every_…`: when the local one is older, in seconds.
    Older(u64),
}

/// `healthcheck`, for Docker's own runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", …]`; empty leaves the image's.
    pub test: Vec<String>,
    /// From one run to the next.
    pub interval: Option<Duration>,
    /// A run that takes longer has failed.
    pub timeout: Option<Duration>,
    /// Failures don't count for so long.
    pub start_period: Option<Duration>,
    /// From one run to the next within the start period (Engine 25 and newer).
    pub start_interval: Option<Duration>,
    /// So many failures in a row.
    pub retries: Option<u32>,
}

/// `logging`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Logging {
    /// `driver`
    pub driver: Option<String>,
    /// `options`
    pub options: BTreeMap<String, String>,
}

/// A secret or a config as it is put into a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FileGrant {
    /// Its key in the file, for messages.
    pub name: String,
    /// Absolute, in the container.
    pub target: String,
    /// What is in it.
    pub content: Vec<u8>,
    /// The owner; the Engine's default where the file says nothing.
    pub uid: Option<String>,
    /// The group.
    pub gid: Option<String>,
    /// Permission bits; 0444 where the file says nothing.
    pub mode: Option<u32>,
}

/// `post_start` or `pre_stop`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hook {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// `user`
    pub user: Option<String>,
    /// `privileged`
    pub privileged: bool,
    /// `working_dir`
    pub working_dir: Option<String>,
    /// `environment`
    pub environment: BTreeMap<String, String>,
}

/// What is known of an image once it is on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageFacts {
    /// Its id, `sha256:…`.
    pub id: String,
    /// Whether it was just pulled: a registry has it.
    pub is_pulled: bool,
    /// EXPOSE
    pub expose: Vec<PortNumber>,
    /// HEALTHCHECK
    pub healthcheck: Option<Healthcheck>,
    /// VOLUME: paths that get an anonymous volume.
    pub volumes: Vec<String>,
    /// STOPSIGNAL
    pub stop_signal: Option<String>,
}
