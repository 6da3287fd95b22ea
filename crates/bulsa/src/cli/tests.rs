mod ends;
mod files;
mod named;
mod notify;

use std::{collections::BTreeMap, fs, path::Path};

use bulsa_core::wire::api::{
    AgentView, Answer, DeployKind, DeploymentView, HeldView, Outcome, Plan, PlanStep, ProgressKind,
    ProgressV1, ProjectView, ProxyView, ReleaseState, ReleaseView, ReplicaView, Request, ServiceState,
    ServiceView, Snapshot,
};
use tempfile::TempDir;

use super::*;
use crate::{
    agent::api::testing::Daemon,
    output::{Clock, captured},
};

mod config;

/// Half past nine on the first day of 2026.
const NOW_MS: u64 = 1_767_259_800_000;

/// What one command did.
struct Ran {
    result: Result<ExitCode, CommandError>,
    out: String,
    err: String,
}

impl Ran {
    fn code(&self) -> u8 {
        self.result.as_ref().map_or_else(|error| error.kind.exit_code(), |code| *code).code()
    }

    fn error(&self) -> &CommandError {
        self.result.as_ref().unwrap_err()
    }
}

/// Runs a client's command in `directory` against the daemon at `socket`.
async fn bulsa(line: &[&str], directory: &Path, socket: &Path) -> Ran {
    let cli = Cli::try_parse_from([&["bulsa"], line].concat()).unwrap();
    let manner = Manner { json: cli.global.json, quiet: cli.global.quiet, no_color: true };
    let (printer, out, err) = captured::printer(manner);
    let result = run_on(printer, cli, directory, socket).await;
    Ran { result, out: out.text(), err: err.text() }
}

/// The same with this printer.
async fn run_on(
    mut printer: Printer,
    cli: Cli,
    directory: &Path,
    socket: &Path,
) -> Result<ExitCode, CommandError> {
    let global =
        Global { socket: Some(socket.to_path_buf()), state_dir: Some(directory.join("state")), ..cli.global };
    let env = BTreeMap::from([("PATH".to_owned(), "/usr/bin".to_owned())]);
    let mut context =
        Context::from_parts(global, cli.files, &mut printer, (env, directory.to_path_buf()), None).unwrap();
    client_command(cli.command, &mut context).await
}

fn accepted(deploy: Option<u32>, text: &str) -> Answer {
    Answer::Accepted { deploy, text: text.to_owned(), notes: Vec::new() }
}

fn project_dir() -> TempDir {
    let dir = TempDir::new().unwrap();
    let text = "name: shop\nservices:\n  web:\n    command: node server.js\n    ports: ['8080:3000']\n";
    fs::write(dir.path().join("compose.yaml"), text).unwrap();
    dir
}

/// Answers the next request with `answer`, and gives the request.
async fn answer_next(daemon: &mut Daemon, answer: Answer) -> Request {
    let (request, to) = daemon.requests.recv().await.unwrap();
    to.send(answer).unwrap();
    request
}

fn replica(release: u32, ordinal: u32, state: &str) -> ReplicaView {
    ReplicaView {
        id: format!("web-r{release}-{ordinal}.1"),
        name: format!("web-r{release}-{ordinal}"),
        release,
        ordinal,
        attempt: 1,
        pid: Some(4000 + ordinal),
        addr: Some(format!("127.0.0.1:2000{ordinal}")),
        state: state.to_owned(),
        health: "passing".to_owned(),
        since_ms: NOW_MS - 90_000,
        restarts: 0,
        last_exit: None,
        log: None,
        container: None,
    }
}

fn service(name: &str, state: ServiceState, ready: u32, replicas: Vec<ReplicaView>) -> ServiceView {
    ServiceView {
        name: name.to_owned(),
        role: "app".to_owned(),
        desired: 2,
        withheld: 0,
        ready,
        state,
        reason: None,
        held: None,
        urls: vec!["http://localhost:8080".to_owned()],
        restarts: 3,
        next_retry_at_ms: None,
        finding: None,
        replicas,
    }
}

