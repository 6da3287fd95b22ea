//! Images, as far as they can be reasoned about without an Engine.
//!
//! Owns: what an image's name means ([`Reference`]), whether a deploy pulls it ([`step`]), which ones are needed no more
//! ([`inventory`]), and which files of a build context are left out ([`Ignore`]). Never: asks an Engine or a registry, or reads a file; that is the agent's
//! `images` and the command line's `build`.

mod ignore;
mod policy;
mod reference;
mod surplus;

pub use self::{
    ignore::{Ignore, IgnoreError},
    policy::{Situation, Step, platform_matches, step},
    reference::{HUB, Reference, ReferenceError, is_image_id},
    surplus::{Inventory, Surplus, inventory},
};
