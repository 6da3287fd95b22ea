//! A Spec whose images are known: the last step before a release.
//!
//! Owns: what an image adds to what the file says: its id, EXPOSE, HEALTHCHECK, VOLUME, STOPSIGNAL. Doing it twice
//! changes nothing.
//!
//! Never: asks an Engine or a registry; the facts come from outside.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use super::{
    Accept, Check, Handover, Protocol, Role, Service, Spec,
    container::{Container, Healthcheck, ImageFacts, MountSource},
    probe,
    rules::{self, ROLE_SAID, note},
};

/// The reason of an app that nothing but its image makes one; the port follows.
const IMAGE_EXPOSES: &str = "its image exposes port";

/// The Spec with what its images say, by service. A service without facts stays as it is.
#[must_use]
pub fn pin(mut spec: Spec, images: &BTreeMap<String, ImageFacts>) -> Spec {
    for service in spec.services.values_mut() {
        if let Some(facts) = images.get(&service.name) {
            pin_service(service, facts);
        }
    }
    spec
}

fn pin_service(service: &mut Service, facts: &ImageFacts) {
    let Some(container) = &mut service.container else { return };
    container.image_id = Some(facts.id.clone());
    container.is_pulled = facts.is_pulled;
    let in_file =
        container.expose.iter().any(|port| !facts.expose.contains(port)) || !service.ports.is_empty();
    for port in &facts.expose {
        if !container.expose.contains(port) {
            container.expose.push(port.clone());
        }
    }
    if let (None, Some(name)) = (&container.stop_signal, &facts.stop_signal)
        && let Some(number) = crate::compose::signal_number(name)
    {
        service.stop_signal = number;
    }
    become_app(service);
    let by_image = service.role_reason.starts_with(IMAGE_EXPOSES);
    probe_by_image(service, facts, by_image || (service.role_reason == ROLE_SAID && !in_file));
    lost_volumes(service, facts);
    anchor(service);
}

/// A service that names no port, and whose image does, is an app.
fn become_app(service: &mut Service) {
    let Some(container) = &service.container else { return };
    let inferred = service.role == Role::Worker && service.role_reason != ROLE_SAID;
    if !inferred || container.expose.is_empty() || !rules::own_network(container) {
        return;
    }
    let before: Vec<String> =
        rules::stop_first_reasons(service).iter().map(|why| rules::stop_first_note(why)).collect();
    let port = container.expose.first().map_or(0, |port| port.port);
    service.role = Role::App;
    service.role_reason = format!("{IMAGE_EXPOSES} {port}");
    let after: Vec<String> =
        rules::stop_first_reasons(service).iter().map(|why| rules::stop_first_note(why)).collect();
    let Some(container) = &mut service.container else { return };
    // Only what the worker's own reasons had brought about is taken back, not what the file asked for.
    let noted = !before.is_empty() && before.iter().all(|text| container.notes.contains(text));
    container.notes.retain(|text| !before.contains(text) || after.contains(text));
    if noted && after.is_empty() {
        service.handover = Handover::Overlap;
    }
    rules::settle_container_name(service);
}

fn probe_by_image(service: &mut Service, facts: &ImageFacts, only_image: bool) {
    let Some(container) = &service.container else { return };
    let written = container.healthcheck.clone().unwrap_or_default();
    if service.probe.declared || (!written.test.is_empty() && !probe::asks(&written.test)) {
        return;
    }
    let image = facts.healthcheck.as_ref().filter(|check| probe::asks(&check.test));
    // A program that the file puts in the place of the image's may listen nowhere, or elsewhere.
    let own_program = container.command.is_none() && container.entrypoint.is_none();
    if let (Some(image), true) = (image, service.role != Role::Job) {
        let joined = over(&written, image);
        service.probe = probe::declared(&joined);
        service.gate_timeout = service.gate_timeout.max(probe::needed(&service.probe, joined.interval));
    } else if service.role == Role::App && service.probe.check == Check::Up && only_image && own_program {
        let tcp = container.expose.iter().find(|port| port.protocol == "tcp");
        if let Some(port) = tcp {
            service.probe = probe::http(Some(port.port), "/", Accept::AnyAnswer, &written);
        }
    }
    service.gate_timeout = service.gate_timeout.max(probe::needed(&service.probe, None));
}

/// The image's test with the times of the file, as Docker joins them.
fn over(file: &Healthcheck, image: &Healthcheck) -> Healthcheck {
    Healthcheck {
        test: image.test.clone(),
        interval: file.interval.or(image.interval),
        timeout: file.timeout.or(image.timeout),
        start_period: file.start_period.or(image.start_period),
        start_interval: file.start_interval.or(image.start_interval),
        retries: file.retries.or(image.retries),
    }
}

fn lost_volumes(service: &mut Service, facts: &ImageFacts) {
    let Some(container) = service.container.as_mut().filter(|_| service.role == Role::App) else { return };
    let in_file = container.mounts.iter().any(|mount| matches!(mount.source, MountSource::Volume { .. }));
    for path in facts.volumes.iter().filter(|_| !in_file) {
        let covered =
            container.mounts.iter().any(|mount| mount.target == *path) || container.tmpfs.contains_key(path);
        if !covered {
            let text = format!(
                "its image declares a volume at {path}, and the file gives it none: what is written there is lost at \
                 each deploy; name a volume for it if it is data"
            );
            note(container, text);
        }
    }
}

/// The ports at which the name is served: all known TCP ports of an app, or none.
fn anchor(service: &mut Service) {
    let targets: Vec<u16> = service.ports.iter().map(|port| port.target).collect();
    let role = service.role;
    let Some(container) = &mut service.container else { return };
    container.anchor.clear();
    if role != Role::App {
        return;
    }
    let mut ports: Vec<u16> = targets;
    ports.extend(container.expose.iter().filter(|port| port.protocol == "tcp").map(|port| port.port));
    ports.sort_unstable();
    ports.dedup();
    if let Some(why) = plain_name(container, &ports) {
        note(
            container,
            format!("inside the project's networks its name means its replicas themselves: {why}"),
        );
    } else {
        container.anchor = ports;
    }
}

/// Why the replicas carry the name themselves.
fn plain_name(container: &Container, ports: &[u16]) -> Option<&'static str> {
    if container.networks.is_empty() {
        Some("`network_mode` leaves it no network of the project")
    } else if container.expose.iter().any(|port| port.protocol != "tcp") {
        Some("it has a port that isn't TCP, which Bulsa doesn't carry")
    } else if ports.is_empty() {
        Some("no port of it is known; `expose` would name one")
    } else {
        None
    }
}

/// Whether every published port is said to be plain TCP, so that no HTTP answer can be asked for.
pub(crate) fn only_tcp(service: &Service) -> bool {
    !service.ports.is_empty() && service.ports.iter().all(|port| port.protocol == Protocol::Tcp)
}
