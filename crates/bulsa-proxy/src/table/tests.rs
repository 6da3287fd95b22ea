//! What a sound table is.

use super::*;

fn table() -> Table {
    Table {
        listeners: vec![ListenerRoutes::http("http", vec![Route::to(0)])],
        services: vec![Service::new("web", vec![Target::new("web.1", ([127, 0, 0, 1], 3000).into())])],
        trusted: vec!["127.0.0.0/8".parse().unwrap()],
        ..Table::empty(3)
    }
}

#[test]
fn a_table_survives_json() {
    let json = serde_json::to_string(&table()).unwrap();
    assert_eq!(serde_json::from_str::<Table>(&json).unwrap(), table());
}

#[test]
fn fields_added_later_are_ignored_and_missing_lists_are_empty() {
    let json = r#"{"version":3,"number":2,"listeners":[],"services":[],"colours":{"a":1}}"#;
    assert_eq!(serde_json::from_str::<Table>(json).unwrap(), Table::empty(2));
}

#[test]
fn a_sound_table_passes() {
    assert_eq!(table().check(), Ok(()));
}

#[test]
fn another_version_is_refused() {
    let error = Table { version: 4, ..table() }.check().unwrap_err();
    assert_eq!(error.to_string(), "route table 3 has version 4, this proxy reads versions 1 to 3");
    assert!(matches!(Table { version: 0, ..table() }.check(), Err(TableError::Version { found: 0, .. })));
}

#[test]
fn a_route_to_no_service_is_refused() {
    let mut table = table();
    table.listeners[0].routes[0].service = 1;
    assert!(matches!(table.check(), Err(TableError::NoSuchService { service: 1, services: 1, .. })));
}

#[test]
fn names_are_unique() {
    let mut twice = table();
    twice.services.push(twice.services[0].clone());
    assert!(matches!(twice.check(), Err(TableError::Twice { what: "service", .. })));
    let mut twice = table();
    twice.listeners.push(twice.listeners[0].clone());
    assert!(matches!(twice.check(), Err(TableError::Twice { what: "listener", .. })));
    let mut twice = table();
    let target = twice.services[0].targets[0].clone();
    twice.services[0].targets.push(target);
    assert!(matches!(twice.check(), Err(TableError::Twice { what: "target", .. })));
}

#[test]
fn a_path_without_a_slash_and_an_endless_hold_are_refused() {
    let mut bad = table();
    bad.listeners[0].routes[0].path = "api".into();
    assert!(matches!(bad.check(), Err(TableError::Path { .. })));
    let mut bad = table();
    bad.services[0].hold.time_ms = u64::MAX;
    assert!(matches!(bad.check(), Err(TableError::TooMany { .. })));
}

#[test]
fn a_table_from_before_tcp_is_read_as_http() {
    let json = r#"{"version":1,"number":2,"services":[{"name":"web","targets":[],"hold":{"time_ms":1,"requests":1}}],
        "listeners":[{"name":"http","routes":[{"path":"/","service":0}]}]}"#;
    let old: Table = serde_json::from_str(json).unwrap();
    assert_eq!(old.check(), Ok(()));
    assert_eq!(old.listeners[0].protocol, Protocol::Http);
    let spoken = serde_json::to_string(&[Protocol::Http, Protocol::Tcp]).unwrap();
    assert_eq!(spoken, r#"["http","tcp"]"#);
}

#[test]
fn a_tcp_listener_has_one_route_for_everything() {
    let mut tcp = table();
    tcp.listeners[0].protocol = Protocol::Tcp;
    assert_eq!(tcp.check(), Ok(()));
    let refused = |change: fn(&mut Vec<Route>)| {
        let mut bad = tcp.clone();
        change(&mut bad.listeners[0].routes);
        matches!(bad.check(), Err(TableError::TcpRoute { number: 3, .. }))
    };
    assert!(refused(Vec::clear));
    assert!(refused(|routes| routes.push(routes[0].clone())));
    assert!(refused(|routes| routes[0].host = Some("shop.example".into())));
    assert!(refused(|routes| routes[0].path = "/api".into()));
}

#[test]
fn services_may_share_a_target_at_different_addresses() {
    let mut two_ports = table();
    let mut other = two_ports.services[0].clone();
    other.name = "metrics".into();
    other.targets[0].addr = "127.0.0.1:9090".parse().unwrap();
    two_ports.services.push(other.clone());
    assert_eq!(two_ports.check(), Ok(()));
    two_ports.services[0].targets.push(other.targets[0].clone());
    assert!(matches!(two_ports.check(), Err(TableError::Twice { what: "target", .. })), "not within one");
}
