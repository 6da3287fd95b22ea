//! What is known of an image that is on this host.
//!
//! Owns: reading the Engine's answer. Never: changes anything.

use std::time::Duration;

use bollard::{
    Docker,
    errors::Error,
    models::{HealthConfig, ImageConfig, ImageInspect},
};
use bulsa_core::{
    image::platform_matches,
    spec::container::{Healthcheck, ImageFacts, PortNumber},
};

use super::{ImageProblem, Resolved};

/// An image on this host.
#[derive(Clone, Debug)]
pub(super) struct Local {
    pub(super) facts: ImageFacts,
    /// `name:tag`, each.
    pub(super) tags: Vec<String>,
    /// `name@sha256:…`, each: under these a registry has it, or so it is said ([`Local::came_from_a_registry`]).
    pub(super) digests: Vec<String>,
    /// When it got its last name.
    pub(super) tagged: Option<jiff::Timestamp>,
    os: String,
    architecture: String,
    variant: String,
}

impl Local {
    pub(super) fn is_for(&self, platform: &str) -> bool {
        platform_matches(platform, &self.os, &self.architecture, &self.variant)
    }

    pub(super) fn not_for(&self, image: &str, wanted: &str) -> ImageProblem {
        let parts = [&self.os, &self.architecture, &self.variant];
        let parts: Vec<&str> =
            parts.into_iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
        ImageProblem::Platform { image: image.to_owned(), wanted: wanted.to_owned(), found: parts.join("/") }
    }

    /// Whether a registry is known to have it. With containerd's image store every name has a digest beside it, which is
    /// the image's own id and proves nothing; but there one that was pulled by its digest has that in its name.
    pub(super) fn came_from_a_registry(&self) -> bool {
        let digest = |name: &str| name.split_once('@').map(|(_, digest)| digest.to_owned());
        self.digests.iter().filter_map(|name| digest(name)).any(|digest| digest != self.facts.id)
            || self.tags.iter().any(|name| digest(name).is_some())
    }

    /// How long it has its tag; `None` where the Engine doesn't know, as for some that were pulled.
    pub(super) fn age(&self, now: jiff::Timestamp) -> Option<Duration> {
        Duration::try_from(now.duration_since(self.tagged?)).ok()
    }

    pub(super) fn resolved(self, note: Option<String>) -> Resolved {
        Resolved { facts: self.facts, note }
    }
}

/// Asks the Engine for an image by name or id; `None` where it has none.
pub(super) async fn inspect(docker: &Docker, image: &str) -> Result<Option<Local>, ImageProblem> {
    let problem = |detail: String| ImageProblem::Engine { what: format!("the image `{image}`"), detail };
    match docker.inspect_image(image).await {
        Ok(answer) => read(answer).map(Some).ok_or_else(|| problem("it gave no id".to_owned())),
        Err(Error::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
        Err(error) => Err(problem(error.to_string())),
    }
}

pub(super) fn read(answer: ImageInspect) -> Option<Local> {
    let config = answer.config.unwrap_or_default();
    // The Engine says "the year 1" where it doesn't know.
    let tagged = answer
        .metadata
        .and_then(|metadata| metadata.last_tag_time)
        .and_then(|time| time.to_string().parse::<jiff::Timestamp>().ok())
        .filter(|time| time.as_second() > 0);
    Some(Local {
        facts: facts(answer.id.filter(|id| !id.is_empty())?, config),
        tags: answer.repo_tags.unwrap_or_default(),
        digests: answer.repo_digests.unwrap_or_default(),
        tagged,
        os: answer.os.unwrap_or_default(),
        architecture: answer.architecture.unwrap_or_default(),
        variant: answer.variant.unwrap_or_default(),
    })
}

fn facts(id: String, config: ImageConfig) -> ImageFacts {
    let mut expose: Vec<PortNumber> =
        config.exposed_ports.unwrap_or_default().iter().filter_map(|port| exposed(port)).collect();
    expose.sort();
    let mut volumes = config.volumes.unwrap_or_default();
    volumes.sort();
    ImageFacts {
        id,
        is_pulled: false,
        expose,
        healthcheck: config.healthcheck.and_then(healthcheck),
        volumes,
        stop_signal: config.stop_signal.filter(|signal| !signal.is_empty()),
    }
}

/// `3000/tcp`, `3000`
fn exposed(port: &str) -> Option<PortNumber> {
    let (port, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
    Some(PortNumber { port: port.parse().ok()?, protocol: protocol.to_lowercase() })
}

fn healthcheck(health: HealthConfig) -> Option<Healthcheck> {
    let test = health.test.filter(|test| !test.is_empty())?;
    // Zero means Docker's default.
    let time = |nanoseconds: Option<i64>| {
        nanoseconds
            .and_then(|time| u64::try_from(time).ok())
            .filter(|time| *time > 0)
            .map(Duration::from_nanos)
    };
    Some(Healthcheck {
        test,
        interval: time(health.interval),
        timeout: time(health.timeout),
        start_period: time(health.start_period),
        start_interval: time(health.start_interval),
        retries: health
            .retries
            .and_then(|retries| u32::try_from(retries).ok())
            .filter(|retries| *retries > 0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(answer: &str) -> Option<Local> {
        read(serde_json::from_str(answer).unwrap())
    }

    #[test]
    fn an_engines_answer_is_read() {
        let local = local(
            r#"{"Id":"sha256:1","RepoTags":["shop:1"],"Os":"linux","Architecture":"amd64","Variant":"",
                "Metadata":{"LastTagTime":"2026-11-20T10:00:00.5+01:00"},
                "Config":{"ExposedPorts":{"8080/tcp":{},"53/udp":{},"80":{},"x/tcp":{}},"Volumes":{"/data":{}},
                "StopSignal":"SIGQUIT",
                "Healthcheck":{"Test":["CMD","true"],"Interval":2000000000,"Timeout":0,"Retries":4}}}"#,
        )
        .unwrap();
        let port = |port, protocol: &str| PortNumber { port, protocol: protocol.to_owned() };
        assert_eq!(local.facts.expose, [port(53, "udp"), port(80, "tcp"), port(8080, "tcp")]);
        assert_eq!(local.facts.volumes, ["/data"]);
        assert_eq!(local.facts.stop_signal.as_deref(), Some("SIGQUIT"));
        let health = local.facts.healthcheck.clone().unwrap();
        assert_eq!((health.interval, health.timeout), (Some(Duration::from_secs(2)), None));
        assert_eq!(health.retries, Some(4));
        let now = "2026-11-20T09:01:00.5Z".parse().unwrap();
        assert_eq!(local.age(now), Some(Duration::from_secs(60)));
        assert!(local.is_for("linux/amd64") && !local.is_for("linux/arm64"));
    }

    #[test]
    fn an_engine_that_knows_little_says_little() {
        let local = local(
            r#"{"Id":"sha256:1","RepoTags":null,"Metadata":{"LastTagTime":"0001-01-01T00:00:00Z"},
                "Config":{"ExposedPorts":null,"Volumes":null,"StopSignal":""}}"#,
        )
        .unwrap();
        assert_eq!(local.facts, ImageFacts { id: "sha256:1".to_owned(), ..ImageFacts::default() });
        assert_eq!(local.age("2026-11-20T09:01:00Z".parse().unwrap()), None);
        assert!(super::read(ImageInspect::default()).is_none());
    }
}
