//! What people do wrong: one clear sentence, a hint, and nothing was started.

use std::{fs, net::TcpListener, process::Stdio};

use crate::world::{World, is_closed};

#[tokio::test]
async fn five_mistakes_in_a_file_are_all_named_with_their_places_and_nothing_is_started() {
    let world = World::new("mistakes.yaml");
    for command in [&["up", "-d"][..], &["config"]] {
        let ran = world.run(command).await.exits(1);
        ran.complains(&[
            "mistakes.yaml:5:13",
            "99999",
            "mistakes.yaml:6:14",
            "sometimes",
            "mistakes.yaml:7:5",
            "replica",
            "mistakes.yaml:8:19",
            "databse",
            "did you mean `database`?",
            "mistakes.yaml:9:",
            "soon",
        ]);
        assert!(!world.state_dir().exists(), "a daemon was started");
    }
}

#[tokio::test]
async fn mistakes_in_a_file_leave_a_running_project_alone() {
    let world = World::web(&[]).await;
    let before = world.well("web").await;
    let mistakes = crate::world::fixture("mistakes.yaml");
    let ran = world.run(&["deploy", "-f", mistakes.to_str().unwrap()]).await.exits(1);
    ran.complains(&["mistakes.yaml:5:13"]);
    assert_eq!(world.snapshot().await.projects, before.projects);
}

#[tokio::test]
async fn a_port_in_use_names_who_has_it() {
    let world = World::new("web.yaml");
    let taken = TcpListener::bind(world.target()).unwrap();
    let ran = world.run(&["up", "-d"]).await.exits(1);
    let me = format!("process {}", std::process::id());
    let port = world.target().port().to_string();
    ran.complains(&[&port, "is in use by", &me, "publish another port"]);
    world.run(&["status"]).await.exits(5);
    drop(taken);
    world.up().await;
    world.well("web").await;
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named_with_its_place_before_anything_is_started() {
    let mut world = World::new("web.yaml");
    world.set("BULSA", "no-such-program");
    let ran = world.run(&["up", "-d"]).await.exits(1);
    ran.complains(&["web.yaml:5:3", "`no-such-program` is nowhere in PATH", "install it"]);
    assert!(is_closed(world.target()));
    world.set("BULSA", "./no-such-file");
    world.run(&["up", "-d"]).await.exits(1).complains(&["./no-such-file", "can't be found"]);
}

#[tokio::test]
async fn a_state_directory_that_cannot_be_used_is_one_sentence_and_a_way_out() {
    let world = World::new("web.yaml");
    // A file in its place stops root as well as anybody else.
    fs::write(world.state_dir(), "").unwrap();
    for command in [&["up", "-d"][..], &["serve"]] {
        let ran = world.run(command).await.exits(1);
        ran.complains(&["state", "--state-dir"]);
    }
    assert_eq!(fs::read(world.state_dir()).unwrap(), b"");
}

#[tokio::test]
async fn a_state_directory_that_a_user_may_not_write_is_one_sentence_and_a_way_out() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can be somebody else");
        return;
    }
    let world = World::new("web.yaml");
    let mut command = world.command(&["serve"]);
    command.uid(65534).gid(65534).current_dir("/").stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(child) = command.spawn() else {
        eprintln!("skipped: the program is in a directory that is closed to others");
        return;
    };
    let output = child.wait_with_output().await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for text in ["the state directory", "Permission denied", "--state-dir"] {
        assert!(said.contains(text), "it does not say `{text}`:\n{said}");
    }
}

#[tokio::test]
async fn a_second_daemon_on_one_directory_is_told_of_the_first() {
    let mut world = World::new("web.yaml");
    world.serve().await;
    let keeper = world.snapshot().await.keeper_pid;
    let ran = world.run(&["serve"]).await.exits(1);
    ran.complains(&["a daemon is already running", &format!("process {keeper}"), "hint", "--state-dir"]);
    assert_eq!(world.snapshot().await.keeper_pid, keeper);
}

#[tokio::test]
async fn without_a_daemon_commands_exit_5_and_say_how_to_start_one() {
    let world = World::new("web.yaml");
    for command in [&["status"][..], &["ps"], &["down"], &["deploy"], &["rollback"], &["logs"], &["events"]] {
        world.run(command).await.exits(5).complains(&["no daemon answers at", "bulsa up"]);
    }
    assert!(!world.state_dir().exists());
}

#[tokio::test]
async fn a_port_that_another_project_publishes_is_refused() {
    let world = World::web(&[]).await;
    let ran = world.run(&["-p", "other", "up", "-d"]).await.exits(1);
    ran.complains(&["web/web", "use another port"]);
    let snapshot = world.snapshot().await;
    assert_eq!(snapshot.projects.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["web"]);
}
