//! What follows from a container for the way its service is replaced.
//!
//! Owns: why two releases can't run side by side, what an alias stands for, and which ports are known. Used where the
//! file is read and again where the image is known, so that both say the same.

use super::{
    Handover, Role, Service,
    container::{Attachment, Container, MountSource, NetworkMode},
};

/// The reason of a role that `x-bulsa.role` gave.
pub(crate) const ROLE_SAID: &str = "the file says so";

/// Why the old replicas must stop before new ones start; empty where they can run side by side.
pub(crate) fn stop_first_reasons(service: &Service) -> Vec<String> {
    let mut why = written_volumes(service);
    why.extend(had_once(service));
    why
}

/// The data that two releases would write at once. Whether the program minds its author knows best.
fn written_volumes(service: &Service) -> Vec<String> {
    let Some(container) = service.container.as_ref().filter(|_| is_replaced(service)) else {
        return Vec::new();
    };
    let written = container.mounts.iter().filter(|mount| !mount.read_only);
    let named = written.filter_map(|mount| match &mount.source {
        MountSource::Volume { name: Some(name), .. } => Some((name, &mount.target)),
        _ => None,
    });
    let why =
        |(name, target)| format!("the volume `{name}` at {target} would be written by two releases at once");
    named.map(why).collect()
}

fn is_replaced(service: &Service) -> bool {
    matches!(service.role, Role::App | Role::Worker)
}

/// What the Engine gives to one container at a time: nobody's word makes two of it.
fn had_once(service: &Service) -> Vec<String> {
    let Some(container) = service.container.as_ref().filter(|_| is_replaced(service)) else {
        return Vec::new();
    };
    let mut why = Vec::new();
    for (network, attachment) in &container.networks {
        if has_fixed_address(attachment) {
            why.push(format!("its fixed address on the network `{network}` can be had once"));
        }
    }
    if container.isolation.mac_address.is_some() {
        why.push("its `mac_address` can be had once".to_owned());
    }
    match &container.network_mode {
        Some(NetworkMode::Host) => {
            why.push("it listens on the host's own ports, which can be had once".to_owned());
        }
        Some(NetworkMode::Service(other)) => {
            why.push(format!("it shares the network of `{other}`, whose ports can be had once"));
        }
        Some(NetworkMode::Container(other)) => {
            why.push(format!(
                "it shares the network of the container `{other}`, whose ports can be had once"
            ));
        }
        _ => {}
    }
    if let (Role::Worker, Some(name)) = (service.role, &container.container_name) {
        why.push(format!("the name `{name}` (`container_name`) can be had once"));
    }
    why
}

fn has_fixed_address(attachment: &Attachment) -> bool {
    attachment.ipv4.is_some() || attachment.ipv6.is_some() || attachment.mac_address.is_some()
}

/// The note for such a reason.
pub(crate) fn stop_first_note(reason: &str) -> String {
    format!("the old replica stops before the new one starts, and requests are held meanwhile: {reason}")
}

/// Adds a note once.
pub(crate) fn note(container: &mut Container, text: String) {
    if !container.notes.contains(&text) {
        container.notes.push(text);
    }
}

/// Sets the handover where something makes it necessary, with a note for each reason.
pub(crate) fn settle_handover(service: &mut Service) {
    let reasons = stop_first_reasons(service);
    stop_first(service, reasons);
}

/// The same where the file says that the new replicas start first: only what can be had once stands against it.
pub(crate) fn settle_start_first(service: &mut Service) {
    let reasons = had_once(service);
    stop_first(service, reasons);
}

fn stop_first(service: &mut Service, reasons: Vec<String>) {
    note_anonymous(service);
    if reasons.is_empty() {
        return;
    }
    service.handover = Handover::StopFirst;
    if let Some(container) = &mut service.container {
        for reason in reasons {
            note(container, stop_first_note(&reason));
        }
    }
}

/// Each replica has anonymous volumes of its own, so they are no reason against two at once; but nothing carries them
/// over to the next.
fn note_anonymous(service: &mut Service) {
    let Some(container) =
        service.container.as_mut().filter(|_| matches!(service.role, Role::App | Role::Worker))
    else {
        return;
    };
    let is_anonymous = |mount: &&super::container::Mount| {
        matches!(mount.source, MountSource::Volume { name: None, .. }) && !mount.read_only
    };
    let targets: Vec<String> =
        container.mounts.iter().filter(is_anonymous).map(|mount| mount.target.clone()).collect();
    for target in targets {
        let text = format!(
            "the volume at {target} has no name: each replica has its own, and it ends with the replica"
        );
        note(container, text);
    }
}

impl Service {
    /// The paths of this host that it mounts, and where in the container, for people.
    #[must_use]
    pub fn binds(&self) -> Vec<String> {
        let mounts = self.container.iter().flat_map(|container| &container.mounts);
        mounts
            .filter_map(|mount| match &mount.source {
                MountSource::Bind { path, .. } => Some(format!("{path} at {}", mount.target)),
                _ => None,
            })
            .collect()
    }
}

/// What lies on the host is no part of a release: both releases see it as it is, and no rollback brings it back.
pub(crate) fn note_binds(service: &mut Service) {
    let binds = service.binds();
    if let Some(container) = service.container.as_mut().filter(|_| !binds.is_empty()) {
        let text = format!(
            "no part of a release, both of them see it as it is now, and no rollback brings it back: {}",
            binds.join(", ")
        );
        note(container, text);
    }
}

/// An app's replicas can't all have one name: it becomes a further name on the networks, where Bulsa answers for it.
pub(crate) fn settle_container_name(service: &mut Service) {
    let Some(container) = service.container.as_mut().filter(|_| service.role == Role::App) else { return };
    let Some(name) = container.container_name.clone() else { return };
    for attachment in container.networks.values_mut() {
        if name != service.name && !attachment.aliases.contains(&name) {
            attachment.aliases.push(name.clone());
        }
    }
    let text = if container.networks.is_empty() {
        format!("`container_name: {name}` isn't kept: each replica of a release has a name of its own")
    } else {
        format!(
            "`container_name: {name}` is a further name of it on its networks: each replica has a name of its own"
        )
    };
    note(container, text);
}

/// Whether its network is one of its own, so that something can stand in front of it.
pub(crate) fn own_network(container: &Container) -> bool {
    matches!(container.network_mode, None | Some(NetworkMode::Bridge | NetworkMode::Named(_)))
}
