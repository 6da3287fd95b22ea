use std::time::Duration;

use super::*;
use crate::spec::{AppPort, Condition, Handover, Restart, Role};

#[test]
fn a_small_service_gets_every_default() {
    insta::assert_debug_snapshot!(
        Shop::new().spec("services:\n  web:\n    command: node server.js\n    ports: ['8080:3000']\n")
    );
}

#[test]
fn everything_that_is_written_arrives() {
    let shop = Shop::new()
        .env("WORKERS", "3")
        .env("SLACK_URL", "https://hooks.slack.com/services/T0/B0/secret")
        .file("/srv/shop/held.html", "<h1>Soon</h1>\n");
    let spec = shop.spec(
        "\
x-bulsa:
  engine: process
  trusted_proxies: [loopback, 10.0.0.0/8, '::1']
  keep: {releases: 3, warm: 1h}
  limits: {connections_per_address: 100}
  notify:
    - url: $SLACK_URL
    - {url: 'https://discord.com/api/webhooks/1/x', on: [park, incident]}
    - {url: 'http://127.0.0.1:9/', format: discord}
  heartbeat: {url: 'https://hc-ping.com/x', interval: 5m}
x-limits: &limits {stop_grace_period: 90s}
services:
  web:
    <<: *limits
    entrypoint: [node]
    command: server.js --title 'My Shop' $$HOME
    working_dir: ./app
    user: \"1000:1000\"
    deploy: {replicas: $WORKERS}
    ports: [\"127.0.0.1:8080:3000\"]
    stop_signal: SIGQUIT
    restart: on-failure:5
    depends_on:
      db: {condition: service_healthy}
      migrate: {condition: service_completed_successfully, required: false}
    x-bulsa:
      route:
        host: Shop.Example
        path: /api
        protocol: http
        strip_prefix: true
        request_headers: {X-Tenant: shop, X-Debug: null}
        response_headers: {x-frame-options: DENY, Server: , Age: 0}
        proxy_protocol: [10.0.0.0/8, loopback]
      gate: {timeout: 5m}
      balance:
        policy: least_conn
        weight: [3, 1]
        max_fails: 0
        fail_timeout: 500ms
        slow_start: 30s
        max_conns: 100
        max_requests: 50
      timeouts: {first_byte: 1m, tunnel_idle: 1h, tunnel_life: 1d}
      drain: {requests: 5s, websockets: 10m, stagger: 1s}
      hold: {time: 1s, requests: 5, page: ./held.html}
      bake: {time: 0, errors: 0.5%}
      handover: stop_first
      app_port: {port: 3000, isolate: true}
  db:
    command: postgres
    x-bulsa: {role: shared}
  migrate:
    command: [\"./migrate\"]
",
    );
    insta::assert_debug_snapshot!(spec);
}

#[test]
fn roles_are_inferred_with_a_reason() {
    let spec = Shop::new().spec(
        "\
services:
  web: {command: x, ports: ['80']}
  mail: {command: x}
  migrate: {command: x}
  db: {command: x, x-bulsa: {role: shared}}
  after: {command: x, depends_on: {migrate: {condition: service_completed_successfully}}}
",
    );
    let role = |name: &str| (spec.services[name].role, spec.services[name].role_reason.as_str());
    assert_eq!(role("web"), (Role::App, "it publishes a port"));
    assert_eq!(role("mail"), (Role::Worker, "it publishes no port"));
    assert_eq!(role("migrate"), (Role::Job, "`after` waits for it to complete"));
    assert_eq!(role("db"), (Role::Shared, "the file says so"));
    assert_eq!(spec.services["migrate"].restart, Restart::No);
    assert_eq!(spec.services["mail"].restart, Restart::Always);
    let on = &spec.services["after"].depends_on["migrate"];
    assert_eq!((on.condition, on.required), (Condition::Completed, true));
}

#[test]
fn commands_split_and_join() {
    let argv = |lines: &str| {
        Shop::new().spec(&format!("services: {{web: {{{lines}}}}}")).services["web"].argv.clone()
    };
    assert_eq!(argv("command: node 'a b'"), ["node", "a b"]);
    assert_eq!(argv("entrypoint: sh -c, command: [x y]"), ["sh", "-c", "x y"]);
    assert_eq!(argv("entrypoint: [a], command: "), ["a"]);
    assert_eq!(argv("entrypoint: '', command: a"), ["a"]);
    assert_eq!(argv("command: [\"$$HOME\"]"), ["$HOME"]);
}

#[test]
fn environment_wins_over_files_and_later_files_over_earlier_ones() {
    let shop = Shop::new()
        .env("SHELL_VAR", "shell")
        .dotenv("DOT=dot\nSHELL_VAR=hidden\n")
        .file("/srv/shop/a.env", "A=a\nB=a\nC=a\nREF=${DOT}-${SHELL_VAR}\n")
        .file("/srv/shop/conf/b.env", "B=b\nSEEN=$A\nC=b\n")
        .file("/srv/shop/raw.env", "RAW='$A' # c\n");
    let env = shop
        .web(
            "env_file:\n  - a.env\n  - {path: ./conf/b.env}\n  - {path: raw.env, format: raw}\n  - {path: no.env, required: false}\nenvironment: {C: c, N: 1, T: true, EMPTY: '', SHELL_VAR: , DOT: ~, UNSET: , Q: \"$DOT\"}",
        )
        .env;
    let env: Vec<_> = env.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(
        env,
        [
            "A=a",
            "B=b",
            "C=c",
            "DOT=dot",
            "EMPTY=",
            "N=1",
            "Q=dot",
            "RAW='$A' # c",
            "REF=dot-shell",
            "SEEN=a",
            "SHELL_VAR=shell",
            "T=true"
        ]
    );
    let env = shop.web("env_file: a.env\nenvironment: [C=x=y, DOT, A, 'E=']").env;
    let env: Vec<_> = env.iter().map(|(k, v)| format!("{k}={v}")).collect();
    // A name without a value that is nowhere else hides the file's, as in Compose.
    assert_eq!(env, ["B=a", "C=x=y", "DOT=dot", "E=", "REF=dot-shell"]);
}

#[test]
fn a_number_that_changes_on_its_way_is_warned_of() {
    let shop = Shop::new();
    assert_eq!(shop.web("environment: {V: 1.10}").env["V"], "1.1");
    assert_eq!(
        shop.complaints("environment: {V: 1.10, W: 110, X: True}"),
        ["3:22 warning: services.web.environment.V: the program gets \"1.1\", not \"1.10\""]
    );
}

#[test]
fn the_shell_wins_over_dotenv_even_with_nothing() {
    let shop = Shop::new().env("TAG", "").dotenv("TAG=1.28\nONLY=dot\n");
    assert_eq!(shop.web("user: \"u${TAG:-1.27}${TAG-x}${ONLY}\"").user.as_deref(), Some("u1.27dot"));
}

#[test]
fn ports_keep_their_order_and_ranges_expand() {
    let ports = Shop::new().web("ports: ['8000-8001:9000-9001', 3000, {target: 70, published: '7000', host_ip: '::1', mode: host, name: x}]").ports;
    let ports: Vec<_> =
        ports.iter().map(|p| (p.host.map(|h| h.to_string()), p.published, p.target)).collect();
    assert_eq!(
        ports,
        [
            (None, Some(8000), 9000),
            (None, Some(8001), 9001),
            (None, None, 3000),
            (Some("::1".to_owned()), Some(7000), 70)
        ]
    );
}

#[test]
fn written_policies_are_read() {
    let shop = Shop::new();
    for (text, policy) in [
        ("no", Restart::No),
        ("\"no\"", Restart::No),
        ("always", Restart::Always),
        ("unless-stopped", Restart::Always),
        ("on-failure", Restart::OnFailure(None)),
        ("on-failure:3", Restart::OnFailure(Some(3))),
    ] {
        assert_eq!(shop.web(&format!("restart: {text}")).restart, policy, "{text}");
    }
    assert_eq!(shop.web("scale: 0").replicas, 0);
    assert_eq!(shop.web("scale: 4").replicas, 4);
    assert_eq!(shop.web("x-bulsa: {app_port: 3000}").app_port, AppPort::Fixed(3000));
    assert_eq!(
        shop.web("x-bulsa: {app_port: {port: 3000, isolate: true}}\nscale: 2").app_port,
        AppPort::Isolated(3000)
    );
    assert_eq!(shop.web("x-bulsa: {handover: overlap}").handover, Handover::Overlap);
    assert_eq!(shop.web("stop_signal: \"9\"").stop_signal, 9);
    assert_eq!(shop.web("stop_grace_period: 1m30s").stop_grace, Duration::from_secs(90));
}

#[test]
fn an_old_version_key_and_a_missing_variable_are_only_warnings() {
    let loaded = Shop::new().load("version: '3.8'\nservices: {a: {command: [x, $GONE]}}\n");
    assert!(loaded.spec.is_some());
    insta::assert_snapshot!(loaded.diagnostics, @"
    compose.yaml:1:1: warning: `version` says nothing any more and is ignored
      hint: remove the line
    compose.yaml:2:29: warning: services.a.command[1]: the variable `GONE` is not set
      hint: nothing is put in its place; `${GONE:-default}` gives a default
    ");
}
