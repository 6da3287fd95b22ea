//! How an image is built: `build`.
//!
//! Owns: its resolved form; the rules of [`super`] hold for it. Never: knows the Engine's API.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Ulimit;

/// `build`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Build {
    /// The directory, absolute, or a URL.
    pub context: String,
    /// Relative to the context, or absolute.
    pub dockerfile: Option<String>,
    /// The Dockerfile's text, where the file has it.
    pub dockerfile_inline: Option<String>,
    /// `args`; those without a value anywhere are left out.
    pub args: BTreeMap<String, String>,
    /// `target`
    pub target: Option<String>,
    /// `labels`
    pub labels: BTreeMap<String, String>,
    /// `cache_from`
    pub cache_from: Vec<String>,
    /// `cache_to`
    pub cache_to: Vec<String>,
    /// `additional_contexts`
    pub additional_contexts: BTreeMap<String, String>,
    /// `extra_hosts`
    pub extra_hosts: Vec<(String, String)>,
    /// `network`
    pub network: Option<String>,
    /// `no_cache`
    pub no_cache: bool,
    /// `pull`
    pub pull: bool,
    /// `platforms`
    pub platforms: Vec<String>,
    /// `privileged`
    pub privileged: bool,
    /// `shm_size`, in bytes.
    pub shm_size: Option<i64>,
    /// `ssh`, as written.
    pub ssh: Vec<String>,
    /// `secrets`, by id.
    pub secrets: BTreeMap<String, BuildSecret>,
    /// The values of variables that `secrets` name. They are for who builds, and are stored and sent nowhere.
    #[serde(skip)]
    pub variables: BTreeMap<String, String>,
    /// `tags`
    pub tags: Vec<String>,
    /// `ulimits`
    pub ulimits: BTreeMap<String, Ulimit>,
    /// `isolation`
    pub isolation: Option<String>,
    /// `entitlements`
    pub entitlements: Vec<String>,
    /// `provenance`
    pub provenance: Option<String>,
    /// `sbom`
    pub sbom: Option<String>,
}

/// Where a secret of a build is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BuildSecret {
    /// In this file.
    File(String),
    /// In this variable of the builder's environment.
    Variable(String),
}
