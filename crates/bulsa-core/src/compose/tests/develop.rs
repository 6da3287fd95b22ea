use super::*;
use crate::compose::develop::{WatchAction, WatchRule, watch_rules};

fn rules(text: &str) -> Result<Vec<WatchRule>, String> {
    let loaded = Shop::new().load(text);
    let spec = loaded.spec.unwrap_or_else(|| panic!("{}", loaded.diagnostics));
    watch_rules(&loaded.tree.unwrap(), &spec).map_err(|diags| diags.to_string())
}

#[test]
fn rules_have_absolute_paths_and_their_patterns() {
    let found = rules(
        "services:
  web:
    build: .
    image: shop
    ports: [3000]
    develop:
      watch:
        - {action: rebuild, path: package.json}
        - {action: restart, path: ./src, ignore: [gen/, '*.md'], include: '*.js'}
  side:
    command: x
    develop: {watch: [{action: restart, path: /srv/side}]}
  still: {command: x, develop: {}}
",
    )
    .unwrap();
    let short: Vec<_> =
        found.iter().map(|rule| (rule.service.as_str(), rule.action, rule.path.as_str())).collect();
    let expected = [
        ("web", WatchAction::Rebuild, "/srv/shop/package.json"),
        ("web", WatchAction::Restart, "/srv/shop/src"),
        ("side", WatchAction::Restart, "/srv/side"),
    ];
    assert_eq!(short, expected);
    assert_eq!(
        (found[1].ignore.join(" "), found[1].include.join(" ")),
        ("gen/ *.md".to_owned(), "*.js".to_owned())
    );
}

#[test]
fn what_can_not_be_followed_is_refused_at_its_line_by_whoever_watches_only() {
    let said = rules(
        "services:
  web:
    image: shop
    ports: [3000]
    develop:
      watch:
        - {action: rebuild, path: .}
        - {action: sync, path: ., target: /app}
        - {action: sync+exec, path: ., target: /app, exec: {command: x}}
  side:
    command: x
    develop: {watch: [{action: rebuild, path: .}]}
",
    )
    .unwrap_err();
    for line in [
        "compose.yaml:7:20: error: services.web.develop.watch[0]: `rebuild` needs a `build`, and the service has none",
        "compose.yaml:8:20: error: services.web.develop.watch[1]: `sync` comes in a later version of Bulsa",
        "compose.yaml:9:20: error: services.web.develop.watch[2]: `sync+exec` comes in a later version of Bulsa",
        "compose.yaml:12:32: error: services.side.develop.watch[0]: `rebuild` is for services with a container",
    ] {
        assert!(said.contains(line), "{said}");
    }
}
