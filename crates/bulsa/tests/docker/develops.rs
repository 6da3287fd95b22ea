//! `bulsa up --watch`: what `develop.watch` says follows when files change.

use std::{fs, os::unix::fs::symlink};

use bulsa::agent::watchers::FILL_MAX;

use crate::{
    shop::on_both_engines,
    support::{
        engine::Engine,
        images,
        load::{answers, answers_of, on_app, perfect},
        own_engine::kill_now,
        project::Project,
        until,
    },
};

const COMPOSE: &str = r#"
services:
  web:
    build: .
    ports: ["127.0.0.1:${PORT}:3000"]
    healthcheck:
      test: ["CMD", "curl", "-f", "http://localhost:3000/health"]
      interval: 1s
    stop_grace_period: 3s
    develop:
      watch: [{ action: rebuild, path: ., ignore: [side/, "*.md"] }]
    x-bulsa:
      bake: { time: 1s }
      drain: { requests: 5s, stagger: 1s }
  side:
    command: [sh, -c, "while :; do sleep 0.1; done"]
    develop:
      watch: [{ action: restart, path: ./side }]
    x-bulsa: { bake: { time: 0s } }
"#;

/// Changes the source.
fn source(project: &Project<'_>, app: &str, version: &str) {
    project.write("source.txt", &format!("{version} of {}", project.name()));
    let label = format!("LABEL bulsa-test={}", project.name());
    let text = format!("FROM {app}\n{label}\nCOPY source.txt /source.txt\nENV DEMO_VERSION={version}\n");
    project.write("Dockerfile", &text);
}

async fn changed_files_rebuild_one_service_and_restart_another(engine: &Engine) {
    let app = images::app().load(engine);
    let mut project = Project::new(engine, COMPOSE);
    fs::create_dir(project.directory().join("side")).unwrap();
    source(&project, &app, "v1");
    project.serve().await;
    let watching = project.start(&["up", "--watch"]);
    let before = project.well().await;
    let load = on_app(engine, project.port(), 0).await;
    answers_of(&load, "v1");
    let mark = load.mark();
    project.write("notes.md", "it is ignored");
    source(&project, &app, "v2");
    answers_of(&load, "v2");

    let side = |project: &bulsa_core::wire::api::ProjectView| {
        let side = project.service("side")?;
        let pid = side.replicas.iter().find(|replica| replica.state == "ready")?.pid?;
        (side.ready == side.desired).then_some(pid)
    };
    let deployed = project.well().await;
    let first = side(&deployed).or(side(&before)).unwrap();
    project.write("side/settings", "new");
    project.until("another side", |view, _| side(view).filter(|pid| *pid != first)).await;
    answers(&load, 50);
    perfect(&load.window(mark, load.mark()));
    let ran = watching.interrupt();
    ran.exits(0).says(&["built and deployed `web` after", "replaced `side` after side/settings changed"]);
}
on_both_engines!(changed_files_rebuild_one_service_and_restart_another);

/// A worker of two replicas, with a file in its image that the watch deletes.
const COPIES: &str = r#"
services:
  web:
    build: .
    scale: 2
    command: [sh, -c, "cp /srv/conf/x.conf /at-start; while :; do sleep 0.1; done"]
    stop_grace_period: 1s
    develop:
      watch:
        - { action: sync, path: ./src, target: /srv/src, ignore: ["*.md"] }
        - { action: sync, path: ./all, target: /srv/all, initial_sync: true }
        - action: sync+exec
          path: ./conf
          target: /srv/conf
          exec: { command: [sh, -c, "cp /srv/conf/x.conf $$PLACE"], environment: { PLACE: /ran } }
    x-bulsa: { role: worker }
"#;

/// What a command writes in each running container of a service.
fn each(project: &Project<'_>, service: &str, script: &str) -> Vec<String> {
    let run = |id: &String| project.engine.try_docker(&["exec", id, "/bin/sh", "-c", script]).ok();
    project.containers(service).iter().filter_map(run).collect()
}

