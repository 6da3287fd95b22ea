use super::*;
use crate::compose::tests::Shop;

fn service(lines: &str) -> Service {
    Shop::new().spec(&format!("services:\n  web: {{{lines}}}\n")).services.remove("web").unwrap()
}

fn web(more: &str) -> Service {
    service(&format!("command: [serve], ports: ['8080:3000'], {more}"))
}

fn contained(more: &str) -> Service {
    service(&format!("image: shop:1, ports: ['8080:3000'], {more}"))
}

const fn facts(service: &Service) -> Facts<'_> {
    Facts { service, ready: 2, serving_children: Some(0), is_isolated: false, no_memory_limit: None }
}

fn not(kind: DrillKind, facts: &Facts<'_>) -> String {
    plan(kind, facts).unwrap_err()
}

#[test]
fn what_a_replica_is_decides_which_injuries_apply() {
    let process = web("");
    let own = facts(&process);
    assert!(plan(DrillKind::Kill, &own).is_ok() && plan(DrillKind::Hang, &own).is_ok());
    assert!(plan(DrillKind::CrashLoop, &own).is_ok());
    assert!(not(DrillKind::AppDead, &own).contains("main process"));
    assert!(not(DrillKind::Block, &own).contains("x-bulsa: {drill: {block: /path}}"));
    assert!(not(DrillKind::Cut, &own).contains("network of this host"));
    assert!(not(DrillKind::Probe, &own).contains("runs no program"));
    assert!(not(DrillKind::Memory, &Facts { no_memory_limit: Some("no group"), ..own }).contains("no group"));
    assert!(plan(DrillKind::Cut, &Facts { is_isolated: true, ..own }).is_ok());
    let two = plan(DrillKind::AppDead, &Facts { serving_children: Some(2), ..own }).unwrap();
    assert!(two.injury.contains("the 2 programs"), "{two:?}");
    assert!(not(DrillKind::AppDead, &Facts { serving_children: None, ..own }).contains("can't be seen"));

    let blocks = web("x-bulsa: {drill: {block: /block}}");
    assert!(plan(DrillKind::Block, &facts(&blocks)).unwrap().injury.contains("GET /block"));
    let exec = web("healthcheck: {test: ['CMD', '/bin/check', now]}");
    assert!(plan(DrillKind::Probe, &facts(&exec)).unwrap().injury.contains("`/bin/check`"));
    let container = contained("");
    assert!(plan(DrillKind::Cut, &facts(&container)).unwrap().injury.contains("networks"));
    let host = contained("network_mode: host");
    assert!(not(DrillKind::Cut, &facts(&host)).contains("no network of its own"));
    let inside = contained("healthcheck: {test: ['CMD', 'true']}");
    assert!(not(DrillKind::Cut, &facts(&inside)).contains("runs inside"));
}

#[test]
fn what_nobody_would_heal_is_not_hurt() {
    let given_up = web("restart: 'no'");
    assert!(not(DrillKind::Kill, &facts(&given_up)).contains("restart: no"));
    let unasked = service("command: [work], x-bulsa: {role: worker}");
    assert!(plan(DrillKind::Kill, &facts(&unasked)).is_ok());
    for kind in [DrillKind::Hang, DrillKind::AppDead, DrillKind::Probe] {
        assert!(not(kind, &facts(&unasked)).contains("no probe"), "{kind}");
    }
    let kept = service("image: 'redis:7'");
    assert!(plan(DrillKind::Kill, &facts(&kept)).unwrap().expected.contains("Docker starts it"));
    for kind in [DrillKind::Hang, DrillKind::Memory, DrillKind::Cut, DrillKind::CrashLoop] {
        assert!(not(kind, &facts(&kept)).contains("Docker keeps"), "{kind}");
    }
    let job = service("command: [migrate], x-bulsa: {role: job}");
    assert!(DrillKind::ALL.into_iter().all(|kind| not(kind, &facts(&job)).contains("job")));
}

#[test]
fn the_last_healthy_replica_is_hurt_only_where_that_is_said() {
    let app = web("");
    let last = Facts { ready: 1, ..facts(&app) };
    let refused = refusal(DrillKind::Kill, &last, "web-r1-1", false).unwrap();
    assert_eq!(refused, "web-r1-1 is the last healthy replica of `web`");
    assert_eq!(refusal(DrillKind::Kill, &last, "web-r1-1", true), None);
    assert_eq!(refusal(DrillKind::Kill, &facts(&app), "web-r1-1", false), None);
    assert_eq!(refusal(DrillKind::Probe, &last, "web-r1-1", false), None, "nothing should come of it");
    let worker = service("command: [work], x-bulsa: {role: worker}");
    assert_eq!(refusal(DrillKind::Kill, &Facts { ready: 1, ..facts(&worker) }, "w", false), None);
}

#[test]
fn limits_follow_what_the_file_says_of_its_probe() {
    let quick = web("x-bulsa: {probe: {path: /, interval: 1s, timeout: 1s, fall: 2}, gate: {timeout: 10s}}");
    let slow = web("x-bulsa: {probe: {path: /, interval: 30s, timeout: 5s, fall: 3}, gate: {timeout: 10s}}");
    let limit = |service| plan(DrillKind::Hang, &facts(service)).unwrap().limit.as_secs();
    assert_eq!(limit(&quick), 4 + 5 + 20);
    assert_eq!(
        limit(&slow),
        105 + 5 + 70,
        "its gate is raised to three intervals, and no more than a minute counts"
    );
    let kill = plan(DrillKind::Kill, &facts(&slow)).unwrap().limit;
    assert_eq!(kill, Duration::from_secs(75));
}

#[test]
fn a_drill_has_passed_when_all_that_should_come_has_come() {
    let ms = |ms| Some(Duration::from_millis(ms));
    let limit = Duration::from_secs(30);
    let whole = Seen { detected: ms(3), unrouted: ms(5), recovered: ms(170), deaths: 1, is_routed: true };
    let (passed, text) = verdict(DrillKind::Kill, &whole, limit);
    assert!(
        passed && text == "noticed after 3 ms, un-routed after 5 ms, its place served again after 170 ms"
    );
    for (seen, part) in [
        (Seen::default(), "not seen within 30 s"),
        (Seen { unrouted: None, ..whole }, "not un-routed within 30 s"),
        (Seen { recovered: None, ..whole }, "does not serve again"),
    ] {
        let (passed, text) = verdict(DrillKind::Hang, &seen, limit);
        assert!(!passed && text.contains(part), "{text}");
    }
    let worker = Seen { unrouted: None, is_routed: false, ..whole };
    assert!(verdict(DrillKind::Kill, &worker, limit).0, "nobody routes to it");
    let crashes = verdict(DrillKind::CrashLoop, &Seen { deaths: 5, ..whole }, limit);
    assert!(crashes.0 && crashes.1.contains("5 died") && crashes.1.contains("the last"), "{crashes:?}");
}

#[test]
fn a_broken_probe_must_change_nothing() {
    let limit = Duration::from_secs(30);
    let quiet = Seen { detected: Some(Duration::from_millis(90)), is_routed: true, ..Seen::default() };
    assert!(verdict(DrillKind::Probe, &quiet, limit).0);
    let died = verdict(DrillKind::Probe, &Seen { deaths: 1, ..quiet }, limit);
    assert!(!died.0 && died.1.contains("1 died"), "{died:?}");
    let unrouted = Seen { unrouted: quiet.detected, ..quiet };
    assert!(!verdict(DrillKind::Probe, &unrouted, limit).0);
    assert!(!verdict(DrillKind::Probe, &Seen::default(), limit).0, "it was not even told");
}
