//! Bulsa: one binary that makes a Docker Compose project undying.
//!
//! The rooms, in reading order: [`cli`] (one file per command) and what it needs ([`client`], [`output`], [`report`],
//! [`paths`]), [`agent`] (the control plane: driver, process engine, probes, store, API), [`keeper`] (the tiny parent
//! of everything), [`proxy_process`] (the process around [`bulsa_proxy`]), and [`link`] (what passes between the
//! three).

pub mod agent;
pub mod cli;
pub mod client;
mod daemon_log;
pub mod demo;
pub mod entries;
pub mod keeper;
pub mod link;
pub mod load;
pub mod output;
pub mod paths;
pub mod proxy_process;
pub mod report;
