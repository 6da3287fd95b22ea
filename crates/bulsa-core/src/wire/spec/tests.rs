mod traffic;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use proptest::{collection, option, prelude::*};

use super::*;
use crate::notify::{Format, Heartbeat, SecretUrl, Topic, Webhook};
use crate::spec::{
    Accept, AppPort, Bake, Balance, Care, Check, Condition, Dependency, Drain, Handover, Hold, Keep, Limits,
    Port, Probe, Protocol, ResourceLimits, Restart, Role, Rolling, Routing, Service, Times, TrustedProxy,
};

fn text() -> impl Strategy<Value = String> {
    "[a-z 한\"\\\\$\n]{0,8}"
}

fn time() -> impl Strategy<Value = Duration> {
    (0_u64..=u64::from(u32::MAX)).prop_map(Duration::from_millis)
}

fn some_time() -> impl Strategy<Value = Duration> {
    (1_u64..=u64::from(u32::MAX)).prop_map(Duration::from_millis)
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|n| IpAddr::V4(Ipv4Addr::from(n))),
        any::<u128>().prop_map(|n| IpAddr::V6(Ipv6Addr::from(n))),
    ]
}

fn port() -> impl Strategy<Value = Port> {
    (option::of(address()), any::<Option<u16>>(), any::<u16>()).prop_map(|(host, published, target)| Port {
        host,
        published,
        target,
        protocol: Protocol::Detect,
    })
}

fn notify() -> Notify {
    let url = |text| SecretUrl::parse(text).unwrap();
    let on = [Topic::Park, Topic::Deploy].into();
    let webhook = Webhook { url: url("https://hooks.example/a?b=c"), format: Format::Slack, on };
    let heartbeat = Heartbeat { url: url("http://beat.example/"), interval_ms: 5_000 };
    Notify { webhooks: vec![webhook], heartbeat: Some(heartbeat) }
}

fn probe() -> impl Strategy<Value = Probe> {
    let accept = prop_oneof![Just(Accept::Success), Just(Accept::AnyAnswer)];
    let check = prop_oneof![
        (any::<Option<u16>>(), text(), option::of(text()), accept)
            .prop_map(|(port, path, host, accept)| Check::Http { port, path, host, accept }),
        collection::vec(text(), 1..3).prop_map(Check::Exec),
        Just(Check::Up),
    ];
    (check, some_time(), some_time(), some_time(), 1_u32.., 1_u32.., time(), any::<bool>()).prop_map(
        |(check, interval, start_interval, timeout, rise, fall, start_period, declared)| Probe {
            check,
            interval,
            start_interval,
            timeout,
            rise,
            fall,
            start_period,
            declared,
        },
    )
}

fn app_port() -> impl Strategy<Value = AppPort> {
    prop_oneof![
        Just(AppPort::Env),
        any::<u16>().prop_map(AppPort::Fixed),
        any::<u16>().prop_map(AppPort::Isolated)
    ]
}

fn restart() -> impl Strategy<Value = Restart> {
    prop_oneof![Just(Restart::Always), any::<Option<u32>>().prop_map(Restart::OnFailure), Just(Restart::No)]
}

fn depends_on() -> impl Strategy<Value = BTreeMap<String, Dependency>> {
    let condition =
        prop_oneof![Just(Condition::Started), Just(Condition::Healthy), Just(Condition::Completed)];
    let one = (condition, any::<bool>(), any::<bool>());
    let one = one.prop_map(|(condition, required, restart)| Dependency { condition, required, restart });
    collection::btree_map(text(), one, 0..3)
}

fn care() -> impl Strategy<Value = Care> {
    let (memory, age, requests) = (option::of(any::<u64>()), option::of(time()), option::of(any::<u64>()));
    let all = (any::<u32>(), memory, age, requests);
    all.prop_map(|(spare, memory, age, requests)| Care { spare, memory, age, requests })
}

fn resources() -> impl Strategy<Value = ResourceLimits> {
    let limits = (option::of(any::<u64>()), option::of(any::<u64>()), option::of(any::<u64>()));
    limits.prop_map(|(millicpus, memory, pids)| ResourceLimits { millicpus, memory, pids })
}

