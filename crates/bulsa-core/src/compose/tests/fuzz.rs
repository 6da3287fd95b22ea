//! No input makes the loader panic, and what it accepts survives the wire.

use proptest::{prelude::*, sample};

use super::*;
use crate::wire::spec::{decode, encode};

/// A file that uses most of what there is, to be mutated.
const SEED: &str = r#"
name: shop
x-bulsa: {keep: {releases: 2, warm: 10m}, trusted_proxies: [loopback, 10.0.0.0/8], limits: {connections_per_address: 9}}
x-base: &base
  environment: {A: "${A:-x}", B: 1}
services:
  web:
    <<: *base
    command: node "server.js" $$X
    ports: ["8080:3000", {target: 1, published: "2"}, "8000-8001:9000-9001"]
    healthcheck: {test: ["CMD", "curl", "-f", "http://localhost:3000/h"], interval: 10s, retries: 3}
    depends_on: {db: {condition: service_healthy}, job: {condition: service_completed_successfully}}
    deploy: {replicas: 2}
    stop_signal: SIGTERM
    stop_grace_period: 1m30s
    restart: on-failure:3
    env_file: [{path: a.env, required: false}]
    x-bulsa:
      route:
        - {host: a.b, path: /x, strip_prefix: true, request_headers: {A: b, C: null}, proxy_protocol: [10.0.0.1]}
        - {host: c.d, redirect: {to: "https://a.b{path}{query}", status: 301}, response_headers: {E: 1}}
      bake: {errors: 5%}
      drain: {requests: 1s}
      balance: {policy: sticky, weight: [3, 1], max_fails: 1, fail_timeout: 1s, slow_start: 1s, max_conns: 1, max_requests: 1}
      timeouts: {first_byte: 1s, tunnel_idle: 1s, tunnel_life: 1s}
      hold: {time: 1s, page: a.html}
  db: {command: [db], x-bulsa: {role: shared, app_port: 1, route: {protocol: tcp, send_proxy: v2}}}
  job: {entrypoint: sh -c, command: [x]}
"#;

fn check(text: &str) {
    let shop =
        Shop::new().env("A", "a").file("/srv/shop/a.env", text).file("/srv/shop/a.html", text).dotenv(text);
    let loaded = shop.load(text);
    assert_eq!(loaded.spec.is_some(), !loaded.diagnostics.has_errors());
    assert!(loaded.diagnostics.list().len() <= diagnostic::MAX_DIAGNOSTICS);
    drop((loaded.diagnostics.to_string(), loaded.diagnostics.view(), config_json(&loaded)));
    let loaded = Shop::new().file("/srv/shop/a.html", text).load(text);
    if let Some(spec) = loaded.spec {
        let back = decode(&encode(&spec)).map_err(|error| error.to_string());
        assert_eq!(back, Ok(spec));
    }
}

#[test]
fn the_seed_itself_is_a_good_file() {
    Shop::new().env("A", "a").file("/srv/shop/a.html", "").spec(SEED);
    check(SEED);
}

/// A second `-f`, an extended and an included file, and what the included one includes.
const OTHERS: [&str; 4] = [
    r#"
services:
  web:
    extends: {service: base, file: ext.yaml}
    environment: !override {A: 2, B: !reset x}
    ports: !reset []
    networks: [a, b]
    profiles: [p]
  db: {command: [other], build: ., logging: {driver: x}, labels: [a=1, b]}
include: [inc.yaml, {path: [inc.yaml, ext.yaml], project_directory: sub, env_file: [a.env]}]
"#,
    r#"
services:
  base: {extends: {service: two}, env_file: a.env, extra_hosts: {h: [1.1.1.1]}, volumes: ["./a:/a", {type: bind, source: ./b, target: /b}]}
  two: {extends: {service: web, file: over.yaml}, environment: [A=1, B], depends_on: [job], ulimits: {n: 1}}
"#,
    "include:\n  - deeper.yaml\nservices:\n  inc: {command: [$A], environment: [A, B], healthcheck: {test: x}}\n",
    "include: []\nservices: {deeper: {command: [x], extends: {service: base, file: ext.yaml}}}\nnetworks: {n: {ipam: {config: [{subnet: a}]}}}\n",
];

