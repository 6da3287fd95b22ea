//! Start, stop, kill, rename, remove; and what is found meanwhile.

use std::{path::Path, time::Duration};

use bulsa::agent::docker::{LogQuery, State};
use bulsa_core::spec::{
    Role,
    container::{FileGrant, Hook, Mount, MountSource},
};
use futures_util::StreamExt as _;

use crate::world::{PATIENCE, SERVER, World, exists};

#[tokio::test]
async fn a_replica_is_started_once_and_stopped_by_its_own_signal() {
    let Some(world) = World::new("life-stop").await else { return };
    let running = world.start(world.container(SERVER)).await.unwrap();
    let id = running.found.id.clone();
    assert!(running.made);
    assert_eq!(running.found.state, State::Running);
    assert_eq!(running.found.name, format!("{}-web-r1-1", world.name));
    assert_eq!(running.found.replica.as_ref().unwrap().to_string(), "web-r1-1.1");
    assert!(running.found.addresses.contains_key(&format!("{}_default", world.name)), "{:?}", running.found);

    let again = world.start(world.container(SERVER)).await.unwrap();
    assert!(!again.made);
    assert_eq!(again.found.id, id);
    assert_eq!(world.docker.list().await.unwrap().len(), 1);

    // The trap is set once it has said that it is ready.
    let mut lines = std::pin::pin!(world.docker.logs(&id, LogQuery { follow: true, ..LogQuery::default() }));
    assert_eq!(lines.next().await.unwrap().unwrap().text, "ready");
    world.docker.stop(&id, PATIENCE, &[]).await.unwrap();
    let found = world.docker.inspect(&id).await.unwrap().unwrap();
    assert_eq!((found.state, found.exit_code, found.oom_killed), (State::Exited, 7, false));
    assert!(lines.next().await.is_none(), "following ends with the container");
    world.docker.stop(&id, PATIENCE, &[]).await.unwrap();
    world.docker.kill(&id).await.unwrap();

    // What has ended isn't started a second time: a job would run twice.
    let ended = world.start(world.container(SERVER)).await.unwrap();
    assert_eq!((ended.made, ended.found.state), (false, State::Exited));
    world.docker.remove(&id, true).await.unwrap();
    world.docker.remove(&id, true).await.unwrap();
    assert!(world.docker.inspect(&id).await.unwrap().is_none());
    assert!(world.docker.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn grace_ends_with_sigkill_and_kill_needs_none() {
    let Some(world) = World::new("life-kill").await else { return };
    let deaf = "trap '' TERM; while :; do sleep 0.05; done";
    let first = world.start(world.container(deaf)).await.unwrap().found.id;
    let second = world.start_as(Role::App, "web", 2, world.container(deaf)).await.unwrap().found;
    assert_eq!(second.name, format!("{}-web-r1-1.2", world.name), "the place's name is taken");
    world.docker.stop(&first, Duration::from_millis(100), &[]).await.unwrap();
    world.docker.kill(&second.id).await.unwrap();
    for id in [first, second.id] {
        assert_eq!(world.ended(&id).await.exit_code, 137);
    }
}

#[tokio::test]
async fn hooks_run_after_the_start_and_before_the_stop() {
    let Some(world) = World::new("life-hooks").await else { return };
    let hook = |script: &str| Hook {
        command: ["sh", "-c", script].map(str::to_owned).to_vec(),
        environment: [("WHO".to_owned(), "hook".to_owned())].into(),
        ..Hook::default()
    };
    let mut container = world.container(SERVER);
    container.post_start = vec![hook("echo $WHO > /tmp/started")];
    let id = world.start(container.clone()).await.unwrap().found.id;
    let seen = world.docker.exec(&id, &["cat".into(), "/tmp/started".into()], PATIENCE).await;
    assert!(format!("{seen:?}").contains("hook"), "{seen:?}");
    let stop = hook("echo bye > /proc/1/fd/1; exit 1");
    world.docker.stop(&id, PATIENCE, &[stop]).await.unwrap();
    let words = world.docker.last_words(&id, 5).await.unwrap();
    assert!(words.iter().any(|line| line.text == "bye"), "{words:?}");

    container.post_start = vec![hook("echo no; exit 3")];
    let problem = world.start_as(Role::App, "web", 2, container).await.unwrap_err();
    assert!(problem.message.contains("ended with 3: no"), "{problem}");
    assert_eq!(world.docker.list().await.unwrap().len(), 1, "the one whose hook failed is gone");
}

#[tokio::test]
async fn nothing_of_the_systems_paths_is_hidden_where_the_file_says_so() {
    let Some(world) = World::new("life-paths").await else { return };
    let mut container = world.container(SERVER);
    let confined = world.start(container.clone()).await.unwrap().found.id;
    container.isolation.unconfined_paths = true;
    let free = world.start_as(Role::App, "web", 2, container).await.unwrap().found.id;
    for (id, is_confined) in [(confined, true), (free, false)] {
        let found = world.raw.inspect_container(&id, None).await.unwrap().host_config.unwrap();
        for paths in [found.masked_paths, found.readonly_paths] {
            assert_eq!(paths.is_some_and(|paths| !paths.is_empty()), is_confined);
        }
    }
}

#[tokio::test]
async fn both_sides_of_the_output_come_apart() {
    let Some(world) = World::new("life-logs").await else { return };
    let script = "echo $GREETING $BULSA_REPLICA; echo bad >&2; printf end";
    let id = world.start(world.container(script)).await.unwrap().found.id;
    world.ended(&id).await;
    let mut lines: Vec<_> = world
        .docker
        .logs(&id, LogQuery::default())
        .map(|line| line.unwrap())
        .map(|line| (line.is_stderr, line.text, line.at_ns.is_some()))
        .collect()
        .await;
    lines.sort();
    let expected = [(false, "end"), (false, "hello web-r1-1"), (true, "bad")];
    assert_eq!(lines, expected.map(|(side, text)| (side, text.to_owned(), true)));

    let mut terminal = world.container("echo one; echo two >&2");
    terminal.tty = true;
    let id = world.start_as(Role::App, "web", 2, terminal).await.unwrap().found.id;
    world.ended(&id).await;
    let words = world.docker.last_words(&id, 10).await.unwrap();
    let texts: Vec<_> = words.iter().map(|line| line.text.as_str()).collect();
    assert_eq!(texts, ["one", "two"]);
    assert_eq!(world.docker.last_words(&id, 1).await.unwrap().len(), 1);
    assert!(world.docker.last_words("bulsa-test-no-such", 1).await.is_err());
}

#[tokio::test]
async fn secrets_are_there_with_their_rights_before_it_starts() {
    let Some(world) = World::new("life-secrets").await else { return };
    let file = |target: &str, uid: Option<&str>, mode| FileGrant {
        name: "key".to_owned(),
        target: target.to_owned(),
        content: b"s3cret".to_vec(),
        uid: uid.map(str::to_owned),
        gid: None,
        mode,
    };
    let script = "cat /run/secrets/key; stat -c ' %a:%u' /run/secrets/key";
    let read = async |attempt, change: &dyn Fn(&mut bulsa_core::spec::container::Container)| {
        let mut container = world.container(script);
        container.files = vec![file("/run/secrets/key", Some("33"), Some(0o400))];
        change(&mut container);
        let id = world.start_as(Role::App, "web", attempt, container).await.unwrap().found.id;
        world.ended(&id).await;
        let words = world.docker.last_words(&id, 5).await.unwrap();
        words.into_iter().map(|line| line.text).collect::<Vec<_>>().join("|")
    };
    assert_eq!(read(1, &|_| {}).await, "s3cret 400:33");
    assert_eq!(read(2, &|container| container.isolation.read_only = true).await, "s3cret 400:33");
    let under_tmpfs = |container: &mut bulsa_core::spec::container::Container| {
        container.tmpfs.insert("/run".to_owned(), String::new());
    };
    assert_eq!(read(3, &under_tmpfs).await, "s3cret 400:33");
}

#[tokio::test]
async fn a_bind_makes_its_directory_and_a_removed_replica_takes_its_volumes() {
    let Some(world) = World::new("life-mounts").await else { return };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("made/here");
    let mut container = world.container("touch /in/file /anonymous/file");
    container.mounts = vec![
        Mount {
            target: "/in".to_owned(),
            source: MountSource::Bind {
                path: path.to_string_lossy().into_owned(),
                create: true,
                propagation: None,
                selinux: None,
                recursive: None,
            },
            read_only: false,
            consistency: None,
        },
        Mount {
            target: "/anonymous".to_owned(),
            source: MountSource::Volume {
                name: None,
                no_copy: false,
                subpath: None,
                labels: [("bulsa.test".to_owned(), world.name.clone())].into(),
            },
            read_only: false,
            consistency: None,
        },
    ];
    let id = world.start(container).await.unwrap().found.id;
    assert_eq!(world.ended(&id).await.exit_code, 0);
    assert!(exists(Path::new(&path.join("file"))));
    world.docker.remove(&id, true).await.unwrap();
    let left = world.raw.list_volumes(None::<bollard::query_parameters::ListVolumesOptions>).await.unwrap();
    let is_ours = |volume: &bollard::models::Volume| volume.labels.get("bulsa.test") == Some(&world.name);
    assert!(!left.volumes.unwrap_or_default().iter().any(is_ours));
}

#[tokio::test]
async fn compose_shows_our_replicas_as_its_services() {
    let Some(world) = World::new("life-compose").await else { return };
    let id = world.start(world.container(SERVER)).await.unwrap().found.id;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("compose.yaml");
    std::fs::write(&file, format!("version: '3'\nservices:\n  web:\n    image: {}\n", world.image()))
        .unwrap();
    let compose = async |arguments: &[&str]| {
        let mut command = tokio::process::Command::new("docker-compose");
        command.arg("-p").arg(&world.name).arg("-f").arg(&file).args(arguments);
        let output = tokio::time::timeout(PATIENCE, command.output()).await.unwrap();
        output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let Ok(ids) = compose(&["ps", "-q"]).await else {
        eprintln!("skipped: there is no docker-compose here");
        return;
    };
    assert_eq!(ids.trim(), id);
    assert_eq!(compose(&["exec", "-T", "web", "echo", "inside"]).await.unwrap().trim(), "inside");
}
