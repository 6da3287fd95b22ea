use super::*;
use crate::compose::tests::Shop;

fn found(text: &str) -> Vec<String> {
    let findings = findings(&Shop::new().load(text));
    findings
        .into_iter()
        .filter(|it| it.level < Level::Note)
        .map(|it| format!("{} {}: {}", it.position, it.level.word(), it.what))
        .collect()
}

#[test]
fn what_may_go_wrong_is_found_at_its_place() {
    let text = "\
services:
  web:
    image: shop:1
    ports: [{target: 80, published: '80'}]
    restart: \"no\"
    depends_on: {db: {condition: service_healthy}}
    volumes: [{type: bind, source: /srv/log, target: /log}]
  db:
    image: postgres
";
    insta::assert_snapshot!(found(text).join("\n"), @"
    compose.yaml:9:12 warning: `db` runs `postgres`, whose meaning changes with every pull
    compose.yaml:2:3 warning: `web` has no healthcheck in this file
    compose.yaml:2:3 warning: `web` says `restart: \"no\"`
    compose.yaml:6:18 warning: `web` waits until `db` is healthy, and `db` has no healthcheck in this file
    compose.yaml:7:15 warning: the old release and the new one of `web` write into one place of this host: /srv/log
    ");
}

#[test]
fn a_mistake_breaks_and_a_warning_breaks_when_strict() {
    let broken = findings(&Shop::new().load("services:\n  web: {image: shop, prts: []}\n"));
    assert!(fails(&broken, false), "{broken:?}");
    let weak = findings(&Shop::new().load("services:\n  web: {image: 'shop:1', ports: [{target: 80}]}\n"));
    assert!(!fails(&weak, false) && fails(&weak, true), "{weak:?}");
    let twice = "services:\n  db: {image: 'redis:7', scale: 2, ports: [{target: 1, published: '1'}]}\n";
    assert!(fails(&findings(&Shop::new().load(twice)), false));
}
