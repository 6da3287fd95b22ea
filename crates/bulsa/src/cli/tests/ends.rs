//! How a command ends whose reader went away, that was interrupted, or that has something to add.

use std::io::{self, Write};

use rustix::process::{Signal, getpid, kill_process};

use super::{super::context::Accepted, *};

/// A stream that can't be written.
struct Broken(io::ErrorKind);

impl Write for Broken {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(self.0.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Err(self.0.into())
    }
}

/// The exit code of a command of which nothing can be written.
async fn unread(kind: io::ErrorKind, line: &[&str], directory: &Path, socket: &Path) -> u8 {
    let cli = Cli::try_parse_from([&["bulsa"], line].concat()).unwrap();
    let manner = Manner { json: cli.global.json, quiet: cli.global.quiet, no_color: true };
    let streams = (Box::new(Broken(kind)), Box::new(Broken(kind)));
    let printer = Printer::on(streams.0, streams.1, manner, Clock::fixed(NOW_MS));
    let result = run_on(printer, cli, directory, socket).await;
    result.unwrap_or_else(|error| error.kind.exit_code()).code()
}

fn line(n: u32, kind: ProgressKind, exit_code: Option<u8>) -> ProgressV1 {
    ProgressV1 { n, at_ms: NOW_MS, kind, text: "so it is".to_owned(), outcome: None, exit_code }
}

/// Answers the next request with a deploy, and lets that end with this exit code.
async fn deploy_next(daemon: &mut Daemon, notes: Vec<String>, code: u8) {
    let (_, to) = daemon.requests.recv().await.unwrap();
    daemon.publish(|project| {
        project.deployments = vec![deployment(7, vec![line(1, ProgressKind::Step, None)])];
    });
    to.send(Answer::Accepted { deploy: Some(7), text: "release 4".to_owned(), notes }).unwrap();
    daemon.publish(|project| {
        project.deployments[0].progress.push(line(2, ProgressKind::Done, Some(code)));
    });
}

#[tokio::test]
async fn what_was_begun_is_followed_to_its_end_though_nobody_reads() {
    let dir = project_dir();
    // It has a warning, which is the first thing that can't be written.
    let text = "version: '3'\nname: shop\nservices:\n  web:\n    command: node server.js\n";
    fs::write(dir.path().join("compose.yaml"), text).unwrap();
    let mut daemon = Daemon::start().await;
    let socket = daemon.dir.path().join("api.sock");
    daemon.publish(|_| {});
    for kind in [io::ErrorKind::BrokenPipe, io::ErrorKind::StorageFull] {
        for words in [&["deploy"][..], &["deploy", "--json"], &["rollback"], &["up", "-d"]] {
            let driver = deploy_next(&mut daemon, Vec::new(), 3);
            let (code, ()) = tokio::join!(unread(kind, words, dir.path(), &socket), driver);
            assert_eq!(code, 3, "{words:?}");
        }
        assert_eq!(unread(kind, &["wait"], dir.path(), &socket).await, 3);
    }
    // Nothing is lost where something was only to be shown.
    for (kind, code) in [(io::ErrorKind::BrokenPipe, 0), (io::ErrorKind::StorageFull, 1)] {
        assert_eq!(unread(kind, &["releases"], dir.path(), &socket).await, code);
        let plan = Answer::Plan(Plan { project: "shop".to_owned(), release: 1, ..Plan::default() });
        let planned = unread(kind, &["deploy", "--plan", "--json"], dir.path(), &socket);
        assert_eq!(tokio::join!(planned, answer_next(&mut daemon, plan)).0, code);
    }
}