fn release(id: u32, state: ReleaseState) -> ReleaseView {
    ReleaseView {
        id,
        state,
        color: if id.is_multiple_of(2) { "green" } else { "blue" }.to_owned(),
        created_at_ms: NOW_MS - 3_600_000 / u64::from(id),
        hash: format!("{id}0123456789abcdef"),
    }
}

fn deployment(id: u32, progress: Vec<ProgressV1>) -> DeploymentView {
    DeploymentView {
        id,
        kind: DeployKind::Deploy,
        phase: "gate".to_owned(),
        candidate: 4,
        previous: Some(3),
        since_ms: NOW_MS - 5_000,
        progress,
        finished: None,
    }
}

fn busy_project() -> ProjectView {
    let mut worker = service("worker", ServiceState::CrashLooping, 0, Vec::new());
    worker.urls.clear();
    worker.desired = 1;
    worker.next_retry_at_ms = Some(NOW_MS + 4_000);
    worker.reason = Some("exits with 1 at once, 7 times in a row".to_owned());
    let waiting = ReplicaView {
        pid: None,
        addr: None,
        health: String::new(),
        restarts: 7,
        last_exit: Some("killed by SIGKILL".to_owned()),
        ..replica(4, 1, "waiting")
    };
    let replicas = vec![replica(3, 1, "ready"), replica(3, 2, "ready"), waiting];
    ProjectView {
        name: "shop".to_owned(),
        live: Some(3),
        releases: vec![
            release(2, ReleaseState::Retired),
            release(3, ReleaseState::Live),
            release(4, ReleaseState::Starting),
        ],
        deployments: vec![deployment(5, Vec::new())],
        services: vec![service("web", ServiceState::Healthy, 2, replicas), worker],
        notify: Vec::new(),
    }
}

fn busy_snapshot() -> Snapshot {
    Snapshot {
        number: 12,
        at_ms: NOW_MS,
        projects: vec![busy_project()],
        proxies: vec![ProxyView {
            generation: 2,
            pid: 103,
            table: 9,
            in_flight: 4,
            tunnels: 20,
            access_log_dropped: 0,
        }],
        agent: AgentView { pid: 102, started_at_ms: NOW_MS - 7_500_000, warnings: Vec::new() },
        keeper_pid: 101,
        version: "0.1.0".to_owned(),
    }
}