/// Waits until the command writes this in as many running containers of a service.
#[track_caller]
fn becomes(project: &Project<'_>, service: &str, script: &str, expected: &str, count: usize) {
    let said = std::cell::RefCell::new(Vec::new());
    until(&format!("`{script}` says {expected:?} in {count} of {service}"), || {
        said.replace(each(project, service, script));
        let said = said.borrow();
        (said.len() == count && said.iter().all(|text| text == expected)).then_some(())
    });
}

/// Ends one of two containers of `web`, and waits for the one that comes.
fn replaced(project: &Project<'_>, which: usize) {
    let victim = project.containers("web").remove(which);
    kill_now(project.engine.inspect(&victim, "{{.State.Pid}}").parse().unwrap());
    until("another container", || {
        let all = project.containers("web");
        let is_up = |id: &String| project.engine.try_docker(&["exec", id, "true"]).is_ok();
        (!all.contains(&victim) && all.len() == 2 && all.iter().all(is_up)).then_some(())
    });
}

async fn changed_files_are_copied_into_running_replicas_and_those_that_replace_them(engine: &Engine) {
    let image = images::busybox().load(engine);
    let mut project = Project::new(engine, COPIES);
    let directory = project.directory();
    let label = format!("LABEL bulsa-test={}", project.name());
    for name in ["src", "all", "conf"] {
        fs::create_dir(directory.join(name)).unwrap();
    }
    project.write(
        "Dockerfile",
        &format!("FROM {image}\n{label}\nCOPY --chown=999:999 src /srv/src\nCOPY conf /srv/conf\n"),
    );
    project.write(".dockerignore", "**/*.log\n");
    project.write("src/a.txt", "1");
    project.write("src/old.txt", "old");
    project.write("conf/x.conf", "v1");
    project.serve().await;
    project.write("all/seen.txt", "from the beginning");
    symlink("seen.txt", directory.join("all/link")).unwrap();
    let watching = project.start(&["up", "--watch"]);
    project.well().await;
    becomes(
        &project,
        "web",
        "cat /srv/all/link; readlink /srv/all/link || ls -l /srv/all/link | sed 's/.* //'",
        "from the beginningseen.txt",
        2,
    );

    // A file, a mode, a directory with something in it and one without, and what doesn't count.
    project.write("src/a.log", "not copied");
    project.write("src/a.md", "not copied");
    project.write("src/a.txt", "2");
    let script = directory.join("src/run");
    fs::write(&script, "#!/bin/sh\necho it runs\n").unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    fs::create_dir_all(directory.join("src/sub/deep")).unwrap();
    project.write("src/sub/b.txt", "b");
    becomes(&project, "web", "cat /srv/src/a.txt", "2", 2);
    becomes(
        &project,
        "web",
        "/srv/src/run && cat /srv/src/sub/b.txt && test -d /srv/src/sub/deep",
        "it runs\nb",
        2,
    );
    // Whose the target is, the files are.
    becomes(&project, "web", "ls -ln /srv/src/a.txt | sed 's/^[^ ]* *1 *\\([0-9]*\\) .*/\\1/'", "999", 2);
    // What is gone, of the image and of what was copied.
    fs::remove_dir_all(directory.join("src/sub")).unwrap();
    fs::remove_file(directory.join("src/old.txt")).unwrap();
    becomes(&project, "web", "ls /srv/src", "a.txt\nrun", 2);
    // A command after the copy.
    project.write("conf/x.conf", "v2");
    becomes(&project, "web", "cat /ran", "v2", 2);

    // One dies, and the one that comes has it all before it starts.
    replaced(&project, 0);
    becomes(&project, "web", "cat /srv/conf/x.conf /srv/src/a.txt /srv/all/link", "v22from the beginning", 2);
    becomes(&project, "web", "ls /srv/src", "a.txt\nrun", 2);
    let mut at_start = each(&project, "web", "cat /at-start");
    at_start.sort();
    assert_eq!(at_start, ["v1", "v2"]);

    // The agent dies, and what changes meanwhile or later is copied.
    let agent = project.until("the agent", |_, snapshot| Some(snapshot.agent.pid)).await;
    kill_now(agent.try_into().unwrap());
    project.write("src/a.txt", "3");
    becomes(&project, "web", "cat /srv/src/a.txt", "3", 2);
    project.until("another agent", |_, snapshot| (snapshot.agent.pid != agent).then_some(())).await;
    replaced(&project, 1);
    becomes(&project, "web", "cat /srv/src/a.txt", "3", 2);
    watching.interrupt().exits(0).says(&[
        "copied 2 files into 2 replicas of `web`\n",
        "copied 1 file into 2 replicas of `web` after conf/x.conf changed",
        "into a new replica of `web`",
        "ran `sh -c cp /srv/conf/x.conf $PLACE` in 2 replicas of `web` after conf/x.conf changed",
    ]);
    // Nobody waits for a watch that is over.
    let begun = std::time::Instant::now();
    replaced(&project, 0);
    assert!(begun.elapsed() < FILL_MAX, "{:?}", begun.elapsed());
}
on_both_engines!(changed_files_are_copied_into_running_replicas_and_those_that_replace_them);

