//! Passive health: who is left out, for how long, and what does not count.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use crate::support::*;

/// A server that drops every connection that is asked `/slow/N` when `die` has reached N, and answers all else.
async fn mortal(text: &'static str, die: &watch::Sender<u32>) -> Backend {
    let die = die.subscribe();
    Backend::serving(move |mut wire, seen| {
        let mut die = die.clone();
        async move {
            while let Some(request) = seen.next(&mut wire).await {
                if let Some(slow) = request.line().split("/slow/").nth(1) {
                    let death: u32 = slow.split(' ').next().unwrap().parse().unwrap();
                    die.wait_for(|died| death <= *died).await.expect("the test lives");
                    return;
                }
                wire.write(&ok(text)).await;
            }
        }
    })
    .await
}

/// Sends this on a connection of its own and does not wait for the answer.
async fn send(rig: &Rig, request: &str) -> Wire {
    let mut client = Wire::connect(rig.addr).await;
    client.write(request).await;
    client
}

#[tokio::test]
async fn one_death_counts_once_however_many_requests_it_took_down() {
    let (die, _) = watch::channel(0);
    let backends = [mortal("a", &die).await, mortal("b", &die).await];
    let rig = Rig::new(&table(1, &[backends[0].target("a"), backends[1].target("b")])).await;
    for death in 1..=2 {
        let mut slow = Vec::new();
        for _ in 0..12 {
            slow.push(send(&rig, &post(&format!("/slow/{death}"), "x")).await);
        }
        rig.until(|report| report.targets.iter().all(|target| target.in_flight == 6)).await;
        die.send_replace(death);
        for client in &mut slow {
            assert_eq!(patient(client.message()).await.unwrap().status(), 502);
        }
        let report = rig.proxy.report();
        assert!(report.targets.iter().all(|target| !target.left_out), "after {death}: {report:?}");
    }
    assert_eq!(rig.get("/").await.status(), 200);
}

#[tokio::test]
async fn after_max_fails_a_target_is_left_out_and_the_last_one_never_is() {
    let (dying, alive) = (Backend::dying().await, Backend::saying("x").await);
    let mut table = table(1, &[dying.target("dying"), alive.target("alive")]);
    table.services[0].balance.fail_timeout_ms = 600_000;
    let rig = Rig::new(&table).await;
    for _ in 0..20 {
        assert_eq!(rig.get("/").await.status(), 200);
    }
    assert_eq!(dying.seen.count(), 3, "max_fails is 3");
    assert!(rig.target("dying").left_out);

    table.number = 2;
    table.services[0].targets.pop();
    rig.apply(&table).await;
    assert_eq!(ask(rig.addr, &post("/", "x")).await.status(), 502, "it is asked, for there is no other");
    assert_eq!(dying.seen.count(), 4);
}

#[tokio::test]
async fn a_suspect_is_tried_by_one_request_and_taken_back_when_it_answers() {
    let is_ill = Arc::new(AtomicBool::new(true));
    let illness = Arc::clone(&is_ill);
    let patient_one = Backend::serving(move |mut wire, seen| {
        let is_ill = Arc::clone(&illness);
        async move {
            while seen.next(&mut wire).await.is_some() && !is_ill.load(Ordering::SeqCst) {
                wire.write(&ok("ill")).await;
            }
        }
    })
    .await;
    let well = Backend::saying("well").await;
    let mut table = table(1, &[patient_one.target("ill"), well.target("well")]);
    table.services[0].balance.fail_timeout_ms = 100;
    table.services[0].balance.max_fails = 1;
    let rig = Rig::new(&table).await;
    while !rig.target("ill").left_out {
        assert_eq!(rig.get("/").await.status(), 200);
    }
    is_ill.store(false, Ordering::SeqCst);
    let back = async {
        while rig.get("/").await.text() != "ill" {
            tokio::task::yield_now().await;
        }
    };
    patient(back).await;
    assert!(!rig.target("ill").left_out);
}

#[tokio::test]
async fn no_answer_in_time_goes_elsewhere_if_it_may_and_is_a_504_otherwise() {
    let (go, _) = watch::channel(false);
    let (hung, alive) = (Backend::waiting("late", &go).await, Backend::saying("x").await);
    let mut table = table(1, &[hung.target("hung"), alive.target("alive")]);
    table.services[0].times.first_byte_ms = 50;
    let rig = Rig::new(&table).await;
    for _ in 0..2 {
        assert_eq!(rig.get("/").await.status(), 200);
    }
    assert!(hung.seen.count() >= 1);
    assert_eq!(rig.target("hung").timed_out, hung.seen.count() as u64);

    table.number = 2;
    table.services[0].targets.pop();
    rig.apply(&table).await;
    assert_eq!(ask(rig.addr, &post("/", "x")).await.status(), 504);
}

#[tokio::test]
async fn who_waits_on_a_target_that_is_given_up_goes_elsewhere_unless_it_must_not() {
    let (go, _) = watch::channel(false);
    let (hung, alive) = (Backend::waiting("late", &go).await, Backend::saying("alive").await);
    let mut table = table(1, &[hung.target("hung")]);
    let rig = Rig::new(&table).await;
    let mut got = send(&rig, &get("/")).await;
    let mut put = send(&rig, &post("/", "body").replace("POST", "PUT")).await;
    let mut posted = send(&rig, &post("/", "body")).await;
    hung.seen.at_least(3).await;
    rig.until(|report| report.targets[0].stalled).await;
    table.number = 2;
    table.services[0].targets = vec![alive.target("alive")];
    rig.apply(&table).await;
    assert_eq!(rig.target("hung").in_flight, 3, "that it has left the table moves nobody");
    table.number = 3;
    table.abandon = vec!["hung".into()];
    rig.apply(&table).await;
    for client in [&mut got, &mut put] {
        assert_eq!(patient(client.message()).await.unwrap().text(), "alive");
    }
    assert_eq!(alive.seen.all().iter().find(|m| m.line().starts_with("PUT")).unwrap().text(), "body");
    go.send_replace(true);
    assert_eq!(
        patient(posted.message()).await.unwrap().text(),
        "late",
        "it was sent, and may have been done"
    );
}

#[tokio::test]
async fn a_request_that_kills_two_targets_is_named() {
    let (a, b) = (Backend::dying().await, Backend::dying().await);
    let rig = Rig::new(&table(1, &[a.target("a"), b.target("b")])).await;
    let answer = rig.get("/poison?secret=1").await;
    assert_eq!(answer.status(), 502);
    let report = rig.proxy.report();
    let suspect = report.suspects.last().expect("one is named");
    assert_eq!((suspect.number, suspect.service.as_str()), (1, "web"));
    assert_eq!((suspect.method.as_str(), suspect.path.as_str()), ("GET", "/poison"));
    assert_eq!(suspect.request, answer.field("x-request-id"));
    let mut targets = suspect.targets.clone();
    targets.sort_unstable();
    assert_eq!(targets, ["a", "b"]);
}
