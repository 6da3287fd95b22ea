//! Examples and properties of [`bulsa_core::decide`].
//!
//! The examples read as a story: a [`world::World`] is brought up, something happens, and the log of what was
//! committed, routed, started and stopped is compared with what should have been. The properties hold small
//! independent models against the parts that carry the most: who is let in ([`admit_model`]), when a replica can't be
//! chosen any more ([`unrouted_model`]), how long a crash loop waits ([`score_model`]), and that no sequence of events
//! makes `decide` panic or start a slot twice ([`any_events`]).

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a world that isn't as a test says it is ends the test"
)]

mod admit_model;
mod adoption;
mod any_events;
mod bake;
mod build;
mod care;
mod dependencies;
mod deploy;
mod docker;
mod drain;
mod events;
mod heal;
mod holds;
mod humans;
mod proxies;
mod recreate;
mod requests;
mod restart_policy;
mod rollback;
mod rolling;
mod score_model;
mod stop_first;
mod unrouted_model;
mod wishes;
mod world;
