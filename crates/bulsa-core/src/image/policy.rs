//! Whether a deploy pulls an image.
//!
//! Owns: the table of `pull_policy`, roles, ids and `--no-pull`. Never: pulls.

use std::time::Duration;

use crate::spec::{
    Role,
    container::{Container, PullPolicy},
};

use super::{Reference, is_image_id};

/// What is known when it is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Situation {
    /// Whether the image is on this host, for the wanted platform.
    pub present: bool,
    /// How long ago the local one came here or was checked against its registry; `None`: not known.
    pub age: Option<Duration>,
    /// Whether the user said `--no-pull`.
    pub no_pull: bool,
}

/// What is done about an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The one on this host is taken.
    Local,
    /// It is pulled, and nothing else will do: there is none on this host.
    Pull,
    /// It is pulled; where the registry can't be reached or doesn't know it, the one on this host is taken.
    PullOrLocal,
    /// There is none, and it may not be pulled.
    Missing(&'static str),
}

/// What a deploy does about the image of a service.
///
/// Without a `pull_policy` an `app`, a `worker` or a `job` gets its tag pulled each time, since a tag may have moved
/// (Compose itself would only pull what is missing; people who ship by pushing a tag again run `docker compose pull`
/// first). A `shared` service gets what is missing. What is built here, an id, and a digest that is here are never
/// pulled: there is nothing newer.
#[must_use]
pub fn step(container: &Container, role: Role, situation: Situation) -> Step {
    let Situation { present, age, no_pull } = situation;
    if present && (no_pull || is_fixed(&container.image)) {
        return Step::Local;
    }
    let missing = |why| if present { Step::Local } else { Step::Missing(why) };
    if is_image_id(&container.image) {
        return missing("an image that is named by its id can't be pulled");
    }
    if no_pull {
        return missing("`--no-pull` was given");
    }
    let if_missing = if present { Step::Local } else { Step::Pull };
    let always = if present { Step::PullOrLocal } else { Step::Pull };
    match container.pull_policy {
        PullPolicy::Never => missing("its `pull_policy` is `never`"),
        PullPolicy::Build => missing("it should have been built"),
        PullPolicy::Default if container.build.is_some() => missing("it should have been built"),
        PullPolicy::Missing => if_missing,
        PullPolicy::Always => always,
        PullPolicy::Default if role == Role::Shared => if_missing,
        PullPolicy::Default => always,
        PullPolicy::Older(seconds) => match age {
            Some(age) if present && age < Duration::from_secs(seconds) => Step::Local,
            _ => always,
        },
    }
}

/// Whether the name can only ever mean one image.
fn is_fixed(image: &str) -> bool {
    is_image_id(image) || Reference::parse(image).is_ok_and(|reference| reference.digest.is_some())
}

/// Whether an image for `os/architecture[/variant]` is one for the `wanted` platform, in any of the usual spellings
/// (`linux/amd64`, `amd64`, `linux/aarch64`). A variant counts only where both name one.
#[must_use]
pub fn platform_matches(wanted: &str, os: &str, architecture: &str, variant: &str) -> bool {
    let parts: Vec<&str> = wanted.split('/').collect();
    let (wanted_os, wanted_architecture, wanted_variant) = match parts.as_slice() {
        ["linux" | "windows" | "darwin" | "freebsd"] => return parts[0] == os,
        [architecture] => ("", *architecture, ""),
        [os, architecture] => (*os, *architecture, ""),
        [os, architecture, variant, ..] => (*os, *architecture, *variant),
        [] => return true,
    };
    let same = |wanted: &str, is: &str| wanted.is_empty() || is.is_empty() || wanted == is;
    // 64-bit ARM has one variant that matters, and it is often left out.
    let plain = |variant: &str, architecture: &str| {
        if architecture == "arm64" && variant == "v8" { String::new() } else { variant.to_owned() }
    };
    let (wanted_architecture, architecture) = (usual(wanted_architecture), usual(architecture));
    same(wanted_os, os)
        && same(wanted_architecture, architecture)
        && same(&plain(wanted_variant, wanted_architecture), &plain(variant, architecture))
}

