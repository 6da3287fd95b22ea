//! How many workers, what they inherit, and how everything ends.

use std::{collections::BTreeSet, net::TcpStream, thread::available_parallelism, time::Duration};

use rustix::process::Signal;

use crate::world::{Run, dead_within, signal, variable};

/// The app that the binary brings along; it needs nothing.
const APP: [&str; 2] = [env!("CARGO_BIN_EXE_bulsa"), "__demo-app"];
const AT_ONCE: (&str, &str) = ("DEMO_START_MS", "0");

#[tokio::test]
async fn the_number_of_workers_may_be_worked_out_from_the_processors() {
    let cpus = u32::try_from(available_parallelism().unwrap().get()).unwrap();
    for (words, wanted) in [
        ("3", 3),
        ("cpus", cpus),
        ("cpus-1", cpus.saturating_sub(1).max(1)),
        ("(cpus-1)/2", (cpus.saturating_sub(1) / 2).max(1)),
    ] {
        let mut run = Run::start(&["--workers", words, "--", APP[0], APP[1]], &[AT_ONCE]);
        let service = run.healthy().await;
        assert_eq!((service.desired, service.replicas.len()), (wanted, wanted as usize), "{words}");
        run.interrupt();
        assert!(run.ended().await.success(), "{words}: {}", run.said());
    }
}

#[tokio::test]
async fn ctrl_c_stops_everything_that_it_started_and_leaves_nothing_over() {
    // A shell between, and a child beside: both are the worker's.
    let script = format!("sleep 1000 & exec {} {}", APP[0], APP[1]);
    let mut run = Run::start(&["--workers", "2", "--", "sh", "-c", &script], &[AT_ONCE]);
    run.healthy().await;
    let snapshot = run.client().await.snapshot().await.unwrap();
    let (all, port) = (run.marked(), run.port);
    // The command, keeper, agent, two workers, two children; the proxy has no environment of ours.
    assert_eq!(all.len(), 7, "{all:#?}");
    run.interrupt();
    assert!(run.ended().await.success(), "{}", run.said());
    let left = run.leftovers().await;
    assert!(left.is_empty(), "{left:#?}\n{}", run.said());
    assert!(dead_within(snapshot.proxies[0].pid, Duration::ZERO).await, "the proxy is left over");
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "the port is still open");
    assert!(!run.socket().exists(), "the API's socket is still there");
}

#[tokio::test]
async fn what_workers_say_at_their_end_is_shown_also_without_an_end_of_line() {
    let script = "trap 'echo bye; printf really; exit 0' TERM; echo begun; while :; do sleep 0.1; done";
    for interrupt in [Signal::INT, Signal::TERM] {
        let mut run = Run::start(&["--workers", "2", "--no-port", "--", "sh", "-c", script], &[]);
        run.says("showing logs").await;
        run.says("| begun").await;
        run.interrupt_by(interrupt);
        assert!(run.ended().await.success(), "{}", run.said());
        for text in ["| bye", "| really"] {
            assert_eq!(run.said().matches(text).count(), 2, "{text}: {}", run.said());
        }
    }
}

#[tokio::test]
async fn workers_inherit_the_callers_environment_and_their_instance_outlives_them() {
    let mut run = Run::start(
        &["--name", "shop", "--workers", "2", "--", APP[0], APP[1]],
        &[AT_ONCE, ("SHOP_COLOUR", "dark $green ${x}"), ("PORT", "1")],
    );
    let workers = run.healthy().await.replicas;
    let pids: Vec<u32> = workers.iter().map(|worker| worker.pid.unwrap()).collect();
    let each = |name: &str| pids.iter().map(|pid| variable(*pid, name)).collect::<BTreeSet<_>>();
    let is = |texts: &[&str]| texts.iter().map(|text| Some((*text).to_owned())).collect::<BTreeSet<_>>();
    assert_eq!(each("SHOP_COLOUR"), is(&["dark $green ${x}"]));
    assert_eq!(each("BULSA_SERVICE"), is(&["shop"]));
    assert_eq!(each("BULSA_RELEASE"), is(&["r1"]));
    assert_eq!(each("BULSA_REPLICA"), is(&["shop-r1-1", "shop-r1-2"]));
    assert_eq!(each("PORT").len(), 2);
    assert!(!each("PORT").contains(&Some("1".to_owned())), "the caller's own PORT is not theirs");
    let instance = each("BULSA_INSTANCE");
    assert!(instance.len() == 1 && !instance.contains(&None), "{instance:?}");
    signal(pids[0], Signal::KILL);
    let successor = run
        .until("another one is ready", |service| {
            let mut new =
                service.replicas.iter().filter(|r| r.state == "ready" && r.attempt > workers[0].attempt);
            new.find(|r| r.ordinal == workers[0].ordinal).and_then(|r| r.pid)
        })
        .await;
    assert_eq!(instance, BTreeSet::from([variable(successor, "BULSA_INSTANCE")]));
    assert_eq!(variable(successor, "BULSA_REPLICA").as_deref(), Some("shop-r1-1"));
}
