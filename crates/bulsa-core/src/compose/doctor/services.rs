//! What is to be found in one service.

use std::path::Path;

use crate::{
    plan::role_name,
    spec::{
        self, Check, Condition, Handover, Restart, Role,
        container::{Container, MountSource},
        rules,
    },
};

use super::{
    super::{
        check::docker::{label_proxy, routing_label},
        diagnostic::Pos,
        model::{Docker, Project, Service},
        normalise::{self, images},
    },
    Finding, Level, traffic,
};

/// Adds findings about one service.
pub(super) struct Notes<'a> {
    pub(super) service: &'a Service,
    all: &'a mut Vec<Finding>,
}

impl Notes<'_> {
    pub(super) fn add(
        &mut self,
        level: Level,
        pos: &Pos,
        what: String,
        evidence: &str,
        patch: Option<String>,
    ) {
        self.all.push(Finding {
            level,
            service: Some(self.service.name.clone()),
            position: pos.to_string(),
            what,
            evidence: (!evidence.is_empty()).then(|| evidence.to_owned()),
            patch,
        });
    }
}

pub(super) fn look(service: &Service, resolved: &spec::Service, project: &Project, all: &mut Vec<Finding>) {
    let mut notes = Notes { service, all };
    role(&mut notes, resolved);
    ports(&mut notes, resolved);
    health(&mut notes, resolved);
    traffic::look(&mut notes, resolved);
    if resolved.restart == Restart::No && matches!(resolved.role, Role::App | Role::Worker) {
        let what = format!("`{}` says `restart: \"no\"`", service.name);
        let patch = Some("restart: unless-stopped, or no `restart` at all".to_owned());
        notes.add(
            Level::Warning,
            &service.pos,
            what,
            "when it dies it is only reported, and stays dead",
            patch,
        );
    }
    dependencies(&mut notes, project);
    let (Some(docker), Some(container)) = (&service.docker, &resolved.container) else { return };
    for note in &container.notes {
        notes.add(Level::Note, &service.pos, format!("`{}`: {note}", service.name), "", None);
    }
    labels(&mut notes, docker, resolved, project);
    data(&mut notes, docker, resolved, container);
    tag(&mut notes, docker, resolved, container);
    published_twice(&mut notes, resolved, container);
}

fn role(notes: &mut Notes<'_>, resolved: &spec::Service) {
    let what = format!("`{}` is {}", resolved.name, role_name(resolved.role));
    let pos = notes.service.pos.clone();
    notes.add(Level::Note, &pos, what, &resolved.role_reason, None);
}

fn ports(notes: &mut Notes<'_>, resolved: &spec::Service) {
    let name = &resolved.name;
    let pos = notes.service.ports.first().map_or(&notes.service.pos, |port| &port.pos).clone();
    let by_bulsa: Vec<String> = resolved
        .ports
        .iter()
        .map(|port| {
            let published =
                port.published.map_or("a port that the system chooses".to_owned(), |n| n.to_string());
            format!("{}{published}→{}", port.host.map_or(String::new(), |ip| format!("{ip} ")), port.target)
        })
        .collect();
    if !by_bulsa.is_empty() {
        let what = format!("Bulsa listens for `{name}`: {}", by_bulsa.join(", "));
        notes.add(Level::Note, &pos, what, "and balances over its healthy replicas", None);
    }
    let published = resolved.container.iter().flat_map(|container| &container.published);
    let by_docker: Vec<String> = published
        .map(|port| {
            let first = port.published.as_deref().unwrap_or("a port that the system chooses");
            format!("{first}→{}/{}", port.target, port.protocol)
        })
        .collect();
    if !by_docker.is_empty() {
        let what = format!("Docker publishes ports of `{name}`: {}", by_docker.join(", "));
        notes.add(Level::Note, &pos, what, "", None);
    }
}

fn health(notes: &mut Notes<'_>, resolved: &spec::Service) {
    if resolved.probe.declared || resolved.role != Role::App {
        return;
    }
    let evidence = match resolved.probe.check {
        Check::Up => "a new release passes its gate once it stayed up for a second",
        _ => "a new release passes its gate with any HTTP answer below 500",
    };
    let target = resolved.ports.first().map_or(80, |port| port.target);
    let patch = format!(
        "healthcheck: {{test: [\"CMD\", \"curl\", \"-f\", \"http://localhost:{target}/health\"]}}, or x-bulsa: {{probe: \
         {{path: /health}}}}; nothing to do if the image has a HEALTHCHECK"
    );
    let pos = notes.service.pos.clone();
    let what = format!("`{}` has no healthcheck in this file", resolved.name);
    notes.add(Level::Warning, &pos, what, evidence, Some(patch));
}