fn plain(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn the_help_is_what_was_reviewed() {
    let mut command = Cli::command().term_width(100);
    command.build();
    let mut help = command.render_long_help().to_string();
    for name in ["run", "up", "deploy", "rollback", "scale", "hold", "events", "logs", "config"] {
        let command = command.find_subcommand_mut(name).unwrap();
        help += &format!("\n=== {name}\n{}", command.render_help());
    }
    insta::assert_snapshot!("help", help);
}

#[test]
fn the_exit_codes_in_the_help_are_all_of_them() {
    for (code, _) in ExitCode::ALL {
        assert!(AFTER_HELP.contains(&format!("{} ", code.code())), "{code:?}");
    }
}

#[test]
fn tables_are_what_was_reviewed() {
    let clock = Clock::fixed(NOW_MS);
    let snapshot = busy_snapshot();
    insta::assert_snapshot!("status", plain(&status::status_text(&snapshot, &clock)));
    let mut losing = busy_snapshot();
    losing.proxies[0].access_log_dropped = 7;
    assert!(status::status_text(&losing, &clock).contains("20 tunnels), 7 lines of its access log lost"));
    insta::assert_snapshot!("status_empty", plain(&status::status_text(&Snapshot::default(), &clock)));
    let mut held = busy_snapshot();
    held.projects[0].services[0].held =
        Some(HeldView { since_ms: NOW_MS - 60_000, in_force: true, waiting: 12, in_flight: 3 });
    held.projects[0].services[1].held = Some(HeldView { since_ms: NOW_MS, ..HeldView::default() });
    insta::assert_snapshot!("status_held", plain(&status::status_text(&held, &clock)));
    insta::assert_snapshot!("ps_held", plain(&ps::ps_text(&held.projects, &clock)));
    insta::assert_snapshot!("ps", plain(&ps::ps_text(&snapshot.projects, &clock)));
    insta::assert_snapshot!(
        "releases",
        plain(&releases::releases_text(&snapshot.projects[0].releases, &clock))
    );
    let step = |action: &str, service: Option<&str>, text: &str| PlanStep {
        action: action.to_owned(),
        service: service.map(str::to_owned),
        text: text.to_owned(),
    };
    let plan = Plan {
        project: "shop".to_owned(),
        release: 4,
        live: Some(3),
        steps: vec![
            step("start", Some("web"), "2 replicas of r4 beside r3"),
            step("switch", None, "all traffic"),
        ],
        notes: vec!["web: no health check; an HTTP answer will do, which is weak".to_owned()],
    };
    insta::assert_snapshot!("plan", plain(&deploy::plan_text(&plan)));
    let same = Plan { steps: Vec::new(), notes: Vec::new(), ..plan };
    insta::assert_snapshot!("plan_same", plain(&deploy::plan_text(&same)));
}

#[tokio::test]
async fn without_a_daemon_every_command_that_needs_one_exits_5_with_a_hint() {
    let dir = project_dir();
    for line in [
        vec!["status"],
        vec!["ps"],
        vec!["releases"],
        vec!["events"],
        vec!["logs"],
        vec!["deploy"],
        vec!["rollback"],
        vec!["stop", "web"],
        vec!["scale", "web=2"],
        vec!["hold", "on"],
        vec!["wait"],
        vec!["down"],
    ] {
        let ran = bulsa(&line, dir.path(), &dir.path().join("no.sock")).await;
        assert_eq!(ran.code(), 5, "{line:?}");
        assert!(ran.error().hints[0].contains("bulsa up"), "{line:?}");
        assert_eq!(ran.out, "");
    }
}

#[tokio::test]
async fn what_comes_later_says_so_and_exits_1() {
    let dir = project_dir();
    for line in [
        vec!["promote"],
        vec!["top"],
        vec!["exec", "web.1", "--", "sh", "-c", "x"],
        vec!["deploy", "--preview"],
    ] {
        let ran = bulsa(&line, dir.path(), Path::new("/no.sock")).await;
        assert_eq!(ran.code(), 1, "{line:?}");
        assert!(ran.error().message.contains("later version"), "{line:?}: {:?}", ran.error());
    }
}

#[tokio::test]
async fn check_fails_on_a_weak_gate_only_when_it_is_strict() {
    let dir = project_dir();
    let ran = bulsa(&["check"], dir.path(), Path::new("/no.sock")).await;
    assert_eq!(ran.code(), 0, "{}", ran.out);
    assert!(ran.out.contains("compose.yaml:3:3: warning: `web` has no healthcheck"), "{}", ran.out);
    let ran = bulsa(&["check", "--strict", "--json"], dir.path(), Path::new("/no.sock")).await;
    assert_eq!(ran.code(), 1, "{}", ran.out);
    let report: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(report["fails"], true, "{report}");
}

#[tokio::test]
async fn a_file_with_mistakes_names_them_all_and_asks_the_daemon_nothing() {
    let dir = project_dir();
    let mut daemon = Daemon::start().await;
    let text =
        "services:\n  web:\n    command: x\n    restrat: always\n    ports: ['http']\n    nonsense: 1\n";
    fs::write(dir.path().join("compose.yaml"), text).unwrap();
    for line in [["deploy"].as_slice(), &["up", "-d"], &["config"], &["deploy", "--plan"]] {
        let ran = bulsa(line, dir.path(), &daemon.dir.path().join("api.sock")).await;
        assert_eq!(ran.code(), 1, "{line:?}");
        assert!(ran.error().message.contains("nothing was started"), "{:?}", ran.error());
        let all = ran.error().causes.join("\n");
        for place in ["compose.yaml:4:5", "compose.yaml:5:", "compose.yaml:6:5"] {
            assert!(all.contains(place), "{place} in {all}");
        }
    }
    assert!(daemon.requests.try_recv().is_err());
}

#[tokio::test]
async fn a_deploy_shows_its_progress_and_exits_with_its_outcome() {
    let dir = project_dir();
    let mut daemon = Daemon::start().await;
    let socket = daemon.dir.path().join("api.sock");
    let line = |n, kind, text: &str| ProgressV1 {
        n,
        at_ms: NOW_MS,
        kind,
        text: text.to_owned(),
        outcome: None,
        exit_code: None,
    };
    let done = ProgressV1 {
        outcome: Some(Outcome::RolledBack),
        exit_code: Some(3),
        ..line(2, ProgressKind::Done, "deploy 7 rolled back: web answers 500")
    };
    let driver = async {
        let (request, to) = daemon.requests.recv().await.unwrap();
        daemon.publish(|project| {
            project.deployments.push(deployment(7, vec![line(1, ProgressKind::Step, "starting web")]));
        });
        to.send(accepted(Some(7), "deploy 7 of r4")).unwrap();
        daemon.publish(|project| project.deployments[0].progress.push(done.clone()));
        request
    };
    let (ran, request) = tokio::join!(bulsa(&["deploy"], dir.path(), &socket), driver);
    assert_eq!(ran.code(), 3);
    assert_eq!(ran.out, "");
    assert_eq!(ran.err, "deploy 7 of r4\nstarting web\ndeploy 7 rolled back: web answers 500\n");
    let Request::Deploy(request) = request else { panic!("{request:?}") };
    assert_eq!((request.project.as_str(), request.up, request.plan), ("shop", false, false));
    let sources: Vec<_> =
        request.sources.iter().map(|source| (&source.path, source.sha256.is_some())).collect();
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    assert_eq!(sources, [(&path("compose.yaml"), true), (&path(".env"), false)]);

    // Everyone may wait for it, also by number, and hears the same.
    let ran = bulsa(&["--json", "wait", "7"], dir.path(), &socket).await;
    assert_eq!(ran.code(), 3);
    let last: serde_json::Value = serde_json::from_str(ran.out.lines().last().unwrap()).unwrap();
    assert_eq!((&last["outcome"], &last["exit_code"]), (&"rolled_back".into(), &3.into()));
    assert_eq!(bulsa(&["wait"], dir.path(), &socket).await.code(), 3);
}

#[tokio::test]
async fn a_second_deploy_is_denied_with_exit_4_and_says_which_one_runs() {
    let dir = project_dir();
    let mut daemon = Daemon::start().await;
    let socket = daemon.dir.path().join("api.sock");
    let denied = Answer::Denied {
        reason: "another deploy of `shop` is running".to_owned(),
        who: Some("deploy 6".to_owned()),
        since_ms: Some(NOW_MS),
    };
    let (ran, _) = tokio::join!(bulsa(&["deploy"], dir.path(), &socket), answer_next(&mut daemon, denied));
    assert_eq!(ran.code(), 4);
    assert!(ran.error().causes[0].starts_with("deploy 6 is running, since 2026-01-01"), "{:?}", ran.error());
}

#[tokio::test]
async fn a_refusal_and_nothing_to_do_have_their_exit_codes() {
    let dir = project_dir();
    let mut daemon = Daemon::start().await;
    let socket = daemon.dir.path().join("api.sock");
    let refused = Answer::Refused { errors: vec!["port 8080 is taken".to_owned(), "so is 8081".to_owned()] };
    let (ran, _) = tokio::join!(bulsa(&["deploy"], dir.path(), &socket), answer_next(&mut daemon, refused));
    assert_eq!((ran.code(), ran.error().causes.as_slice()), (1, ["so is 8081".to_owned()].as_slice()));
    let same = Answer::AlreadySo { text: "`shop` runs exactly this as r3".to_owned(), notes: Vec::new() };
    let (ran, _) = tokio::join!(bulsa(&["deploy"], dir.path(), &socket), answer_next(&mut daemon, same));
    assert_eq!((ran.code(), ran.err.as_str()), (0, "`shop` runs exactly this as r3\n"));
    let plan = Answer::Plan(Plan { project: "shop".to_owned(), release: 1, ..Plan::default() });
    let (ran, request) = tokio::join!(
        bulsa(&["deploy", "--plan", "--json"], dir.path(), &socket),
        answer_next(&mut daemon, plan)
    );
    assert!(matches!(request, Request::Deploy(deploy) if deploy.plan));
    assert_eq!(serde_json::from_str::<serde_json::Value>(&ran.out).unwrap()["release"], 1);
}

#[tokio::test]
async fn logs_show_whose_line_it_is() {
    let dir = project_dir();
    let daemon = Daemon::start().await;
    let socket = daemon.dir.path().join("api.sock");
    let log = dir.path().join("1.log");
    fs::write(&log, "hello\n").unwrap();
    daemon.publish(|project| {
        let logged = ReplicaView { log: Some(log.to_str().unwrap().to_owned()), ..replica(1, 1, "ready") };
        project.services = vec![service("web", ServiceState::Healthy, 1, vec![logged])];
    });
    let ran = bulsa(&["logs", "web"], dir.path(), &socket).await;
    assert_eq!((ran.code(), ran.out.as_str()), (0, "web-r1-1.1 | hello\n"));
}

#[test]
fn completions_and_the_manual_are_made_from_the_commands() {
    let (mut printer, out, _) = captured::printer(Manner::default());
    man::run(Cli::command(), &mut printer).unwrap();
    assert!(out.text().contains("bulsa\\-rollback") || out.text().contains("rollback"), "{}", out.text());
    let (mut printer, out, _) = captured::printer(Manner::default());
    let args = match Cli::try_parse_from(["bulsa", "completions", "bash"]).unwrap().command {
        Command::Completions(args) => args,
        other => panic!("{other:?}"),
    };
    completions::run(&args, &mut Cli::command(), &mut printer).unwrap();
    assert!(out.text().contains("_bulsa()"));
}

#[test]
fn files_may_stand_before_and_behind_the_command_and_logs_keeps_f_for_follow() {
    let parse = |line: &[&str]| Cli::try_parse_from([&["bulsa"], line].concat()).unwrap();
    let before = parse(&["-f", "a.yaml", "-f", "b.yaml", "up", "-d"]);
    assert_eq!(before.files.files.len(), 2);
    let Command::Logs(_) = parse(&["logs", "-f", "web"]).command else { panic!("logs") };
    let both =
        parse(&["-f", "a.yaml", "-p", "x", "deploy", "--project-name", "shop", "--file", "c.yaml", "web"]);
    assert_eq!(both.global.project.as_deref(), Some("shop"));
}

#[test]
fn a_wrong_command_line_exits_2_help_0_and_a_panic_70() {
    let entries = Entries {
        serve: |options| {
            assert_eq!(
                (options.state_dir.as_path(), options.socket.as_path()),
                (Path::new("/x"), Path::new("/x/s"))
            );
            Ok(ExitCode::Degraded)
        },
        keeper: |options| {
            assert_eq!(
                options,
                &ServeOptions {
                    state_dir: "/y".into(),
                    socket: "/y/s".into(),
                    background: false,
                    init: None
                }
            );
            Ok(ExitCode::Denied)
        },
        agent: |_| Ok(ExitCode::Bug),
        proxy: || panic!("a bug"),
        demo_app: |_| Ok(ExitCode::Bug),
        demo: |args, _| Ok(if args.keep { ExitCode::Done } else { ExitCode::UserError }),
    };
    let code =
        |line: &[&str]| main([&["bulsa"], line].concat().into_iter().map(OsString::from), entries).code();
    assert_eq!(code(&["scale", "web"]), 2);
    assert_eq!(code(&["nonsense"]), 2);
    assert_eq!(code(&["--version"]), 0);
    assert_eq!(code(&["demo", "--keep"]), 0);
    assert_eq!(code(&["--state-dir", "/x", "--socket", "/x/s", "serve"]), 6);
    assert_eq!(code(&["__keeper", "/y", "/y/s"]), 4);
    assert_eq!(code(&["__keeper", "/y"]), 70);
    assert_eq!(code(&["__proxy"]), 70);
}