#[tokio::test]
async fn notes_of_the_preparation_come_last_and_in_every_manner() {
    let dir = project_dir();
    let mut daemon = Daemon::start().await;
    let socket = daemon.dir.path().join("api.sock");
    daemon.publish(|_| {});
    let note = "shop:1: the registry is away; going on with the image on this host";
    for (words, out, err) in [
        (&["deploy"][..], String::new(), format!("nothing has changed\nwarning: {note}\n")),
        (&["deploy", "--quiet"], String::new(), format!("warning: {note}\n")),
        (
            &["deploy", "--json"],
            format!("{{\"notes\":[\"{note}\"],\"text\":\"nothing has changed\"}}\n"),
            String::new(),
        ),
    ] {
        let so = Answer::AlreadySo { text: "nothing has changed".to_owned(), notes: vec![note.to_owned()] };
        let (ran, _) = tokio::join!(bulsa(words, dir.path(), &socket), answer_next(&mut daemon, so));
        assert_eq!((ran.code(), ran.out, ran.err), (0, out, err), "{words:?}");
    }
    for (words, first, last) in [
        (&["deploy"][..], "release 4\nso it is\n", format!("warning: {note}\n")),
        (&["up", "-d", "--quiet"], "warning", format!("warning: {note}\n")),
        (&["deploy", "--json"], "{\"warning\"", format!("{{\"warning\":\"{note}\"}}\n")),
    ] {
        let driver = deploy_next(&mut daemon, vec![note.to_owned()], 0);
        let (ran, ()) = tokio::join!(bulsa(words, dir.path(), &socket), driver);
        assert_eq!(ran.code(), 0, "{words:?}");
        assert!(ran.err.starts_with(first) && ran.err.ends_with(&last), "{words:?}: {}", ran.err);
        assert_eq!(ran.err.matches(note).count(), 1, "{words:?}: {}", ran.err);
    }
}

#[test]
fn a_note_that_was_shown_is_not_told_again() {
    let begun = |notes: &[&str]| Accepted::Begun {
        deploy: Some(1),
        text: "begun".to_owned(),
        notes: notes.iter().map(|note| (*note).to_owned()).collect(),
    };
    let shown = ["api: pulled", "web: shop:1: the registry is away"].map(str::to_owned).into();
    assert_eq!(
        begun(&["shop:1: the registry is away", "other:1: too"]).without(&shown),
        begun(&["other:1: too"])
    );
}

/// Ctrl-C, to this process.
fn interrupt() {
    kill_process(getpid(), Signal::INT).unwrap();
}

#[tokio::test]
async fn an_interrupted_up_says_whether_its_deploy_had_begun() {
    let dir = project_dir();
    let mut daemon = Daemon::start().await;
    let socket = daemon.dir.path().join("api.sock");
    daemon.publish(|_| {});
    let driver = async {
        // As while images are pulled: asked, and not answered.
        let asked = daemon.requests.recv().await.unwrap();
        interrupt();
        asked
    };
    let (ran, _) = tokio::join!(bulsa(&["up"], dir.path(), &socket), driver);
    assert_eq!(ran.code(), 1, "{}", ran.err);
    assert!(ran.error().message.contains("before the deploy of `shop` began"), "{:?}", ran.error());
    assert!(!ran.err.contains("detached"), "{}", ran.err);

    // Just begun, and the answer is still on its way.
    let driver = async {
        let asked = daemon.requests.recv().await.unwrap();
        daemon.publish(|project| project.deployments = vec![deployment(7, Vec::new())]);
        interrupt();
        asked
    };
    let (ran, _) = tokio::join!(bulsa(&["up"], dir.path(), &socket), driver);
    assert_eq!(
        (ran.code(), ran.err.as_str()),
        (0, "detached; `shop` goes on, and `bulsa down -p shop` stops it\n")
    );

    daemon.publish(|project| project.deployments.clear());
    let driver = async {
        let (_, to) = daemon.requests.recv().await.unwrap();
        to.send(Answer::AlreadySo { text: "nothing has changed".to_owned(), notes: Vec::new() }).unwrap();
        // It shows what happens from here on.
        while daemon.events.receiver_count() < 1 {
            tokio::task::yield_now().await;
        }
        interrupt();
    };
    let (ran, ()) = tokio::join!(bulsa(&["up"], dir.path(), &socket), driver);
    assert_eq!(ran.code(), 0, "{:?}", ran.result);
    assert!(ran.err.contains("Ctrl-C leaves it running\ndetached; `shop` goes on"), "{}", ran.err);
}