fn dependencies(notes: &mut Notes<'_>, project: &Project) {
    let service = notes.service;
    for (name, dependency) in &service.depends_on {
        let Some(other) = project.services.get(name) else { continue };
        let tested = other.healthcheck.as_ref().is_some_and(|check| {
            check.disable != Some(true)
                && check.test.as_ref().and_then(|test| test.first()).is_some_and(|form| form != "NONE")
        });
        if dependency.condition == Condition::Healthy && !tested && other.bulsa.probe.is_none() {
            notes.add(
                Level::Warning,
                &dependency.pos,
                format!(
                    "`{}` waits until `{name}` is healthy, and `{name}` has no healthcheck in this file",
                    service.name
                ),
                "Compose fails there unless the image has one; Bulsa takes that it is up for it",
                Some(format!("add a `healthcheck` to `{name}`, or say `condition: service_started`")),
            );
        }
    }
}

/// Routes that come from outside of the file.
fn labels(notes: &mut Notes<'_>, docker: &Docker, resolved: &spec::Service, project: &Project) {
    if !matches!(resolved.role, Role::App | Role::Worker) {
        return;
    }
    let name = resolved.name.as_str();
    if let (Some((label, pos)), None) = (routing_label(docker), label_proxy(project)) {
        notes.add(
            Level::Warning,
            pos,
            format!("`{name}` has the label `{label}`, by which a proxy finds its containers"),
            "such a proxy sends requests to every replica that runs, whether it is ready, old or new",
            Some("let that proxy send to the port that Bulsa publishes, and remove the label".to_owned()),
        );
    }
    if resolved.env.contains_key("VIRTUAL_HOST") {
        let pos = notes.service.pos.clone();
        notes.add(
            Level::Warning,
            &pos,
            format!("`{name}` sets VIRTUAL_HOST, by which nginx-proxy finds its containers"),
            "such a proxy sends requests to every replica that runs, whether it is ready, old or new",
            Some("publish the port with `ports` and `x-bulsa: {route: {host: …}}` instead".to_owned()),
        );
    }
}

/// What two replicas would write at once.
fn data(notes: &mut Notes<'_>, docker: &Docker, resolved: &spec::Service, container: &Container) {
    if !matches!(resolved.role, Role::App | Role::Worker) {
        return;
    }
    let overlap = resolved.handover == Handover::Overlap;
    if !overlap && resolved.replicas <= 1 {
        return;
    }
    let who = if overlap { "the old release and the new one" } else { "its replicas" };
    for (mount, pos) in container.mounts.iter().zip(&docker.at.mounts).filter(|(mount, _)| !mount.read_only) {
        let MountSource::Bind { path, .. } = &mount.source else { continue };
        if Path::new(path).extension().is_some_and(|extension| extension == "sock") {
            continue;
        }
        notes.add(
            Level::Warning,
            pos,
            format!("{who} of `{}` write into one place of this host: {path}", resolved.name),
            "fine for files that each writes under its own name or only appends to; not for a database or a lock file",
            Some("add `read_only: true` (`:ro`) if it only reads, or log to stdout and use `bulsa logs`".to_owned()),
        );
    }
    if overlap {
        for reason in rules::stop_first_reasons(resolved) {
            let pos = notes.service.pos.clone();
            notes.add(
                Level::Warning,
                &pos,
                format!("`{}` is replaced with an overlap, as the file asks", resolved.name),
                &reason,
                Some("x-bulsa: {handover: stop_first}".to_owned()),
            );
        }
    }
}

fn tag(notes: &mut Notes<'_>, docker: &Docker, resolved: &spec::Service, container: &Container) {
    let (Some(pos), None) = (&docker.at.image, &container.build) else { return };
    let image = container.image.as_str();
    let moving = matches!(images::tag(image), None | Some("latest")) && !image.contains('@');
    if !moving {
        return;
    }
    let what = format!("`{}` runs `{image}`, whose meaning changes with every pull", resolved.name);
    if resolved.role == Role::Shared {
        let evidence = match normalise::known(docker) {
            Some(images::Known::Backing("a database")) => {
                "a new major version can refuse to read the old one's data"
            }
            _ => "another host, or the same one later, runs something else",
        };
        let patch = Some(format!("name a version: {}:…", images::path(image)));
        notes.add(Level::Warning, pos, what, evidence, patch);
    } else {
        let evidence = "each deploy pulls it; a rollback uses the old image by its id";
        notes.add(Level::Note, pos, what, evidence, None);
    }
}

fn published_twice(notes: &mut Notes<'_>, resolved: &spec::Service, container: &Container) {
    let fixed = container
        .published
        .iter()
        .find(|port| port.published.as_ref().is_some_and(|published| !published.contains('-')));
    if let Some(port) = fixed.filter(|_| resolved.replicas > 1) {
        let pos = notes.service.ports.first().map_or(&notes.service.pos, |port| &port.pos).clone();
        let number = port.published.as_deref().unwrap_or_default();
        notes.add(
            Level::Breaks,
            &pos,
            format!("{} replicas of `{}` can't all publish port {number}", resolved.replicas, resolved.name),
            "Docker publishes the ports of a shared service, one container a port",
            Some("one replica, or `x-bulsa: {role: app}`".to_owned()),
        );
    }
}
