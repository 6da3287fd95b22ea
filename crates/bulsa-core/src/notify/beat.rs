//! Whether the heartbeat may be called.
//!
//! Owns: what "every service serves" means. Never: calls anything.

use crate::wire::api::{ServiceState, Snapshot};

/// Whether every service of a project serves, so that whoever waits for its heartbeat need not wake anybody. What a
/// person stopped is as it should be; but a project of which nothing at all runs doesn't serve. Neither does one whose
/// published ports no proxy serves.
#[must_use]
pub fn serves(snapshot: &Snapshot, project: &str) -> bool {
    let Some(project) = snapshot.project(project) else { return false };
    let is_right = |state| matches!(state, ServiceState::Healthy | ServiceState::Stopped);
    let runs = project.services.iter().any(|service| service.state == ServiceState::Healthy);
    let needs_proxy = project.services.iter().any(|service| !service.urls.is_empty());
    project.live.is_some()
        && runs
        && project.services.iter().all(|service| is_right(service.state))
        && (!needs_proxy || !snapshot.proxies.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::api::{AgentView, ProjectView, ProxyView, ServiceView};

    fn snapshot(states: &[ServiceState]) -> Snapshot {
        let service = |state: &ServiceState| ServiceView {
            name: "web".to_owned(),
            role: "app".to_owned(),
            desired: 1,
            ready: 1,
            withheld: 0,
            state: *state,
            reason: None,
            held: None,
            urls: vec!["http://localhost:8080".to_owned()],
            restarts: 0,
            next_retry_at_ms: None,
            finding: None,
            replicas: Vec::new(),
        };
        let proxy =
            ProxyView { generation: 1, pid: 1, table: 1, in_flight: 0, tunnels: 0, access_log_dropped: 0 };
        let services = states.iter().map(service).collect();
        let project =
            ProjectView { name: "shop".to_owned(), live: Some(1), services, ..ProjectView::default() };
        Snapshot {
            projects: vec![project],
            proxies: vec![proxy],
            agent: AgentView::default(),
            ..Snapshot::default()
        }
    }

    #[test]
    fn every_service_must_serve_and_what_a_person_stopped_is_right() {
        use ServiceState::{CrashLooping, Degraded, Down, Healthy, Starting, Stopped};
        assert!(serves(&snapshot(&[Healthy, Healthy]), "shop"));
        assert!(serves(&snapshot(&[Healthy, Stopped]), "shop"));
        for bad in [Starting, Degraded, CrashLooping, Down] {
            assert!(!serves(&snapshot(&[Healthy, bad]), "shop"), "{bad}");
        }
        assert!(!serves(&snapshot(&[Stopped]), "shop"));
        assert!(!serves(&snapshot(&[]), "shop"));
        assert!(!serves(&snapshot(&[Healthy]), "other"));
        let mut proxyless = snapshot(&[Healthy]);
        proxyless.proxies.clear();
        assert!(!serves(&proxyless, "shop"));
        proxyless.projects[0].services[0].urls.clear();
        assert!(serves(&proxyless, "shop"), "a worker needs no proxy");
        let mut new = snapshot(&[Healthy]);
        new.projects[0].live = None;
        assert!(!serves(&new, "shop"));
    }
}
