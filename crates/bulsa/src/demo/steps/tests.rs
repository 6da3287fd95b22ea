use bulsa_core::wire::api::{AgentView, ProjectView, ServiceState, ServiceView};

use super::*;

fn snapshot(ready: u32, proxies: &[(u64, u32)]) -> Snapshot {
    let replica = |release, ordinal, pid| ReplicaView {
        release,
        ordinal,
        attempt: 1,
        pid: Some(pid),
        state: "ready".to_owned(),
        ..ReplicaView::default()
    };
    let service = ServiceView {
        name: project::SERVICE.to_owned(),
        role: "app".to_owned(),
        desired: 2,
        withheld: 0,
        ready,
        state: ServiceState::Healthy,
        reason: None,
        held: None,
        urls: vec![],
        restarts: 0,
        next_retry_at_ms: None,
        finding: None,
        replicas: vec![replica(1, 1, 11), replica(2, 1, 21), replica(2, 2, 22)],
    };
    let project = ProjectView {
        name: project::NAME.to_owned(),
        live: Some(2),
        services: vec![service],
        ..ProjectView::default()
    };
    let proxies = proxies.iter().map(|&(generation, pid)| ProxyView {
        generation,
        pid,
        table: 1,
        in_flight: 0,
        tunnels: 0,
        access_log_dropped: 0,
    });
    Snapshot {
        projects: vec![project],
        proxies: proxies.collect(),
        agent: AgentView { pid: std::process::id(), ..AgentView::default() },
        keeper_pid: std::process::id(),
        ..Snapshot::default()
    }
}

#[test]
fn the_injured_worker_is_one_of_the_live_release() {
    let snapshot = snapshot(2, &[(1, 5)]);
    assert_eq!(
        worker(&snapshot, 1).and_then(|replica| replica.pid),
        Some(21),
        "not that of the warm release"
    );
    assert_eq!(worker(&snapshot, 3), None);
}

#[test]
fn a_step_begins_only_with_every_worker_ready_and_a_proxy_there() {
    assert!(well(&snapshot(2, &[(1, 5)])).is_some());
    assert!(well(&snapshot(1, &[(1, 5)])).is_none());
    assert!(well(&snapshot(2, &[])).is_none());
    assert!(well(&Snapshot::default()).is_none());
}

#[test]
fn the_newest_proxy_is_the_one_that_is_killed() {
    assert_eq!(proxy(&snapshot(2, &[(3, 33), (4, 44), (2, 22)])).map(|proxy| proxy.pid), Some(44));
}

#[test]
fn memory_is_summed_over_the_daemons_processes() {
    let one = memory_kib(&snapshot(2, &[])).unwrap();
    assert!(one > 0);
    assert_eq!(memory_kib(&snapshot(2, &[(1, u32::MAX)])), None, "a process that is gone leaves no half sum");
}
