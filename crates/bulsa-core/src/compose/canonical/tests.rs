use super::{super::tree, *};

fn canonical(text: &str) -> (Node, Diagnostics) {
    let mut diags = Diagnostics::default();
    let mut root = tree::parse("compose.yaml", text, &mut diags).unwrap();
    canonicalise(&mut root, &mut diags);
    (root, diags)
}

fn json(node: &Node) -> serde_json::Value {
    super::super::config::verbatim(node)
}

const EVERYTHING: &str = r#"
services:
  web:
    build: .
    command: run 'a b'
    depends_on: [db]
    env_file: a.env
    environment: [A=1, B]
    ports: ["8080:80", "5-6/udp"]
    volumes: ["data:/d:ro", "./x:/y"]
    networks: [n]
    extra_hosts: {b: "1.1.1.1", a: ["[::1]"]}
    devices: ["/dev/a:/dev/b"]
    ulimits: {nproc: "5", nofile: {soft: 1, hard: 2}}
    mem_limit: 1.5g
    stop_grace_period: 1d
    secrets: [s, {source: t, mode: 0440}]
    gpus: all
    labels: [a=b, c]
    healthcheck: {test: "true", interval: 90s}
  db: {image: db}
networks: {n: {external: {name: old}}}
"#;

#[test]
fn doing_it_twice_changes_nothing_more() {
    let (mut root, diags) = canonical(EVERYTHING);
    assert!(!diags.has_errors(), "{diags}");
    let once = root.clone();
    let mut again = Diagnostics::default();
    canonicalise(&mut root, &mut again);
    assert_eq!(root, once);
    assert!(again.list().is_empty(), "{again}");
}

#[test]
fn short_forms_become_long_ones() {
    let (root, _) = canonical(EVERYTHING);
    let web = json(root.get("services").and_then(|services| services.get("web")).unwrap());
    let expected = serde_json::json!({
        "build": {"context": "."},
        "command": ["run", "a b"],
        "depends_on": {"db": {"condition": "service_started", "required": true}},
        "env_file": [{"path": "a.env", "required": true}],
        "environment": {"A": "1", "B": null},
        "ports": [
            {"mode": "ingress", "target": 80, "published": "8080", "protocol": "tcp"},
            {"mode": "ingress", "target": 5, "protocol": "udp"},
            {"mode": "ingress", "target": 6, "protocol": "udp"}
        ],
        "volumes": [
            {"type": "volume", "source": "data", "target": "/d", "read_only": true, "volume": {}},
            {"type": "bind", "source": "./x", "target": "/y", "bind": {"create_host_path": true}}
        ],
        "networks": {"n": null},
        "extra_hosts": ["a=::1", "b=1.1.1.1"],
        "devices": [{"source": "/dev/a", "target": "/dev/b", "permissions": "rwm"}],
        "ulimits": {"nproc": 5, "nofile": {"soft": 1, "hard": 2}},
        "mem_limit": "1610612736",
        "stop_grace_period": "24h0m0s",
        "secrets": [{"source": "s"}, {"source": "t", "mode": "0440"}],
        "gpus": [{"count": -1}],
        "labels": {"a": "b", "c": ""},
        "healthcheck": {"test": ["CMD-SHELL", "true"], "interval": "1m30s"}
    });
    assert_eq!(web, expected);
}

#[test]
fn what_a_short_form_becomes_stands_where_it_stood() {
    let (root, _) = canonical("services:\n  web:\n    image: a\n    ports:\n      - 80:80\n");
    let ports = root.get("services").and_then(|s| s.get("web")).and_then(|w| w.get("ports")).unwrap();
    let target = items(ports)[0].get("target").unwrap();
    assert_eq!((target.pos.line, target.pos.col), (5, 9));
}

#[test]
fn each_malformed_value_is_one_mistake_at_its_place() {
    let (_, diags) = canonical(
        "\
services:
  web:
    image: [a]
    imag: b
    privileged: maybe
    mem_limit: 5x
    volumes: ['a:b:cc:dd:ee', {type: bnd, target: /x}, {target: /y}]
    networks: {a: {aliases: x}}
    cpus: fast
    ulimits: {nofile: {soft: 1}}
    extra_hosts: [nowhere]
    build: {args: {A: [1]}, additional_contexts: [x]}
    secrets: [5]
    cgroup: hots
    deploy: {resources: {limits: {memry: 5m}}}
  'a b': {image: a}
volumes: [a]
secrets: {s: }
",
    );
    let lines: Vec<_> =
        diags.list().iter().map(|d| format!("{}:{} {}", d.pos.line, d.pos.col, d.message)).collect();
    assert_eq!(
        lines,
        [
            "16:3 services: \"a b\" can't be a service's name",
            "3:12 services.web.image is a list",
            "4:5 services.web: there is no key `imag`",
            "5:17 services.web.privileged is \"maybe\"",
            "6:16 services.web.mem_limit is \"5x\"",
            "7:15 services.web.volumes[0]: \"a:b:cc:dd:ee\" can't be read: it has too many colons",
            "7:38 services.web.volumes[1].type: \"bnd\" is unknown",
            "7:56 services.web.volumes[2] has no `type`",
            "8:29 services.web.networks.a.aliases is \"x\"",
            "9:11 services.web.cpus is \"fast\"",
            "10:23 services.web.ulimits.nofile has no `hard`",
            "11:19 services.web.extra_hosts[0]: \"nowhere\" has no address",
            "12:23 services.web.build.args.A is a list",
            "12:51 services.web.build.additional_contexts[0]: \"x\" has no value",
            "13:15 services.web.secrets[0] is the number 5",
            "14:13 services.web.cgroup: \"hots\" is unknown",
            "15:35 services.web.deploy.resources.limits: there is no key `memry`",
            "17:10 volumes is a list",
            "18:12 secrets.s is nothing",
        ]
    );
}

#[test]
fn sizes_are_counted_as_in_docker() {
    for (text, bytes) in [
        ("64", Some(64)),
        ("-1", Some(-1)),
        ("1k", Some(1024)),
        ("1.5g", Some(1_610_612_736)),
        ("12mb", Some(12 << 20)),
        ("2GiB", Some(2 << 30)),
        ("3 m", Some(3 << 20)),
        ("10b", Some(10)),
        ("m", None),
        ("5x", None),
        ("1ib", None),
        ("-5m", None),
        ("", None),
        ("9e99t", None),
    ] {
        assert_eq!(scalars::bytes(text), bytes, "{text}");
    }
}
