use std::time::Duration;

use super::*;
use crate::spec::{Accept, Check, Probe};

fn probe(lines: &str) -> Probe {
    Shop::new().web(lines).probe
}

fn http(port: Option<u16>, path: &str, host: Option<&str>, accept: Accept) -> Check {
    Check::Http { port, path: path.to_owned(), host: host.map(str::to_owned), accept }
}

#[test]
fn the_check_follows_from_what_is_written() {
    let curl = "healthcheck: {test: [CMD, curl, -f, 'http://localhost:3000/health']}";
    let exec = |argv: &[&str]| Check::Exec(argv.iter().map(|&a| a.to_owned()).collect());
    for (lines, check, declared) in [
        ("", Check::Up, false),
        ("ports: ['80:3000']", http(None, "/", None, Accept::AnyAnswer), false),
        (
            "ports: ['80:3000']\nhealthcheck: {disable: true, test: x}",
            http(None, "/", None, Accept::AnyAnswer),
            false,
        ),
        ("healthcheck: {test: [NONE]}", Check::Up, false),
        ("healthcheck: {interval: 3s}", Check::Up, false),
        ("healthcheck: {test: pg_isready -q}", exec(&["/bin/sh", "-c", "pg_isready -q"]), true),
        ("healthcheck: {test: [CMD-SHELL, 'a | b']}", exec(&["/bin/sh", "-c", "a | b"]), true),
        ("healthcheck: {test: [CMD, a, b]}", exec(&["a", "b"]), true),
        (
            &format!("ports: ['80:3000']\n{curl}"),
            http(None, "/health", Some("localhost:3000"), Accept::Success),
            true,
        ),
        (
            &format!("ports: ['80:4000']\n{curl}"),
            http(Some(3000), "/health", Some("localhost:3000"), Accept::Success),
            true,
        ),
        (
            &format!("x-bulsa: {{app_port: 3000}}\n{curl}"),
            http(None, "/health", Some("localhost:3000"), Accept::Success),
            true,
        ),
        (
            "healthcheck: {test: wget -q --spider http://127.0.0.1/ || exit 1}",
            http(Some(80), "/", Some("127.0.0.1"), Accept::Success),
            true,
        ),
        ("x-bulsa: {probe: {path: /h?x=1}}", http(None, "/h?x=1", None, Accept::Success), true),
        ("ports: ['80:3000']\nx-bulsa: {probe: {port: 3000}}", http(None, "/", None, Accept::Success), true),
        (
            "ports: ['80:3000']\nx-bulsa: {probe: {port: 9000}}",
            http(Some(9000), "/", None, Accept::Success),
            true,
        ),
        (&format!("x-bulsa: {{probe: {{}}}}\n{curl}"), http(None, "/", None, Accept::Success), true),
    ] {
        let probe = probe(lines);
        assert_eq!((probe.check, probe.declared), (check, declared), "{lines}");
    }
}

#[test]
fn times_come_from_the_file_or_the_kind_of_check() {
    let times = |lines: &str| {
        let p = probe(lines);
        let ms = |d: Duration| d.as_millis();
        (ms(p.interval), ms(p.timeout), ms(p.start_interval), ms(p.start_period), p.rise, p.fall)
    };
    assert_eq!(times(""), (2000, 1000, 10, 0, 2, 3));
    assert_eq!(times("healthcheck: {test: x}"), (2000, 30_000, 10, 0, 2, 3));
    assert_eq!(times("healthcheck: {test: curl -f localhost}"), (2000, 1000, 10, 0, 2, 3));
    assert_eq!(times("healthcheck: {test: curl -f -m 4 localhost}"), (2000, 4000, 10, 0, 2, 3));
    assert_eq!(times("healthcheck: {test: curl -f -m 4 localhost, timeout: 3s}"), (2000, 3000, 10, 0, 2, 3));
    assert_eq!(
        times(
            "healthcheck: {test: x, interval: 10s, timeout: 2s, retries: 5, start_period: 1m, start_interval: 50ms}"
        ),
        (10_000, 2000, 50, 60_000, 2, 5)
    );
    assert_eq!(
        times("healthcheck: {test: x, interval: 0s, timeout: 0s, retries: 0}"),
        (2000, 30_000, 10, 0, 2, 3)
    );
    assert_eq!(
        times(
            "healthcheck: {test: x, start_period: 9s}\nx-bulsa: {probe: {interval: 1s, timeout: 3s, rise: 1, fall: 7}}"
        ),
        (1000, 3000, 10, 9000, 1, 7)
    );
}

#[test]
fn the_gate_waits_at_least_as_long_as_the_check_may_take() {
    let gate = |lines: &str| Shop::new().web(lines).gate_timeout.as_secs();
    assert_eq!(gate(""), 120);
    assert_eq!(gate("x-bulsa: {gate: {timeout: 10s}}"), 10);
    assert_eq!(gate("healthcheck: {test: x, start_period: 100s, interval: 10s, retries: 5}"), 150);
    assert_eq!(gate("healthcheck: {test: x, interval: 10s}\nx-bulsa: {gate: {timeout: 1s}}"), 30);
}

#[test]
fn a_curl_that_passes_on_everything_is_warned_of() {
    assert_eq!(
        Shop::new().complaints("healthcheck: {test: curl http://localhost/}"),
        ["3:25 warning: services.web.healthcheck.test: curl without -f passes on every answer, also on 500"]
    );
}