/// An app, a backing service and a worker without an `rm` that can be found.
const RESTARTS: &str = r#"
x-program: &program
  image: ${APP}
  command: [/bin/sh, -c, "/bin/cp /srv/conf/x.conf /at-start; while :; do /bin/sleep 0.1; done"]
  stop_grace_period: 1s
services:
  work:
    <<: *program
    develop: { watch: [{ action: sync+restart, path: ./conf, target: /srv/conf }] }
  back:
    <<: *program
    develop: { watch: [{ action: sync+restart, path: ./conf/x.conf, target: /srv/conf/x.conf }] }
    x-bulsa: { role: shared }
  bare:
    <<: *program
    environment: { PATH: /nowhere }
    develop:
      watch:
        - { action: sync, path: ./bare, target: /srv/bare }
        - { action: sync+exec, path: ./conf, target: /srv/conf, exec: { command: /bin/false } }
"#;

async fn a_restart_after_a_copy_begins_with_the_files(engine: &Engine) {
    let mut project = Project::new(engine, RESTARTS);
    project.set("APP", images::busybox().load(engine));
    for name in ["conf", "bare"] {
        fs::create_dir(project.directory().join(name)).unwrap();
    }
    project.write("conf/x.conf", "v0");
    project.write("bare/here", "1");
    project.serve().await;
    let watching = project.start(&["up", "--watch"]);
    project.well().await;
    let before = [project.untouched("work").0, project.untouched("back").1];
    project.write("conf/x.conf", "v1");
    for service in ["work", "back"] {
        becomes(&project, service, "cat /at-start", "v1", 1);
    }
    until("the one before is gone", || (project.containers("work").len() == 1).then_some(()));
    let after = [project.untouched("work").0, project.untouched("back").1];
    assert!(before.iter().zip(&after).all(|(before, after)| before != after), "{before:?} {after:?}");
    becomes(&project, "bare", "/bin/cat /srv/conf/x.conf", "v1", 1);

    fs::remove_file(project.directory().join("bare/here")).unwrap();
    project.write("bare/there", "2");
    becomes(&project, "bare", "/bin/cat /srv/bare/there", "2", 1);
    // It is told before the next change is looked at.
    project.write("bare/there", "3");
    becomes(&project, "bare", "/bin/cat /srv/bare/there", "3", 1);
    watching.interrupt().exits(0).says(&[
        "copied 1 file into 1 replica of `work` after conf/x.conf changed",
        "replaced `work` after conf/x.conf changed",
        "replaced `back` after conf/x.conf changed",
        "`/bin/false` failed in `bare` after conf/x.conf changed: it ended with 1",
        "/srv/bare/here can't be deleted in a replica of `bare`, and stays there",
    ]);
}
on_both_engines!(a_restart_after_a_copy_begins_with_the_files);