fn service() -> impl Strategy<Value = Service> {
    let role = prop_oneof![Just(Role::App), Just(Role::Shared), Just(Role::Worker), Just(Role::Job)];
    let argv = ("[a-z]{1,5}", collection::vec(text(), 0..3)).prop_map(|(first, mut rest)| {
        rest.insert(0, first);
        rest
    });
    let texts = (text(), text(), option::of(text()), text());
    let env = collection::btree_map("[A-Z_]{1,5}", text(), 0..3);
    let numbers =
        (any::<u32>(), 1_i32..=64, any::<u32>(), (0_u32..=1_000_000).prop_map(|ppm| f64::from(ppm) / 1e6));
    let times = (time(), time(), (time(), time(), time()), time(), time());
    let rolling = (1_u32..9, any::<bool>(), 0_u64..100_000).prop_map(|(parallelism, stop_first, ms)| {
        Handover::Rolling(Rolling { parallelism, stop_first, delay: Duration::from_millis(ms) })
    });
    let handover = prop_oneof![Just(Handover::Overlap), Just(Handover::StopFirst), rolling];
    let ports = (collection::vec(port(), 0..3), traffic::routing());
    let traffic =
        (traffic::balance(), traffic::times(), option::of(text()), any::<bool>(), care(), resources());
    let rest = (ports, app_port(), probe(), handover, restart(), depends_on());
    (role, argv, texts, env, numbers, times, traffic, rest).prop_map(
        |(role, argv, texts, env, numbers, times, traffic, rest)| Service {
            name: String::new(),
            role,
            role_reason: texts.0,
            container: None,
            argv,
            env,
            working_dir: texts.1,
            user: texts.2,
            position: texts.3,
            replicas: numbers.0,
            stop_signal: numbers.1,
            balance: traffic.0,
            times: traffic.1,
            hold: Hold { time: times.3, requests: numbers.2, page: traffic.2 },
            access_log: traffic.3,
            care: traffic.4,
            resources: traffic.5,
            drill_block: traffic.3.then(|| "/block".to_owned()),
            heartbeat: traffic.3.then_some(Duration::from_secs(30)),
            bake: Bake { time: times.4, errors: numbers.3 },
            gate_timeout: times.0,
            stop_grace: times.1,
            drain: Drain { requests: times.2.0, websockets: times.2.1, stagger: times.2.2 },
            routing: traffic::published(rest.0.1, !rest.0.0.is_empty()),
            ports: rest.0.0,
            app_port: rest.1,
            probe: rest.2,
            handover: rest.3,
            restart: rest.4,
            depends_on: rest.5,
        },
    )
}

fn peer() -> impl Strategy<Value = TrustedProxy> {
    prop_oneof![
        Just(TrustedProxy::Loopback),
        Just(TrustedProxy::Project),
        (address(), 0_u8..=32).prop_map(|(address, bits)| TrustedProxy::Block(address, bits)),
    ]
}

