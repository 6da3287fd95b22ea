use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use bulsa_core::wire::api::{
    DeployKind, DeploymentRow, DeploymentView, Finished, Outcome, ProgressKind, ProgressV1, ReplicaView,
    ServiceState, ServiceView,
};

use super::{testing::Daemon, *};
use crate::{
    agent::store::Change,
    client::{ClientError, EventsQuery, LogsQuery},
};

fn line(n: u32, kind: ProgressKind, text: &str) -> ProgressV1 {
    ProgressV1 { n, at_ms: 1, kind, text: text.to_owned(), outcome: None, exit_code: None }
}

fn deployment(id: u32) -> DeploymentView {
    DeploymentView {
        id,
        kind: DeployKind::Deploy,
        phase: "gate".to_owned(),
        candidate: id,
        previous: None,
        since_ms: 1,
        progress: vec![line(1, ProgressKind::Step, "starting")],
        finished: None,
    }
}

fn service_with_logs(logs: &[(&str, &Path)]) -> ServiceView {
    let replica = |(id, log): &(&str, &Path)| ReplicaView {
        id: (*id).to_owned(),
        log: Some(log.to_str().unwrap().to_owned()),
        ..ReplicaView::default()
    };
    ServiceView {
        name: "web".to_owned(),
        role: "app".to_owned(),
        desired: 1,
        withheld: 0,
        ready: 1,
        state: ServiceState::Healthy,
        reason: None,
        held: None,
        urls: Vec::new(),
        restarts: 0,
        next_retry_at_ms: None,
        finding: None,
        replicas: logs.iter().map(replica).collect(),
    }
}

#[tokio::test]
async fn a_request_reaches_the_driver_and_its_answer_comes_back() {
    let mut daemon = Daemon::start().await;
    let request = Request::Scale { project: "shop".to_owned(), service: "web".to_owned(), replicas: 3 };
    let driver = async {
        let (request, answer) = daemon.requests.recv().await.unwrap();
        answer
            .send(Answer::Accepted {
                deploy: None,
                text: format!("{:?}", request.project()),
                notes: Vec::new(),
            })
            .unwrap();
    };
    let (answer, ()) = tokio::join!(daemon.client.request(&request), driver);
    assert_eq!(
        answer.unwrap(),
        Answer::Accepted { deploy: None, text: "Some(\"shop\")".to_owned(), notes: Vec::new() }
    );
}

