//! How values merge, against what Docker Compose 2.40.3 answered to the same two files.

use serde_json::{Value, json};

use super::{
    super::{
        config,
        diagnostic::Diagnostics,
        tree::{self, Node},
    },
    changes::Changes,
    merge, unique,
};

fn parse(file: &str, text: &str, diags: &mut Diagnostics) -> Node {
    tree::parse(file, text, diags).unwrap_or_else(|| panic!("{text}\n{diags}"))
}

/// Two files that are in their canonical forms already.
fn merged(base: &str, over: &str) -> (Value, Diagnostics) {
    let mut diags = Diagnostics::default();
    let (mut base, mut over) = (parse("a.yaml", base, &mut diags), parse("b.yaml", over, &mut diags));
    Changes::take(&mut base, &mut diags);
    let changes = Changes::take(&mut over, &mut diags);
    unique::enforce(&mut base);
    unique::enforce(&mut over);
    changes.apply(&mut base);
    let mut both = merge::files(base, over, &mut diags);
    unique::enforce(&mut both);
    (config::verbatim(&both), diags)
}

/// What two files say of one service, and what comes out, as JSON.
type Triples = &'static [(&'static str, &'static str, &'static str)];

const REPLACED: Triples = &[
    ("command: [a, b]", "command: [c]", r#"{"command": ["c"]}"#),
    ("command: [a, b]", "command: null", r#"{"command": null}"#),
    ("entrypoint: [a, b]", "entrypoint: []", r#"{"entrypoint": []}"#),
    (
        "healthcheck: {test: [CMD, a], interval: 1s}",
        "healthcheck: {test: [CMD, b], retries: 2}",
        r#"{"healthcheck": {"test": ["CMD", "b"], "interval": "1s", "retries": 2}}"#,
    ),
    ("user: a", "user: b", r#"{"user": "b"}"#),
    ("user: a", "user: null", r#"{"user": "a"}"#),
    (
        "ulimits: {n: 1, m: {soft: 1, hard: 2}, k: 5}",
        "ulimits: {n: 2, m: {soft: 3, hard: 4}}",
        r#"{"ulimits": {"k": 5, "m": {"soft": 3, "hard": 4}, "n": 2}}"#,
    ),
    (
        "logging: {driver: x, options: {a: '1'}}",
        "logging: {driver: y, options: {b: '2'}}",
        r#"{"logging": {"driver": "y", "options": {"b": "2"}}}"#,
    ),
];

const MAPPED: Triples = &[
    (
        "environment: {A: '1', B: '2'}",
        "environment: {B: '3', C: null}",
        r#"{"environment": {"A": "1", "B": "3", "C": null}}"#,
    ),
    (
        "environment: {A: '1', B: '2'}",
        "environment: [B, C=4]",
        r#"{"environment": {"A": "1", "B": null, "C": "4"}}"#,
    ),
    ("environment: [A=1, A=2]", "environment: [B=3]", r#"{"environment": {"A": "2", "B": "3"}}"#),
    ("environment: {A: '1'}", "environment: null", r#"{"environment": {"A": "1"}}"#),
    ("labels: {a: '1'}", "labels: [a=2, b=x=y]", r#"{"labels": {"a": "2", "b": "x=y"}}"#),
    ("sysctls: {a: '1', b: '1'}", "sysctls: [a=2]", r#"{"sysctls": {"a": "2", "b": "1"}}"#),
    ("annotations: {a: '1'}", "annotations: {b: '2'}", r#"{"annotations": {"a": "1", "b": "2"}}"#),
    (
        "logging: {driver: x, options: {a: '1'}}",
        "logging: {options: {b: '2'}}",
        r#"{"logging": {"driver": "x", "options": {"a": "1", "b": "2"}}}"#,
    ),
    (
        "build: .",
        "build: {dockerfile: D, args: {A: '1'}}",
        r#"{"build": {"context": ".", "dockerfile": "D", "args": {"A": "1"}}}"#,
    ),
    (
        "build: {context: b, args: {A: '1', B: '2'}}",
        "build: {args: [A=3]}",
        r#"{"build": {"context": "b", "args": {"A": "3", "B": "2"}}}"#,
    ),
    (
        "deploy: {replicas: 1, resources: {limits: {cpus: '1'}}}",
        "deploy: {resources: {limits: {memory: 1g}}}",
        r#"{"deploy": {"replicas": 1, "resources": {"limits": {"cpus": "1", "memory": "1g"}}}}"#,
    ),
    ("deploy: {labels: {a: '1'}}", "deploy: {labels: [a=2]}", r#"{"deploy": {"labels": {"a": "2"}}}"#),
    (
        "depends_on: {x: {condition: service_healthy, required: false}}",
        "depends_on: [x, y]",
        r#"{"depends_on": {"x": {"condition": "service_started", "required": true},
                           "y": {"condition": "service_started", "required": true}}}"#,
    ),
    (
        "networks: {n: {aliases: [a, b]}}",
        "networks: [n, m]",
        r#"{"networks": {"n": {"aliases": ["a", "b"]}, "m": null}}"#,
    ),
    (
        "networks: {n: {aliases: [a, b]}}",
        "networks: {n: {aliases: [b, c], priority: 1}}",
        r#"{"networks": {"n": {"aliases": ["a", "b", "c"], "priority": 1}}}"#,
    ),
];

const LISTED: Triples = &[
    ("expose: ['1', '2']", "expose: ['2', '3']", r#"{"expose": ["1", "2", "3"]}"#),
    ("dns: 1.1.1.1", "dns: [2.2.2.2, 1.1.1.1]", r#"{"dns": ["1.1.1.1", "2.2.2.2"]}"#),
    ("tmpfs: /a", "tmpfs: [/b, /a]", r#"{"tmpfs": ["/a", "/b"]}"#),
    ("cap_add: [A, B]", "cap_add: [B, C]", r#"{"cap_add": ["A", "B", "C"]}"#),
    ("profiles: [a]", "profiles: [a, b]", r#"{"profiles": ["a", "b"]}"#),
    ("security_opt: [a]", "security_opt: [b]", r#"{"security_opt": ["a", "b"]}"#),
    (
        "extra_hosts: {h: 1.1.1.1}",
        "extra_hosts: ['h=1.1.1.1', 'h=2.2.2.2', 'k=3.3.3.3']",
        r#"{"extra_hosts": ["h=1.1.1.1", "h=2.2.2.2", "k=3.3.3.3"]}"#,
    ),
    (
        "volumes: [{source: /a, target: /x}, {source: /b, target: /y}]",
        "volumes: [{source: /c, target: /x}, {source: /d, target: /z}]",
        r#"{"volumes": [{"source": "/c", "target": "/x"}, {"source": "/b", "target": "/y"},
                        {"source": "/d", "target": "/z"}]}"#,
    ),
    ("devices: ['/a:/x']", "devices: ['/b:/x', /c]", r#"{"devices": ["/b:/x", "/c"]}"#),
    (
        "ports: [{target: 80, published: '80', name: n}, {target: 81}]",
        "ports: [{target: 80, published: '80'}, {target: 81, protocol: udp}, {target: 81, host_ip: 127.0.0.1}]",
        r#"{"ports": [{"target": 80, "published": "80"}, {"target": 81}, {"target": 81, "protocol": "udp"},
                      {"target": 81, "host_ip": "127.0.0.1"}]}"#,
    ),
    (
        "secrets: [{source: a}, {source: b, target: /x}]",
        "secrets: [{source: a, mode: 1}, {source: c, target: /x}]",
        r#"{"secrets": [{"source": "a", "mode": 1}, {"source": "c", "target": "/x"}]}"#,
    ),
    (
        "env_file: [{path: a, required: false}, {path: b}]",
        "env_file: [{path: a, format: raw}, c]",
        r#"{"env_file": [{"path": "a", "format": "raw"}, {"path": "b"}, "c"]}"#,
    ),
    ("x-a: {k: [1], l: 1}", "x-a: {k: [2], l: 2, m: 3}", r#"{"x-a": {"k": [1, 2], "l": 2, "m": 3}}"#),
];

const TAGGED: Triples = &[
    ("dns: 1.1.1.1", "dns: !override [2.2.2.2]", r#"{"dns": ["2.2.2.2"]}"#),
    ("dns: 1.1.1.1", "dns: !reset null", "{}"),
    ("environment: {A: '1', B: '2'}", "environment: {A: !reset null}", r#"{"environment": {"B": "2"}}"#),
    ("environment: {A: '1'}", "environment: !override {C: '3'}", r#"{"environment": {"C": "3"}}"#),
    ("ports: [{target: 80}]", "ports: !override [{target: 81}]", r#"{"ports": [{"target": 81}]}"#),
    ("ports: [{target: 80}]", "ports: !reset []", "{}"),
    ("dns: [a]", "dns: [!reset a, b]", r#"{"dns": ["a", "b"]}"#),
];

#[test]
fn what_two_files_say_merges_as_in_compose() {
    let mut wrong = String::new();
    for (base, over, want) in [REPLACED, MAPPED, LISTED, TAGGED].into_iter().flatten() {
        let file = |body: &str| format!("services: {{s: {{{body}}}}}");
        let (got, diags) = merged(&file(base), &file(over));
        let want: Value = serde_json::from_str(want).unwrap();
        if got != json!({ "services": { "s": want } }) || diags.has_errors() {
            wrong += &format!("{base} | {over}\n  {got}\n{diags}\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn pools_merge_by_their_subnet_and_labels_by_their_name() {
    let file = |config: &str, labels: &str| {
        format!("networks: {{n: {{ipam: {{config: {config}}}, labels: {labels}}}}}")
    };
    let (got, diags) = merged(
        &file("[{subnet: 10.0.0.0/24, gateway: 10.0.0.1}]", "{a: '1'}"),
        &file("[{subnet: 10.0.0.0/24, ip_range: 10.0.0.8/29}, {subnet: 10.1.0.0/24}]", "[a=2, b=3]"),
    );
    assert_eq!(diags.to_string(), "");
    assert_eq!(
        got["networks"]["n"],
        json!({
            "ipam": {"config": [
                {"subnet": "10.0.0.0/24", "gateway": "10.0.0.1", "ip_range": "10.0.0.8/29"},
                {"subnet": "10.1.0.0/24"},
            ]},
            "labels": {"a": "2", "b": "3"},
        })
    );
}

#[test]
fn forms_that_have_nothing_in_common_are_a_mistake_in_the_later_file() {
    let (_, diags) =
        merged("services: {s: {security_opt: [a]}}", "services:\n  s:\n    security_opt: x\n    x-a: {}");
    insta::assert_snapshot!(diags, @r#"
    b.yaml:3:19: error: services.s.security_opt: "x" can't be merged into a list
      hint: the other one is at a.yaml:1:30; write both in the same form, or put `!override` before this one
    "#);
    let (_, diags) = merged("services: {}", "!reset\nservices: {}");
    assert!(diags.to_string().contains("means nothing for a whole file"), "{diags}");
}
