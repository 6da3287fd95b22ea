//! No input makes the loader panic, and what it accepts survives the wire.

use proptest::{prelude::*, sample};

use super::*;
use crate::wire::spec::{decode, encode};

/// A file that uses most of what there is, to be mutated.
const SEED: &str = r#"
name: shop
x-bulsa: {keep: {releases: 2, warm: 10m}, trusted_proxies: [loopback, 10.0.0.0/8]}
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
    x-bulsa: {route: {host: a.b, path: /x}, bake: {errors: 5%}, drain: {requests: 1s}}
  db: {command: [db], x-bulsa: {role: shared, app_port: 1}}
  job: {entrypoint: sh -c, command: [x]}
"#;

fn check(text: &str) {
    let shop = Shop::new().env("A", "a").file("/srv/shop/a.env", text).dotenv(text);
    let loaded = shop.load(text);
    assert_eq!(loaded.spec.is_some(), !loaded.diagnostics.has_errors());
    assert!(loaded.diagnostics.list().len() <= diagnostic::MAX_DIAGNOSTICS);
    drop((loaded.diagnostics.to_string(), loaded.diagnostics.view(), config_json(&loaded)));
    let loaded = Shop::new().load(text);
    if let Some(spec) = loaded.spec {
        let back = decode(&encode(&spec)).map_err(|error| error.to_string());
        assert_eq!(back, Ok(spec));
    }
}

#[test]
fn the_seed_itself_is_a_good_file() {
    Shop::new().env("A", "a").spec(SEED);
    check(SEED);
}

/// Replaces, removes or doubles pieces of the seed.
fn mutated() -> impl Strategy<Value = String> {
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
        "\u{feff}",
        "\r\n",
    ]);
    let edit = (any::<sample::Index>(), 0_usize..12, pieces);
    proptest::collection::vec(edit, 1..4).prop_map(|edits| {
        let mut text = SEED.to_owned();
        for (at, length, piece) in edits {
            let start = text.floor_char_boundary(at.index(text.len().max(1)));
            let end = text.floor_char_boundary((start + length).min(text.len()));
            text.replace_range(start..end.max(start), piece);
        }
        text
    })
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
    fn no_value_in_a_services_key_panics(key in sample::select(keys::SERVICE.known), value in "[a-z0-9:/$.,\\[\\]{}'\" -]{0,30}") {
        check(&web_file(&format!("{key}: {value}")));
    }
}
