use super::*;
use crate::compose::{
    develop::{Copied, WatchAction, WatchRule, Watched, watch_rules},
    doctor::{Level, findings},
};

fn rules(text: &str) -> Result<Vec<WatchRule>, String> {
    watched(text).map(|watched| watched.rules)
}

fn watched(text: &str) -> Result<Watched, String> {
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
        - {action: sync, path: .}
        - {action: sync+restart, path: ., target: app}
        - {action: sync+exec, path: ., target: /app}
        - {action: sync, path: ., target: /run/cache}
        - {action: sync, path: ., target: /here/copy}
    tmpfs: /run
    volumes: [{type: bind, source: ., target: /here}]
  side:
    command: x
    develop: {watch: [{action: rebuild, path: .}]}
",
    )
    .unwrap_err();
    for line in [
        "compose.yaml:7:20: error: services.web.develop.watch[0]: `rebuild` needs a `build`, and the service has none",
        "compose.yaml:8:20: error: services.web.develop.watch[1]: `sync` needs a `target`: where in the container the files go",
        "compose.yaml:9:51: error: services.web.develop.watch[2]: `target: app` is not an absolute path",
        "compose.yaml:10:20: error: services.web.develop.watch[3]: `sync+exec` needs a command to run",
        "compose.yaml:11:43: error: services.web.develop.watch[4]: `target: /run/cache` is in a `tmpfs`",
        "compose.yaml:12:43: error: services.web.develop.watch[5]: `target: /here/copy` is /srv/shop/copy by a bind mount",
        "compose.yaml:17:32: error: services.side.develop.watch[0]: `rebuild` is for services with a container",
    ] {
        assert!(said.contains(line), "{said}");
    }
}

#[test]
fn what_is_copied_has_its_target_and_what_runs_then() {
    let found = rules(
        "services:
  web:
    image: shop
    ports: [3000]
    volumes: [{type: volume, source: data, target: /data}]
    develop:
      watch:
        - {action: sync, path: ./src, target: /app/src, initial_sync: true}
        - {action: sync+restart, path: ./etc, target: /data/etc}
        - action: sync+exec
          path: ./nginx.conf
          target: /etc/nginx.conf
          exec: {command: nginx -s reload, user: root, environment: [A=1]}
volumes: {data: }
",
    )
    .unwrap();
    let copied = |at: usize| found[at].copied.clone().unwrap();
    let of = |target: &str, base: &str, initial| Copied {
        target: target.to_owned(),
        base: base.to_owned(),
        initial,
    };
    let actions: Vec<_> = found.iter().map(|rule| rule.action).collect();
    assert_eq!(actions, [WatchAction::Sync, WatchAction::Restart, WatchAction::Exec]);
    assert_eq!(copied(0), of("/app/src", "/", true));
    assert_eq!(copied(1), of("/data/etc", "/data", false));
    assert_eq!(copied(2), of("/etc/nginx.conf", "/", false));
    let exec = found[2].exec.clone().unwrap();
    assert_eq!((exec.command.join(" ").as_str(), exec.user.as_deref()), ("nginx -s reload", Some("root")));
    assert_eq!(exec.environment["A"], "1");
}

#[test]
fn what_has_nothing_to_copy_is_told_by_whoever_watches_and_by_the_check() {
    let text = "services:
  web:
    image: shop
    ports: [3000]
    volumes: [{type: bind, source: ., target: /app}]
    develop:
      watch:
        - {action: sync, path: ./src, target: /app/src}
        - {action: sync+restart, path: ./etc, target: /app/etc}
        - {action: sync, path: ./src, target: /elsewhere}
        - {action: restart, path: ., target: /x}
  side:
    command: x
    develop:
      watch:
        - {action: sync, path: ., target: /app}
        - {action: sync+exec, path: ., target: /app, exec: {command: x}}
        - {action: sync+restart, path: ., target: /app}
";
    let found = watched(text).unwrap();
    let rules: Vec<_> = found
        .rules
        .iter()
        .map(|rule| format!("{} {:?} {}", rule.service, rule.action, rule.copied.is_some()))
        .collect();
    assert_eq!(rules, ["web Restart false", "web Sync true", "web Restart false", "side Restart false"]);
    let notes: Vec<_> =
        found.notes.iter().map(|(_, note)| format!("{} {}", note.pos, note.message)).collect();
    insta::assert_snapshot!(notes.join("\n"), @"
    compose.yaml:8:32 services.web.develop.watch[0]: the bind mount of /srv/shop has these files in the container: nothing is copied
    compose.yaml:9:40 services.web.develop.watch[1]: the bind mount of /srv/shop has these files in the container: nothing is copied
    compose.yaml:11:46 services.web.develop.watch[3]: `target` has no effect here: only the forms of `sync` go by it
    compose.yaml:16:20 services.side.develop.watch[0]: `sync` has nothing to copy: a program of this host sees the files themselves
    compose.yaml:17:20 services.side.develop.watch[1]: `sync+exec` copies nothing and runs nothing; `restart` starts it anew: a program of this host sees the files themselves
    compose.yaml:18:20 services.side.develop.watch[2]: `sync+restart` copies nothing, and is `restart`: a program of this host sees the files themselves
    ");
    let all = findings(&Shop::new().load(text));
    let checked = |level| {
        let of_watch = all.iter().filter(|finding| finding.what.contains(".develop.watch["));
        of_watch.filter(|finding| finding.level == level).count()
    };
    assert_eq!((checked(Level::Note), checked(Level::Warning)), (6, 0));
    let wrong =
        "services:\n  web: {image: 'shop:1', develop: {watch: [{action: rebuild, path: .}]}}\n".to_owned();
    let all = findings(&Shop::new().load(&wrong));
    let mistake = all.iter().find(|finding| finding.what.contains(".develop.watch[")).unwrap();
    assert_eq!(mistake.level, Level::Warning);
}