/// Every path ends in one of the files, so that they read each other in circles over many directories.
fn check_several(texts: &[String]) {
    let [main, over, ext, inc, deeper] = texts else { return };
    let mut read = |path: &str| {
        let text = match path.rsplit('/').next().unwrap_or_default() {
            "compose.yaml" => main,
            "over.yaml" => over,
            "ext.yaml" => ext,
            "inc.yaml" => inc,
            "deeper.yaml" => deeper,
            "a.env" | "a.html" => return Ok("A=1\nB=$A".to_owned()),
            _ => return Err(ReadError::NotFound),
        };
        Ok(text.clone())
    };
    let file = |path: &str, text: &String| SourceFile { path: path.to_owned(), text: text.clone() };
    let loaded = load(LoadInput {
        profiles: vec!["p".to_owned()],
        ..LoadInput::new(vec![file("compose.yaml", main), file("over.yaml", over)], "/srv/shop", &mut read)
    });
    assert_eq!(loaded.spec.is_some(), !loaded.diagnostics.has_errors());
    assert!(loaded.diagnostics.list().len() <= diagnostic::MAX_DIAGNOSTICS);
    drop((loaded.diagnostics.to_string(), loaded.diagnostics.view(), config_json(&loaded)));
    if let Some(spec) = loaded.spec {
        let back = decode(&encode(&spec)).map_err(|error| error.to_string());
        assert_eq!(back, Ok(spec));
    }
}

/// The five files, one or two of them mutated.
fn several() -> impl Strategy<Value = Vec<String>> {
    let seeds = || [SEED].into_iter().chain(OTHERS).map(str::to_owned).collect::<Vec<_>>();
    let edits = proptest::collection::vec((any::<sample::Index>(), edits()), 1..3);
    edits.prop_map(move |edits| {
        let mut texts = seeds();
        for (which, edits) in edits {
            let text = which.get_mut(&mut texts);
            *text = edited(text, edits);
        }
        texts
    })
}

/// Replaces, removes or doubles pieces of the seed.
fn mutated() -> impl Strategy<Value = String> {
    edits().prop_map(|edits| edited(SEED, edits))
}

type Edit = (sample::Index, usize, &'static str);

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let pieces = sample::select(vec![
        "",
        ":",
        "- ",
        "[",
        "]",
        "{",
        "}",
        "\n",
        "  ",
        "'",
        "\"",
        "$",
        "${",
        "}",
        "&a ",
        "*a",
        "<<: ",
        "!x ",
        "#",
        "~",
        "0",
        "-1",
        "9999999999999999999",
        "1e9",
        "한",
        "\0",
        "\\",
        "|",
        ">",
        "?",
        ",",
        "%",
        "null",
        "true",
        "8080:80",
        "::",
        "1m",
        "\t",
        "---",
        "...",
        "x-bulsa",
        "!reset ",
        "!override ",
        "extends: web",
        "file: inc.yaml",
        "include: [over.yaml]\n",
        "profiles: [q]",
        "\u{feff}",
        "\r\n",
    ]);
    let edit = (any::<sample::Index>(), 0_usize..12, pieces);
    proptest::collection::vec(edit, 1..4)
}

fn edited(seed: &str, edits: Vec<Edit>) -> String {
    let mut text = seed.to_owned();
    for (at, length, piece) in edits {
        let start = text.floor_char_boundary(at.index(text.len().max(1)));
        let end = text.floor_char_boundary((start + length).min(text.len()));
        text.replace_range(start..end.max(start), piece);
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_text_panics(text in any::<String>()) {
        check(&text);
    }

    #[test]
    fn no_mutation_of_a_good_file_panics(text in mutated()) {
        check(&text);
    }

    #[test]
    fn no_value_in_a_services_key_panics(key in sample::select(keys::SERVICE.names().collect::<Vec<_>>()), value in "[a-z0-9:/$.,\\[\\]{}'\" -]{0,30}") {
        check(&web_file(&format!("{key}: {value}")));
    }

    #[test]
    fn no_mutation_of_several_files_panics(texts in several()) {
        check_several(&texts);
    }
}
