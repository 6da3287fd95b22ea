use super::*;
use crate::spec::{HeaderRule, Policy, ProxyHeader, Redirect, Route, Rules};

pub(super) fn balance() -> impl Strategy<Value = Balance> {
    let policy = prop_oneof![
        Just(Policy::RoundRobin),
        Just(Policy::LeastConn),
        Just(Policy::TwoChoices),
        Just(Policy::IpHash),
        Just(Policy::Sticky)
    ];
    let numbers = (any::<u32>(), any::<u32>(), any::<u32>());
    (policy, collection::vec(1_u32..=1000, 0..3), numbers, time(), time()).prop_map(
        |(policy, weights, numbers, fail_timeout, slow_start)| Balance {
            policy,
            weights,
            max_fails: numbers.0,
            fail_timeout,
            slow_start,
            max_conns: numbers.1,
            max_requests: numbers.2,
        },
    )
}

pub(super) fn times() -> impl Strategy<Value = Times> {
    (time(), time(), time()).prop_map(|(first_byte, tunnel_idle, tunnel_life)| Times {
        first_byte,
        tunnel_idle,
        tunnel_life,
    })
}

fn headers() -> impl Strategy<Value = Vec<HeaderRule>> {
    let rule = ("[A-Z][a-z]{1,3}-X", option::of("[ -~]{0,8}"));
    collection::vec(rule.prop_map(|(name, value)| HeaderRule { name, value }), 0..3)
}

fn route() -> impl Strategy<Value = Route> {
    let to = prop_oneof![Just("https://{host}{path}{query}"), Just("/new{path}")];
    let redirect = (prop_oneof![Just(301_u16), Just(308)], to)
        .prop_map(|(status, to)| Redirect { status, to: to.to_owned() });
    let rules = (any::<bool>(), option::of(redirect), headers(), headers());
    (option::of(text()), "/[a-z ]{0,5}", rules).prop_map(|(host, path, rules)| Route {
        host,
        path,
        rules: Rules {
            strip_prefix: rules.0,
            redirect: rules.1,
            request_headers: rules.2,
            response_headers: rules.3,
        },
    })
}

pub(super) fn routing() -> impl Strategy<Value = Routing> {
    let send_proxy = option::of(prop_oneof![Just(ProxyHeader::V1), Just(ProxyHeader::V2)]);
    let plain = route().prop_map(|route| vec![Route { rules: Rules::default(), ..route }]);
    let routes = prop_oneof![plain, collection::vec(route(), 1..4)];
    (routes, collection::vec(peer(), 0..3), send_proxy).prop_map(|(routes, proxy_from, send_proxy)| Routing {
        routes,
        proxy_from,
        send_proxy,
    })
}

/// Without a port there is no route.
pub(super) fn published(routing: Routing, is_published: bool) -> Routing {
    if is_published { routing } else { Routing { routes: Routing::default().routes, ..routing } }
}

/// The example, asking for everything that there is.
fn asking() -> Spec {
    let mut spec = example();
    spec.limits.connections_per_address = 0;
    let web = spec.services.get_mut("web").unwrap();
    web.routing = Routing {
        routes: vec![
            Route { host: Some("shop.example".to_owned()), ..Route::default() },
            Route {
                host: None,
                path: "/api".to_owned(),
                rules: Rules {
                    strip_prefix: true,
                    redirect: Some(Redirect { status: 308, to: "/new{path}".to_owned() }),
                    request_headers: vec![HeaderRule { name: "X-A".to_owned(), value: None }],
                    response_headers: vec![HeaderRule {
                        name: "X-B".to_owned(),
                        value: Some("b".to_owned()),
                    }],
                },
            },
        ],
        proxy_from: vec![TrustedProxy::Loopback],
        send_proxy: Some(ProxyHeader::V2),
    };
    web.balance = Balance { policy: Policy::Sticky, weights: vec![3, 1], max_fails: 0, ..Balance::default() };
    web.times.first_byte = Duration::from_secs(60);
    web.hold.page = Some("<p>soon".to_owned());
    spec
}

