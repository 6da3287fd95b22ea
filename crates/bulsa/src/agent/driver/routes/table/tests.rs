use std::sync::Arc;

use bulsa_core::{
    compose::{LoadInput, ReadError, SourceFile, load},
    decide::{Observed, Release, ReleaseState},
};
use bulsa_proxy::{HeaderRule, Policy, ProxyHeader, Redirect, Secret};

use super::*;

/// A project whose file has these services, each with two replicas that answer.
fn project(name: &str, top: &str, services: &[(&str, &str)]) -> Project {
    let body: String =
        services.iter().map(|(name, lines)| format!("  {name}: {{command: x, {lines}}}\n")).collect();
    let text = format!("name: {name}\n{top}services:\n{body}");
    let files = vec![SourceFile { path: "compose.yaml".to_owned(), text }];
    let mut read = |path: &str| {
        if path.ends_with(".html") { Ok("<p>soon".to_owned()) } else { Err(ReadError::NotFound) }
    };
    let loaded = load(LoadInput::new(files, "/srv/shop", &mut read));
    let spec = loaded.spec.unwrap_or_else(|| panic!("{}", loaded.diagnostics));
    let mut project = Project::new(name.to_owned(), Observed::new(0, 0));
    let release = ReleaseId(1);
    project.desired.live = Some(release);
    project.decision.table.release = Some(release);
    for (service, _) in services {
        let targets = [1, 2].map(|ordinal| {
            let id = ReplicaId { release, service: (*service).to_owned(), ordinal, attempt: 1 };
            (id, SocketAddr::from(([127, 0, 0, 1], 3000 + u16::try_from(ordinal).unwrap())))
        });
        let route = decide::Route { targets: targets.to_vec(), ..decide::Route::default() };
        project.decision.table.routes.insert((*service).to_owned(), route);
    }
    let release =
        Release { spec: Arc::new(spec), hash: String::new(), state: ReleaseState::Live, proven: true };
    project.desired.releases.insert(ReleaseId(1), release);
    project
}

/// The table for these projects, where ports 80 and 81 are open.
fn table(projects: &[Project]) -> Table {
    let any = SocketAddr::from(([0, 0, 0, 0], 1));
    let sockets = ["tcp/*:80", "tcp/*:81"].map(|name| (name.to_owned(), any)).into();
    let former = Table { secret: Some(Secret(vec![1; 32])), ..Table::empty(6) };
    let table =
        Routes { number: 6, sockets, per_address: 1, former }.table(projects.iter(), &Anchors::default());
    assert_eq!(table.check(), Ok(()));
    table
}

#[test]
fn what_a_human_holds_is_held_in_the_table_and_keeps_its_targets() {
    let of = |project: &Project| table(std::slice::from_ref(project)).services.remove(0);
    let mut shop = project("shop", "", &[("web", "ports: ['80:3000'], scale: 2")]);
    let free = of(&shop);
    shop.decision.table.routes.get_mut("web").unwrap().held = true;
    let held = of(&shop);
    assert!(!free.hold.on && held.hold.on);
    assert_eq!((held.targets.len(), held.targets), (2, free.targets));
}

#[test]
fn what_a_file_asks_of_the_proxy_is_in_the_table() {
    let web = "ports: ['80:3000'], scale: 2, x-bulsa: {route: [{host: shop.example, proxy_protocol: [10.0.0.0/8]}, \
               {host: www.shop.example, redirect: 'http://shop.example{path}{query}'}, \
               {path: /api, strip_prefix: true, response_headers: {Server: null}}], \
               balance: {policy: sticky, weight: [3, 1], max_fails: 0, slow_start: 30s, max_conns: 9, max_requests: 8}, \
               timeouts: {first_byte: 1m}, hold: {page: held.html}, access_log: true, probe: {path: /up}}";
    let table = table(&[project("shop", "", &[("web", web)])]);
    let [service] = &table.services[..] else { panic!("{:?}", table.services) };
    let weights: Vec<u32> = service.targets.iter().map(|target| target.weight).collect();
    assert_eq!((weights, service.balance.policy, service.balance.max_fails), (vec![3, 1], Policy::Sticky, 0));
    assert_eq!(
        (service.balance.slow_start_ms, service.balance.max_connections, service.balance.max_in_flight),
        (30_000, 9, 8)
    );
    assert_eq!((service.times.first_byte_ms, service.hold.page.as_deref()), (60_000, Some("<p>soon")));
    assert_eq!(service.health_path.as_deref(), Some("/up"));
    assert!(service.access_log);
    let [listener] = &table.listeners[..] else { panic!("{:?}", table.listeners) };
    assert_eq!(
        (listener.protocol, &listener.proxy_from[..]),
        (Protocol::Http, &["10.0.0.0/8".parse().unwrap()][..])
    );
    let [apex, www, api] = &listener.routes[..] else { panic!("{:?}", listener.routes) };
    assert_eq!(*apex, Route::new(Some("shop.example"), "/", 0));
    let to = Redirect { status: 308, to: "http://shop.example{path}{query}".to_owned() };
    assert_eq!((www.host.as_deref(), www.rules.redirect.as_ref()), (Some("www.shop.example"), Some(&to)));
    let server = HeaderRule { name: "Server".to_owned(), value: None };
    assert!(api.rules.strip_prefix && api.rules.response_headers == [server]);
    assert_eq!(table.secret, Some(Secret(vec![1; 32])));
}