fn usual(architecture: &str) -> &str {
    match architecture {
        "x86_64" | "x86-64" => "amd64",
        "aarch64" => "arm64",
        "armhf" | "armel" => "arm",
        "i386" => "386",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::container::Build;

    const HERE: Situation = Situation { present: true, age: None, no_pull: false };
    const NOT_HERE: Situation = Situation { present: false, ..HERE };

    fn container(image: &str, pull_policy: PullPolicy) -> Container {
        Container { image: image.to_owned(), pull_policy, ..Container::default() }
    }

    #[test]
    fn the_table() {
        use {PullPolicy as P, Role as R, Step as S};
        for (policy, role, here, not_here) in [
            (P::Default, R::App, S::PullOrLocal, S::Pull),
            (P::Default, R::Worker, S::PullOrLocal, S::Pull),
            (P::Default, R::Job, S::PullOrLocal, S::Pull),
            (P::Default, R::Shared, S::Local, S::Pull),
            (P::Always, R::Shared, S::PullOrLocal, S::Pull),
            (P::Missing, R::App, S::Local, S::Pull),
            (P::Never, R::App, S::Local, S::Missing("its `pull_policy` is `never`")),
            (P::Build, R::App, S::Local, S::Missing("it should have been built")),
        ] {
            let container = container("shop:1", policy);
            assert_eq!(step(&container, role, HERE), here, "{policy:?} {role:?}");
            assert_eq!(step(&container, role, NOT_HERE), not_here, "{policy:?} {role:?}");
        }
    }

    #[test]
    fn an_old_one_is_pulled_and_a_young_one_is_not() {
        let container = container("shop:1", PullPolicy::Older(3600));
        let aged = |seconds| Situation { age: Some(Duration::from_secs(seconds)), ..HERE };
        assert_eq!(step(&container, Role::App, aged(3599)), Step::Local);
        assert_eq!(step(&container, Role::App, aged(3600)), Step::PullOrLocal);
        assert_eq!(step(&container, Role::App, HERE), Step::PullOrLocal);
        assert_eq!(step(&container, Role::App, NOT_HERE), Step::Pull);
    }

    #[test]
    fn without_pulling_what_is_missing_is_an_error() {
        let no_pull = |present| Situation { no_pull: true, present, age: None };
        for policy in [PullPolicy::Default, PullPolicy::Always, PullPolicy::Missing] {
            let container = container("shop:1", policy);
            assert_eq!(step(&container, Role::App, no_pull(true)), Step::Local);
            assert_eq!(step(&container, Role::App, no_pull(false)), Step::Missing("`--no-pull` was given"));
        }
    }

    #[test]
    fn what_can_have_no_newer_one_is_not_pulled_again() {
        let hex = "0".repeat(64);
        for policy in [PullPolicy::Default, PullPolicy::Always, PullPolicy::Older(1)] {
            let by_digest = container(&format!("shop:1@sha256:{hex}"), policy);
            assert_eq!(step(&by_digest, Role::App, HERE), Step::Local);
            assert_eq!(step(&by_digest, Role::App, NOT_HERE), Step::Pull);
            let by_id = container(&format!("sha256:{hex}"), policy);
            assert_eq!(step(&by_id, Role::App, HERE), Step::Local);
            assert!(matches!(step(&by_id, Role::App, NOT_HERE), Step::Missing(_)));
        }
    }

    #[test]
    fn what_is_built_here_is_not_pulled_unless_it_says_so() {
        let built = |policy| Container { build: Some(Build::default()), ..container("shop:1", policy) };
        assert_eq!(step(&built(PullPolicy::Default), Role::App, HERE), Step::Local);
        assert!(matches!(step(&built(PullPolicy::Default), Role::App, NOT_HERE), Step::Missing(_)));
        assert_eq!(step(&built(PullPolicy::Always), Role::App, HERE), Step::PullOrLocal);
    }

    #[test]
    fn platforms_in_their_usual_spellings() {
        for wanted in ["linux/amd64", "amd64", "linux/x86_64", "linux", "linux/amd64/v1"] {
            assert!(platform_matches(wanted, "linux", "amd64", ""), "{wanted}");
        }
        for wanted in ["linux/arm64", "arm64", "windows/amd64", "windows", "linux/386"] {
            assert!(!platform_matches(wanted, "linux", "amd64", ""), "{wanted}");
        }
        assert!(platform_matches("linux/aarch64", "linux", "arm64", "v8"));
        assert!(platform_matches("linux/arm64/v8", "linux", "arm64", ""));
        assert!(!platform_matches("linux/arm/v7", "linux", "arm", "v6"));
    }
}