#[tokio::test]
async fn stop_returns_when_no_replica_runs_any_more() {
    let dir = project_dir();
    let mut daemon = Daemon::start().await;
    let socket = daemon.dir.path().join("api.sock");
    daemon.publish(|project| {
        project.services = vec![service("web", ServiceState::Healthy, 2, vec![replica(1, 1, "ready")])];
    });
    let driver = async {
        let accepted = accepted(None, "stopping `web`");
        let request = answer_next(&mut daemon, accepted).await;
        daemon.publish(|project| project.services[0].state = ServiceState::Stopped);
        daemon.publish(|project| project.services[0].replicas.clear());
        request
    };
    let (ran, request) = tokio::join!(bulsa(&["stop", "web"], dir.path(), &socket), driver);
    assert_eq!(request, Request::Stop { project: "shop".to_owned(), service: "web".to_owned() });
    assert_eq!((ran.code(), ran.out.as_str()), (0, "web: stopped, 2/2 ready\n"));
    let ran = bulsa(&["stop", "webb"], dir.path(), &socket).await;
    assert_eq!((ran.code(), ran.error().hints[0].as_str()), (1, "did you mean `web`?"));
}

#[tokio::test]
async fn hold_returns_when_every_proxy_does_so_and_says_what_is_under_way() {
    let dir = project_dir();
    let mut daemon = Daemon::start().await;
    let socket = daemon.dir.path().join("api.sock");
    let held = |in_force| Some(HeldView { since_ms: NOW_MS, in_force, waiting: 0, in_flight: 3 });
    let publish = |daemon: &Daemon, view| {
        daemon.publish(|project| {
            let others = service("queue", ServiceState::Healthy, 2, Vec::new());
            project.services = vec![service("web", ServiceState::Healthy, 2, Vec::new()), others];
            project.services[0].held = view;
        });
    };
    publish(&daemon, None);
    let driver = async {
        let (request, to) = daemon.requests.recv().await.unwrap();
        publish(&daemon, held(false));
        let (text, notes) = ("holding all requests".to_owned(), vec!["`web`: each waits".to_owned()]);
        to.send(Answer::Accepted { deploy: None, text, notes }).unwrap();
        publish(&daemon, held(true));
        request
    };
    let (ran, request) = tokio::join!(bulsa(&["hold", "on"], dir.path(), &socket), driver);
    assert_eq!(request, Request::Hold { project: "shop".to_owned(), services: Vec::new(), on: true });
    assert_eq!((ran.code(), ran.out.as_str()), (0, "web: held, 3 from before are under way\n"));
    assert_eq!(ran.err, "holding all requests\n`web`: each waits\n");

    let driver = async {
        let (request, to) = daemon.requests.recv().await.unwrap();
        publish(&daemon, None);
        to.send(accepted(None, "letting the requests for `web` out")).unwrap();
        request
    };
    let (ran, request) = tokio::join!(bulsa(&["--json", "hold", "off", "web"], dir.path(), &socket), driver);
    let services = vec!["web".to_owned()];
    assert_eq!(request, Request::Hold { project: "shop".to_owned(), services, on: false });
    let object: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((&object["on"], &object["services"][0]["name"]), (&false.into(), &"web".into()), "{object}");
    assert_eq!(object["services"].as_array().map(Vec::len), Some(1), "{object}");
    let wrong = Cli::try_parse_from(["bulsa", "hold", "onn"]).unwrap_err().to_string();
    assert!(wrong.contains("on") && wrong.contains("off"), "{wrong}");
}

#[tokio::test]
async fn down_returns_when_the_project_is_gone() {
    let dir = project_dir();
    let mut daemon = Daemon::start().await;
    let socket = daemon.dir.path().join("api.sock");
    daemon.publish(|_| {});
    let driver = async {
        let accepted = accepted(None, "stopping `shop`");
        answer_next(&mut daemon, accepted).await;
        daemon.snapshot.send_modify(|snapshot| {
            let next = std::sync::Arc::make_mut(snapshot);
            next.number += 1;
            next.projects.clear();
        });
    };
    let (ran, ()) = tokio::join!(bulsa(&["down"], dir.path(), &socket), driver);
    assert_eq!((ran.code(), ran.err.as_str()), (0, "stopping `shop`\n`shop` is down\n"));
}