#[test]
fn a_port_that_was_found_to_be_tcp_is_http_where_hosts_or_rules_are_asked_for() {
    let spoken = |route: &str| {
        let mut shop =
            project("shop", "", &[("web", &format!("ports: ['80:3000'], x-bulsa: {{route: {route}}}"))]);
        // Its check is no HTTP, and a replica was asked.
        let release = shop.desired.releases.get_mut(&ReleaseId(1)).unwrap();
        let mut spec = (*release.spec).clone();
        spec.services.get_mut("web").unwrap().probe.check = spec::Check::Up;
        release.spec = Arc::new(spec);
        shop.spoken.insert(("web".to_owned(), 3000), [(ReleaseId(1), spec::Protocol::Tcp)].into());
        table(&[shop]).listeners[0].protocol
    };
    assert_eq!(spoken("{}"), Protocol::Tcp);
    for route in ["{host: a.b}", "{path: /x}", "{response_headers: {A: b}}", "[{path: /x}, {path: /y}]"] {
        assert_eq!(spoken(route), Protocol::Http, "{route}");
    }
}

#[test]
fn a_replica_behind_tcp_gets_the_header_that_it_wants() {
    let db =
        "ports: ['80:5432'], x-bulsa: {route: {protocol: tcp, send_proxy: v2, proxy_protocol: [loopback]}}";
    let table = table(&[project("shop", "", &[("db", db)])]);
    assert_eq!(table.listeners[0].protocol, Protocol::Tcp);
    assert_eq!(table.listeners[0].proxy_from.len(), 2, "over IPv4 and IPv6");
    assert_eq!(table.services[0].send_proxy, Some(ProxyHeader::V2));
    assert_eq!(table.services[0].health_path, None);
}

#[test]
fn services_on_one_listener_expect_headers_from_the_peers_of_each() {
    let of = |host: &str, peer: &str| {
        format!("ports: ['80:1'], x-bulsa: {{route: {{host: {host}, proxy_protocol: [{peer}]}}}}")
    };
    let shop = project("shop", "", &[("a", &of("a.b", "10.0.0.0/8")), ("b", &of("c.d", "192.168.0.1"))]);
    let blog = project("blog", "", &[("c", &of("e.f", "10.0.0.0/8"))]);
    let table = table(&[shop, blog]);
    let peers: Vec<String> = table.listeners[0].proxy_from.iter().map(ToString::to_string).collect();
    assert_eq!(
        (table.listeners.len(), peers),
        (1, vec!["10.0.0.0/8".to_owned(), "192.168.0.1/32".to_owned()])
    );
}

#[test]
fn of_several_projects_the_one_that_allows_most_counts() {
    let limit = |projects: &[Option<u32>]| {
        let projects: Vec<Project> = projects
            .iter()
            .enumerate()
            .map(|(i, limit)| {
                let top = limit.map(|n| format!("x-bulsa: {{limits: {{connections_per_address: {n}}}}}\n"));
                project(&format!("p{i}"), &top.unwrap_or_default(), &[("web", "scale: 2")])
            })
            .collect();
        table(&projects).limits.connections_per_address
    };
    assert_eq!(limit(&[]), Limits::default().connections_per_address);
    assert_eq!(limit(&[Some(100)]), 100);
    assert_eq!(limit(&[Some(100), Some(200)]), 200);
    assert_eq!(limit(&[Some(100), None]), 4096);
    assert_eq!(limit(&[Some(0), Some(200), None]), 0);
}

#[test]
fn a_project_whose_containers_are_not_known_yet_keeps_its_former_routes_and_no_others() {
    let addr = SocketAddr::from(([10, 0, 0, 2], 3000));
    let service = |name: &str, id: &str| Service::new(name, vec![Target::new(id, addr)]);
    let listener = |name: &str, protocol, service| ListenerRoutes {
        protocol,
        ..ListenerRoutes::http(name, vec![Route::to(service)])
    };
    let former = Table {
        services: vec![service("other/web", "other/web-r1-1.1"), service("shop/db:5432", "shop/db-r1-1.1")],
        listeners: vec![listener("tcp/*:1", Protocol::Http, 0), listener("tcp/*:2", Protocol::Tcp, 1)],
        ..Table::empty(6)
    };
    let any = SocketAddr::from(([0, 0, 0, 0], 1));
    let sockets = ["tcp/*:1", "tcp/*:2"].map(|name| (name.to_owned(), any)).into();
    let routes = Routes { number: 6, sockets, per_address: 1, former };
    let anchors = Anchors::default();
    let mut maker = Maker::new(&routes, &anchors);
    maker.add_former("shop");
    let table = maker.finish();
    assert_eq!(table.check(), Ok(()));
    assert_eq!((table.number, table.services), (7, vec![service("shop/db:5432", "shop/db-r1-1.1")]));
    assert_eq!(table.listeners, [listener("tcp/*:2", Protocol::Tcp, 0)]);
    let targets: Vec<String> = routes.former_targets("shop").map(|id| id.to_string()).collect();
    assert_eq!(targets, ["db-r1-1.1"]);
}
