//! What `status` says of services and of files, and what a deploy takes from its command line.

use bulsa_core::wire::api::SourceFile;

use super::*;
use crate::agent::store::{Change, ReleaseRow};

#[tokio::test]
async fn status_exits_6_while_a_service_is_not_as_it_should_be() {
    let dir = project_dir();
    let daemon = Daemon::start().await;
    let socket = daemon.dir.path().join("api.sock");
    daemon.publish(|project| project.services = vec![service("web", ServiceState::Healthy, 2, Vec::new())]);
    assert_eq!(bulsa(&["status"], dir.path(), &socket).await.code(), 0);
    daemon.publish(|project| *project = busy_project());
    let ran = bulsa(&["--json", "status"], dir.path(), &socket).await;
    assert_eq!(ran.code(), 6);
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(json["projects"][0]["services"][1]["state"], "crash_looping");
    assert_eq!(json["projects"][0]["services"][1]["next_retry_at"], "2026-01-01T09:30:04Z");
    let ran = bulsa(&["-p", "shpo", "status"], dir.path(), &socket).await;
    assert_eq!((ran.code(), ran.error().hints[0].as_str()), (1, "did you mean `shop`?"));
}

#[tokio::test]
async fn status_shows_files_that_are_not_as_the_live_release_knows_them() {
    let dir = project_dir();
    let daemon = Daemon::start().await;
    let socket = daemon.dir.path().join("api.sock");
    let file = |name: &str, sha256: Option<&str>| SourceFile {
        path: dir.path().join(name).to_string_lossy().into_owned(),
        text: String::new(),
        sha256: sha256.map(str::to_owned),
    };
    let sources =
        vec![file("compose.yaml", Some("another")), file("secret", Some("hush")), file(".env", None)];
    let row = ReleaseRow {
        project: "shop".to_owned(),
        id: 3,
        sources: serde_json::to_string(&sources).unwrap(),
        ..ReleaseRow::default()
    };
    daemon.store.commit(Change::SaveRelease(row)).await.unwrap();
    daemon.publish(|project| project.live = Some(3));
    let ran = bulsa(&["status"], dir.path(), &socket).await;
    let notes: Vec<&str> = ran.out.lines().filter(|line| line.starts_with("note:")).collect();
    assert_eq!(
        notes,
        [
            "note: shop: `compose.yaml` changed since release 3; `bulsa deploy` makes a release of it",
            "note: shop: `secret` is gone since release 3; what runs was read from it, and runs on",
        ]
    );
    let ran = bulsa(&["--json", "status"], dir.path(), &socket).await;
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(json["projects"][0]["drift"][1]["change"], "gone");

    // A deploy that changes nothing says what the files are now.
    let sources = serde_json::to_string(&[file(".env", None)]).unwrap();
    let change = Change::SetSources { project: "shop".to_owned(), release: 3, sources };
    daemon.store.commit(change).await.unwrap();
    let ran = bulsa(&["--json", "status"], dir.path(), &socket).await;
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(json["projects"][0]["drift"], serde_json::json!([]));
}

#[tokio::test]
async fn an_image_on_the_command_line_reaches_the_daemon_and_not_for_a_process() {
    let dir = project_dir();
    let mut daemon = Daemon::start().await;
    let socket = daemon.dir.path().join("api.sock");
    let ran = bulsa(&["deploy", "web=shop:1.5"], dir.path(), &socket).await;
    assert_eq!(ran.code(), 1);
    assert!(ran.error().message.contains("`web` runs as a process"), "{:?}", ran.error());
    let text = "name: shop\nservices:\n  web: {image: 'localhost:1/shop:1', ports: ['8080:3000']}\n";
    fs::write(dir.path().join("compose.yaml"), text).unwrap();
    let same = Answer::AlreadySo { text: "so".to_owned(), notes: Vec::new() };
    let (ran, request) = tokio::join!(
        bulsa(&["deploy", "--no-pull", "web=localhost:1/shop:1.5"], dir.path(), &socket),
        answer_next(&mut daemon, same)
    );
    assert_eq!(ran.code(), 0);
    let Request::Deploy(request) = request else { panic!("{request:?}") };
    assert_eq!(request.services, ["web"]);
    let spec = bulsa_core::spec::Spec::try_from(request.spec).unwrap();
    assert_eq!(spec.services["web"].container.as_deref().unwrap().image, "localhost:1/shop:1.5");
}