#[test]
fn what_is_asked_of_the_proxy_looks_like_this_for_ever() {
    let text = encode(&asking());
    let (_, ports) = text.split_once("\"ports\":").unwrap();
    insta::assert_snapshot!(ports, @r#"[{"host":"127.0.0.1","published":8080,"target":3000,"route_host":"shop.example","route_path":"/"}],"routing":{"routes":[{"host":"shop.example","path":"/"},{"host":null,"path":"/api","strip_prefix":true,"redirect":{"status":308,"to":"/new{path}"},"request_headers":[{"name":"X-A","value":null}],"response_headers":[{"name":"X-B","value":"b"}]}],"proxy_from":["loopback"],"send_proxy":"v2"},"app_port":{"fixed":3000},"probe":{"check":{"http":{"port":null,"path":"/","host":null,"accept":"success"}},"interval_ms":2000,"start_interval_ms":10,"timeout_ms":1000,"rise":2,"fall":3,"start_period_ms":0,"declared":true},"gate_timeout_ms":120000,"drain":{"requests_ms":30000,"websockets_ms":3600000,"stagger_ms":60000},"balance":{"policy":"sticky","weights":[3,1],"max_fails":0,"fail_timeout_ms":10000,"slow_start_ms":0,"max_conns":0,"max_requests":0},"times":{"first_byte_ms":60000,"tunnel_idle_ms":0,"tunnel_life_ms":0},"hold":{"time_ms":30000,"requests":1000,"page":"<p>soon"},"bake":{"time_ms":60000,"errors_ppm":50000},"handover":"overlap","restart":{"on_failure":{"max":3}},"stop_signal":15,"stop_grace_ms":10000,"depends_on":{"db":{"condition":"healthy","required":true}},"position":"compose.yaml:2:3"}},"keep":{"releases":2,"warm_ms":600000},"trusted_proxies":["loopback",{"block":{"address":"::1","bits":128}}],"limits":{"connections_per_address":0}}"#);
    insta::assert_snapshot!(content_hash(&asking()), @"6e856a5be0fb9eb4953875e2085f0eeac5a53c9982364c3b9c722453b4ba8c93");
    assert_eq!(decode(&encode(&asking())).unwrap(), asking());
}

#[test]
fn a_heartbeat_is_a_word_more_and_none_where_there_is_none() {
    let mut spec = example();
    assert!(!encode(&spec).contains("heartbeat"), "so that content hashes stay");
    spec.services.get_mut("web").unwrap().heartbeat = Some(std::time::Duration::from_secs(30));
    assert!(encode(&spec).contains(r#""heartbeat_ms":30000,"bake""#));
    assert_eq!(decode(&encode(&spec)).unwrap(), spec);
}

#[test]
fn an_access_log_is_a_word_more_and_none_where_it_is_off() {
    let mut spec = example();
    assert!(!encode(&spec).contains("access_log"), "so that content hashes stay");
    spec.services.get_mut("web").unwrap().access_log = true;
    assert!(encode(&spec).contains(r#""requests":1000},"access_log":true,"bake""#));
    assert_eq!(decode(&encode(&spec)).unwrap(), spec);
}

#[test]
fn a_spec_from_before_has_its_route_in_its_ports() {
    let json = encode(&example());
    let old = json.replacen(
        "\"route_host\":null,\"route_path\":\"/\"",
        "\"route_host\":\"shop.example\",\"route_path\":\"/api\"",
        1,
    );
    assert_ne!(json, old);
    let spec = decode(&old).unwrap();
    let route = Route { host: Some("shop.example".to_owned()), path: "/api".to_owned(), ..Route::default() };
    assert_eq!(spec.services["web"].routing, Routing { routes: vec![route], ..Routing::default() });
    assert_eq!(spec.services["web"].balance, Balance::default());
    assert_eq!(encode(&spec), old, "so that its content hash stays");
}

#[test]
fn what_would_keep_a_table_from_the_proxy_is_refused() {
    for (from, to) in [
        ("\"path\":\"/api\"", "\"path\":\"api\""),
        ("\"status\":308", "\"status\":200"),
        ("\"to\":\"/new{path}\"", "\"to\":\"//other.example\""),
        ("\"name\":\"X-A\"", "\"name\":\"Host\""),
        ("\"name\":\"X-A\"", "\"name\":\"X A\""),
        ("\"value\":\"b\"", "\"value\":\"b\\n\""),
        ("\"weights\":[3,1]", "\"weights\":[3,0]"),
        ("\"weights\":[3,1]", "\"weights\":[1001]"),
    ] {
        let json = encode(&asking());
        let broken = json.replacen(from, to, 1);
        assert_ne!(json, broken, "{from}");
        assert!(matches!(decode(&broken), Err(SpecWireError::Invalid(_))), "{to}");
    }
    let mut long = asking();
    long.services.get_mut("web").unwrap().hold.page = Some("x".repeat(64 * 1024 + 1));
    assert!(matches!(decode(&encode(&long)), Err(SpecWireError::Invalid(_))));
}
