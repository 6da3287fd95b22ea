//! How a container is reached, and reaches others: `networks`, `network_mode`, ports.
//!
//! Owns: its resolved form; the rules of [`super`] hold for it. Never: knows the Engine's API.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use serde::{Deserialize, Serialize};

/// How a service joins a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attachment {
    /// Further names, besides the service's own.
    pub aliases: Vec<String>,
    /// `ipv4_address`
    pub ipv4: Option<Ipv4Addr>,
    /// `ipv6_address`
    pub ipv6: Option<Ipv6Addr>,
    /// `link_local_ips`
    pub link_local_ips: Vec<String>,
    /// `mac_address`
    pub mac_address: Option<String>,
    /// `driver_opts`
    pub driver_options: BTreeMap<String, String>,
    /// `priority`: higher ones are joined first.
    pub priority: i64,
    /// `gw_priority`
    pub gateway_priority: Option<i64>,
    /// `interface_name`
    pub interface_name: Option<String>,
}

/// `network_mode`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkMode {
    /// `none`
    None,
    /// `host`
    Host,
    /// `bridge`: the Engine's default one.
    Bridge,
    /// `service:NAME`
    Service(String),
    /// `container:NAME`
    Container(String),
    /// A network that was made elsewhere, by name.
    Named(String),
}

/// A port and its protocol (`tcp`, `udp`, `sctp`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortNumber {
    /// The number.
    pub port: u16,
    /// The protocol.
    pub protocol: String,
}

/// A port that Docker publishes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// The host's address; `None` is every one.
    pub host: Option<IpAddr>,
    /// A port or a range (`8000-8010`); `None` lets the system choose.
    pub published: Option<String>,
    /// The container's port.
    pub target: u16,
    /// `tcp`, `udp`, `sctp`
    pub protocol: String,
}

/// One entry of the top's `networks`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Network {
    /// The Engine's name of it: `PROJECT_KEY`, or what `name` says.
    pub name: String,
    /// Whether it was made elsewhere and must exist.
    pub external: bool,
    /// `driver`; the Engine's default is `bridge`.
    pub driver: Option<String>,
    /// `driver_opts`
    pub driver_options: BTreeMap<String, String>,
    /// `ipam.driver`
    pub ipam_driver: Option<String>,
    /// `ipam.options`
    pub ipam_options: BTreeMap<String, String>,
    /// `ipam.config`
    pub subnets: Vec<Subnet>,
    /// `internal`
    pub internal: bool,
    /// `attachable`
    pub attachable: bool,
    /// `enable_ipv4`
    pub ipv4: Option<bool>,
    /// `enable_ipv6`
    pub ipv6: Option<bool>,
    /// `labels`
    pub labels: BTreeMap<String, String>,
}

/// One entry of `ipam.config`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Subnet {
    /// `subnet`, in CIDR form.
    pub subnet: Option<String>,
    /// `ip_range`, in CIDR form.
    pub ip_range: Option<String>,
    /// `gateway`
    pub gateway: Option<String>,
    /// `aux_addresses`
    pub aux_addresses: BTreeMap<String, String>,
}