fn spec() -> impl Strategy<Value = Spec> {
    let limits = any::<u32>().prop_map(|connections_per_address| Limits { connections_per_address });
    let services = collection::btree_map("[a-z]{1,5}", service(), 0..3);
    let rest = (collection::vec(peer(), 0..3), limits);
    ("[a-z0-9][a-z0-9_-]{0,5}", services, 2_u32.., time(), rest).prop_map(
        |(project, mut services, releases, warm, (trusted_proxies, limits))| {
            for (name, service) in &mut services {
                service.name.clone_from(name);
            }
            Spec {
                project,
                services,
                keep: Keep { releases, warm },
                trusted_proxies,
                limits,
                notify: notify(),
                ..Spec::default()
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_spec_survives_the_round_trip(spec in spec()) {
        let back = decode(&encode(&spec));
        prop_assert_eq!(back.map_err(|error| error.to_string()), Ok(spec));
    }

    #[test]
    fn equal_specs_have_equal_hashes_wherever_they_stand(spec in spec()) {
        let mut moved = spec.clone();
        moved.notify = Notify::default();
        for service in moved.services.values_mut() {
            service.position.push_str(":1:1");
            service.role_reason.push('!');
        }
        prop_assert_eq!(content_hash(&spec), content_hash(&moved));
        moved.keep.warm += Duration::from_millis(1);
        prop_assert_ne!(content_hash(&spec), content_hash(&moved));
    }

    #[test]
    fn no_text_panics(text in any::<String>()) {
        prop_assert!(decode(&text).is_err());
    }
}

/// One Spec with everything in it.
fn example() -> Spec {
    let service = Service {
        name: "web".to_owned(),
        role: Role::App,
        role_reason: "it publishes a port".to_owned(),
        container: None,
        argv: vec!["node".to_owned(), "server.js".to_owned()],
        env: BTreeMap::from([("A".to_owned(), "1".to_owned())]),
        working_dir: "/srv/shop".to_owned(),
        user: Some("www".to_owned()),
        replicas: 2,
        ports: vec![Port {
            host: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            published: Some(8080),
            target: 3000,
            protocol: Protocol::Detect,
        }],
        app_port: AppPort::Fixed(3000),
        probe: Probe {
            check: Check::Http { port: None, path: "/".to_owned(), host: None, accept: Accept::Success },
            interval: Duration::from_secs(2),
            start_interval: Duration::from_millis(10),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
            start_period: Duration::ZERO,
            declared: true,
        },
        gate_timeout: Duration::from_secs(120),
        routing: Routing::default(),
        balance: Balance::default(),
        times: Times::default(),
        drain: Drain::default(),
        hold: Hold::default(),
        access_log: false,
        care: Care::default(),
        resources: ResourceLimits::default(),
        drill_block: None,
        heartbeat: None,
        bake: Bake::default(),
        handover: Handover::Overlap,
        restart: Restart::OnFailure(Some(3)),
        stop_signal: 15,
        stop_grace: Duration::from_secs(10),
        depends_on: BTreeMap::from([(
            "db".to_owned(),
            Dependency { condition: Condition::Healthy, required: true, restart: false },
        )]),
        position: "compose.yaml:2:3".to_owned(),
    };
    Spec {
        project: "shop".to_owned(),
        services: BTreeMap::from([("web".to_owned(), service)]),
        keep: Keep::default(),
        trusted_proxies: vec![
            TrustedProxy::Loopback,
            TrustedProxy::Block(IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
        ],
        ..Spec::default()
    }
}

#[test]
fn version_1_looks_like_this_for_ever() {
    insta::assert_snapshot!(encode(&example()), @r#"{"version":1,"project":"shop","services":{"web":{"name":"web","role":"app","role_reason":"it publishes a port","argv":["node","server.js"],"env":{"A":"1"},"working_dir":"/srv/shop","user":"www","replicas":2,"ports":[{"host":"127.0.0.1","published":8080,"target":3000,"route_host":null,"route_path":"/"}],"app_port":{"fixed":3000},"probe":{"check":{"http":{"port":null,"path":"/","host":null,"accept":"success"}},"interval_ms":2000,"start_interval_ms":10,"timeout_ms":1000,"rise":2,"fall":3,"start_period_ms":0,"declared":true},"gate_timeout_ms":120000,"drain":{"requests_ms":30000,"websockets_ms":3600000,"stagger_ms":60000},"hold":{"time_ms":30000,"requests":1000},"bake":{"time_ms":60000,"errors_ppm":50000},"handover":"overlap","restart":{"on_failure":{"max":3}},"stop_signal":15,"stop_grace_ms":10000,"depends_on":{"db":{"condition":"healthy","required":true}},"position":"compose.yaml:2:3"}},"keep":{"releases":2,"warm_ms":600000},"trusted_proxies":["loopback",{"block":{"address":"::1","bits":128}}]}"#);
    insta::assert_snapshot!(content_hash(&example()), @"4806aefc3dfa3fda8bdc1bc8d3ee2cb17f858a2d3dcca193383156c497ea7cfc");
}

#[test]
fn replicas_are_part_of_the_hash() {
    let mut scaled = example();
    scaled.services.get_mut("web").unwrap().replicas = 3;
    assert_ne!(content_hash(&scaled), content_hash(&example()));
}

#[test]
fn where_an_image_came_from_is_no_part_of_the_hash() {
    let from = |is_pulled| {
        let mut spec = example();
        let container = crate::spec::container::Container { is_pulled, ..Default::default() };
        spec.services.get_mut("web").unwrap().container = Some(Box::new(container));
        content_hash(&spec)
    };
    assert_eq!(from(true), from(false));
}

#[test]
fn other_versions_are_refused_with_what_to_do() {
    let with_version =
        |version: u32| encode(&example()).replacen("\"version\":1", &format!("\"version\":{version}"), 1);
    let error = decode(&with_version(2)).unwrap_err().to_string();
    assert_eq!(
        error,
        "the Spec has version 2, and this program reads up to version 1: use the newer program"
    );
    assert!(matches!(decode(&with_version(0)), Err(SpecWireError::Unknown { found: 0 })));
    // A newer version may have any shape.
    assert!(matches!(decode("{\"version\":7,\"x\":[]}"), Err(SpecWireError::Newer { found: 7 })));
}

#[test]
fn values_that_no_file_can_give_are_refused() {
    for (from, to) in [
        ("\"argv\":[\"node\",\"server.js\"]", "\"argv\":[]"),
        ("\"argv\":[\"node\"", "\"argv\":[\"n\\u0000\""),
        ("\"env\":{\"A\"", "\"env\":{\"A=B\""),
        ("\"bits\":128", "\"bits\":129"),
        ("\"errors_ppm\":50000", "\"errors_ppm\":1000001"),
        ("\"stop_signal\":15", "\"stop_signal\":0"),
        ("\"releases\":2", "\"releases\":1"),
        ("\"project\":\"shop\"", "\"project\":\"../x\""),
        ("\"name\":\"web\"", "\"name\":\"db\""),
        ("\"fall\":3", "\"fall\":0"),
        ("\"interval_ms\":2000", "\"interval_ms\":0"),
    ] {
        let json = encode(&example());
        let broken = json.replacen(from, to, 1);
        assert_ne!(json, broken, "{from}");
        assert!(matches!(decode(&broken), Err(SpecWireError::Invalid(_))), "{to}");
    }
}