#[tokio::test]
async fn a_driver_that_dies_before_it_answers_is_an_error_that_may_pass() {
    let mut daemon = Daemon::start().await;
    let driver = async { drop(daemon.requests.recv().await) };
    let (answer, ()) = tokio::join!(daemon.client.request(&Request::Shutdown), driver);
    let error = answer.unwrap_err();
    assert!(error.may_pass(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_takes_nothing_is_said_so_in_bounded_time() {
    // The client's side of the socket is real; only the server's waits run on the paused clock.
    let daemon = Daemon::start().await;
    let mut answers = Vec::new();
    for _ in 0..5 {
        let client = daemon.client.clone();
        answers.push(tokio::spawn(async move { client.request(&Request::Shutdown).await }));
    }
    let mut texts = Vec::new();
    for answer in answers {
        texts.push(answer.await.unwrap().unwrap_err().to_string());
    }
    assert!(texts.iter().any(|text| text.contains("too many requests")), "{texts:?}");
    assert!(texts.iter().any(|text| text.contains("did not answer within")), "{texts:?}");
}

#[tokio::test]
async fn nonsense_and_unknown_things_are_client_errors() {
    let daemon = Daemon::start().await;
    for error in [
        daemon.client.progress("shop/../x", 1, 0).await.unwrap_err(),
        daemon
            .client
            .logs(&LogsQuery { project: "no such".to_owned(), ..LogsQuery::default() })
            .await
            .unwrap_err(),
    ] {
        assert!(matches!(&error, ClientError::Api { status, .. } if status.as_u16() == 404), "{error}");
    }
    daemon.publish(|project| project.services.push(service_with_logs(&[])));
    let wanted =
        LogsQuery { project: "shop".to_owned(), service: Some("wbe".to_owned()), ..LogsQuery::default() };
    let error = daemon.client.logs(&wanted).await.unwrap_err();
    assert_eq!(error.to_string(), "project `shop` has no service `wbe`");
}

#[tokio::test]
async fn a_long_poll_returns_with_the_next_snapshot() {
    let daemon = Daemon::start().await;
    assert_eq!(daemon.client.snapshot().await.unwrap().number, 1);
    assert_eq!(daemon.client.snapshot_after(1, Duration::ZERO).await.unwrap().number, 1);
    let (snapshot, ()) = tokio::join!(daemon.client.snapshot_after(1, Duration::from_secs(20)), async {
        daemon.publish(|project| project.live = Some(4));
    });
    let snapshot = snapshot.unwrap();
    assert_eq!((snapshot.number, snapshot.project("shop").unwrap().live), (2, Some(4)));
}

#[tokio::test]
async fn progress_replays_what_was_said_follows_and_ends_with_the_last_line() {
    let daemon = Daemon::start().await;
    daemon.publish(|project| project.deployments.push(deployment(1)));
    let mut stream = daemon.client.progress("shop", 1, 0).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().text, "starting");
    daemon.publish(|project| {
        let deployment = &mut project.deployments[0];
        deployment.progress.push(line(2, ProgressKind::Step, "gate"));
        let outcome = Some(Outcome::RolledBack);
        let done = ProgressV1 { outcome, exit_code: Some(3), ..line(3, ProgressKind::Done, "rolled back") };
        deployment.progress.push(done);
    });
    assert_eq!(stream.next().await.unwrap().unwrap().text, "gate");
    let last = stream.next().await.unwrap().unwrap();
    assert_eq!((last.kind, last.exit_code), (ProgressKind::Done, Some(3)));
    assert!(stream.next().await.unwrap().is_none());

    let mut rest = daemon.client.progress("shop", 1, 2).await.unwrap();
    assert_eq!(
        rest.next().await.unwrap().unwrap().n,
        3,
        "a reader that comes back goes on behind its last line"
    );
}

#[tokio::test]
async fn a_deployment_without_a_last_line_gets_one_from_how_it_ended() {
    let daemon = Daemon::start().await;
    daemon.publish(|project| {
        let finished =
            Finished { at_ms: 9, outcome: Outcome::Failed, exit_code: 7, reason: Some("no".to_owned()) };
        project.deployments.push(DeploymentView { finished: Some(finished), ..deployment(2) });
    });
    let mut stream = daemon.client.progress("shop", 2, 1).await.unwrap();
    let last = stream.next().await.unwrap().unwrap();
    assert_eq!((last.text.as_str(), last.exit_code, last.n), ("deploy 2 failed: no", Some(7), 2));

    let row = DeploymentRow {
        project: "shop".to_owned(),
        id: 1,
        finished_at_ms: Some(5),
        outcome: Some(Outcome::RolledBack.to_string()),
        exit_code: Some(3),
        ..DeploymentRow::default()
    };
    daemon.store.commit(Change::SaveDeployment(row)).await.unwrap();
    let mut old = daemon.client.progress("shop", 1, 0).await.unwrap();
    let last = old.next().await.unwrap().unwrap();
    assert_eq!((last.outcome, last.exit_code), (Some(Outcome::RolledBack), Some(3)));
}

#[tokio::test]
async fn events_go_from_the_store_to_live_without_a_gap_or_a_double() {
    let daemon = Daemon::start().await;
    let old: Vec<Event> = (0..3).map(|n| daemon.happen(&format!("old {n}"))).collect();
    let query = EventsQuery { last: Some(2), follow: true, ..EventsQuery::default() };
    let mut stream = daemon.client.events(&query).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap(), old[1]);
    assert_eq!(stream.next().await.unwrap().unwrap(), old[2]);
    // More than the broadcast holds: the reader lags and fetches them from the store.
    let new: Vec<Event> = (0..40).map(|n| daemon.happen(&format!("new {n}"))).collect();
    for event in &new {
        assert_eq!(stream.next().await.unwrap().as_ref(), Some(event));
    }
    let after =
        EventsQuery { after: Some(old[0].id), project: Some("shop".to_owned()), ..EventsQuery::default() };
    let mut stored = daemon.client.events(&after).await.unwrap();
    assert_eq!(stored.next().await.unwrap().unwrap(), old[1]);
    let mut count = 1;
    while stored.next().await.unwrap().is_some() {
        count += 1;
    }
    assert_eq!(count, 42, "without follow it ends");
}

fn append(path: &PathBuf, text: &str) {
    fs::OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

#[tokio::test]
async fn logs_show_the_last_lines_then_what_is_written_and_who_appears() {
    let daemon = Daemon::start().await;
    let (first, second) = (daemon.dir.path().join("1.log"), daemon.dir.path().join("2.log"));
    append(&first, "one\ntwo\nthree\r\nhal");
    daemon.publish(|project| project.services = vec![service_with_logs(&[("web-r1-1.1", &first)])]);

    let once = LogsQuery { project: "shop".to_owned(), tail: Some(2), ..LogsQuery::default() };
    let mut stream = daemon.client.logs(&once).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().text, "three");
    assert_eq!(stream.next().await.unwrap().unwrap().text, "hal");
    assert!(stream.next().await.unwrap().is_none());

    let mut stream = daemon.client.logs(&LogsQuery { follow: true, tail: Some(1), ..once }).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().text, "three");
    append(&first, "f\n");
    assert_eq!(stream.next().await.unwrap().unwrap().text, "half");
    append(&second, "hello\n");
    daemon.publish(|project| {
        project.services = vec![service_with_logs(&[("web-r1-1.1", &first), ("web-r1-2.1", &second)])];
    });
    let line = stream.next().await.unwrap().unwrap();
    assert_eq!((line.replica.as_str(), line.text.as_str()), ("web-r1-2.1", "hello"));
}

#[tokio::test]
async fn told_to_stop_the_server_ends_its_streams_and_itself() {
    let daemon = Daemon::start().await;
    let query = EventsQuery { follow: true, ..EventsQuery::default() };
    let mut stream = daemon.client.events(&query).await.unwrap();
    daemon.stop.cancel();
    assert!(stream.next().await.unwrap().is_none());
    daemon.serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_reader_beyond_the_limit_waits_for_a_seat() {
    let daemon = Daemon::start().await;
    let mut sitting = Vec::new();
    let query = EventsQuery { follow: true, ..EventsQuery::default() };
    for _ in 0..CONNECTIONS_MAX {
        sitting.push(daemon.client.events(&query).await.unwrap());
    }
    let waiting = daemon.client.snapshot();
    tokio::pin!(waiting);
    assert!(futures_util::FutureExt::now_or_never(&mut waiting).is_none());
    drop(sitting);
    assert_eq!(waiting.await.unwrap().number, 1);
}
