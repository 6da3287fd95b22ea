use super::*;

const FILE: &str = r#"
name: demo
x-top: {b: 1.50, c: "a$$b", d: [1, null, 0x10]}
services:
  a:
    command: echo "a b" $$HOME
    entrypoint: ["sh", "-c", "x"]
    environment: {NUM: 1, NU: null, SHELL_VAR: , FL: 1.50, BO: true}
    ports:
      - "127.0.0.1:8081:3000"
      - "3000"
      - "9000-9001:9000-9001/tcp"
      - {target: 80, published: "8082", mode: host, name: web}
    healthcheck: {test: curl -f http://localhost, interval: 1m30s, timeout: 500ms, retries: 3, start_period: 1h, start_interval: 10ms}
    depends_on: [b]
    deploy: {replicas: 2}
    stop_signal: "9"
    stop_grace_period: 90s
    restart: on-failure:3
    user: "0"
    working_dir: /x
  b:
    scale: 3
    command: [b]
    entrypoint: ""
    healthcheck: {disable: true}
    environment: ["A=b=c", NOTSET, "Z="]
  c:
    command: [c]
    depends_on: {a: {condition: service_healthy}, b: {condition: service_started, required: false}}
"#;

/// What Docker Compose 2.40 prints for it, without images and networks, which processes don't have. The same for
/// containers is compared in `tests/compose`.
const OF_COMPOSE: &str = r#"
{
  "name": "demo",
  "x-top": {"b": 1.5, "c": "a$$b", "d": [1, null, 16]},
  "services": {
    "a": {
      "command": ["echo", "a b", "$$HOME"],
      "depends_on": {"b": {"condition": "service_started", "required": true}},
      "deploy": {"replicas": 2, "resources": {}, "placement": {}},
      "entrypoint": ["sh", "-c", "x"],
      "environment": {"BO": "true", "FL": "1.5", "NU": null, "NUM": "1", "SHELL_VAR": "shellval"},
      "healthcheck": {"test": ["CMD-SHELL", "curl -f http://localhost"], "timeout": "500ms", "interval": "1m30s", "retries": 3, "start_period": "1h0m0s", "start_interval": "10ms"},
      "ports": [{"mode": "ingress", "host_ip": "127.0.0.1", "target": 3000, "published": "8081", "protocol": "tcp"}, {"mode": "ingress", "target": 3000, "protocol": "tcp"}, {"mode": "ingress", "target": 9000, "published": "9000", "protocol": "tcp"}, {"mode": "ingress", "target": 9001, "published": "9001", "protocol": "tcp"}, {"name": "web", "mode": "host", "target": 80, "published": "8082", "protocol": "tcp"}],
      "restart": "on-failure:3",
      "stop_grace_period": "1m30s",
      "stop_signal": "9",
      "user": "0",
      "working_dir": "/x"
    },
    "b": {
      "command": ["b"],
      "entrypoint": [],
      "environment": {"A": "b=c", "NOTSET": null, "Z": ""},
      "healthcheck": {"disable": true},
      "scale": 3
    },
    "c": {
      "command": ["c"],
      "depends_on": {"a": {"condition": "service_healthy", "required": true}, "b": {"condition": "service_started", "required": false}},
      "entrypoint": null
    }
  }
}
"#;

#[test]
fn the_output_is_the_one_of_compose() {
    let loaded = Shop::new().env("SHELL_VAR", "shellval").load(FILE);
    assert!(!loaded.diagnostics.has_errors(), "{}", loaded.diagnostics);
    let expected: serde_json::Value = serde_json::from_str(OF_COMPOSE).unwrap();
    assert_eq!(config_json(&loaded), expected);
}

#[test]
fn the_output_read_again_gives_the_same_project() {
    let text =
        "services: {a: {command: [x, '$$A'], ports: ['80:1'], healthcheck: {test: 'a $$b', interval: 3s}}}";
    let first = Shop::new().load(text);
    let mut again = config_json(&first);
    // What Compose adds to every file isn't in ours.
    assert!(again["services"]["a"].get("networks").is_none());
    again["name"] = "shop".into();
    let second = Shop::new().load(&again.to_string());
    assert_eq!(
        second.spec.map(|spec| crate::wire::spec::content_hash(&spec)),
        first.spec.map(|spec| crate::wire::spec::content_hash(&spec))
    );
}

#[test]
fn a_file_with_mistakes_has_no_output() {
    assert_eq!(config_json(&Shop::new().load("services: {}")), serde_json::Value::Null);
}
