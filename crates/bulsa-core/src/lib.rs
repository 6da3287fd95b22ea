//! The pure part of Bulsa: what a compose file means, what a release is, and what to do next.
//!
//! Owns: the compose model ([`compose`]), the normalised desired state ([`spec`]), the decision ([`decide`]) with
//! its parts ([`health`], [`backoff`]), what a drill is ([`drill`]), what an image's name means ([`image`]), and the versioned types that cross a
//! socket or a disk ([`wire`]).
//!
//! Never: touches a file or a socket, reads a clock, draws a random number, or knows an async runtime. Everything
//! that this crate needs from the world is an argument, so that every decision can be replayed.

#![forbid(unsafe_code)]

pub mod availability;
pub mod backoff;
pub mod budget;
pub mod compose;
pub mod decide;
pub mod drill;
pub mod health;
pub mod heartbeat;
pub mod host;
pub mod ids;
pub mod image;
pub mod notify;
pub mod plan;
pub mod room;
pub mod spec;
pub mod sync;
pub mod time;
pub mod triage;
pub mod why;
pub mod wire;
