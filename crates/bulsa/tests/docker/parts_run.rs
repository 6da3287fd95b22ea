//! The parts themselves: an image that doesn't run, or an Engine that leaves something behind, would make every other
//! test lie.

use std::{path::Path, time::Instant};

use crate::support::{
    compose::Compose,
    engine::{Engine, Generation},
    images::{self, Image},
    load::{Caller, at, on_app, perfect},
    network::{free_port, get},
    own_engine::ended,
    project::Project,
    until,
};

/// Runs a command in a new container of the image; gives what it said.
fn ran(engine: &Engine, image: Option<Image>, words: &[&str]) -> Option<String> {
    let name = image?.load(engine);
    let ran = engine.run(&[&["run", "--rm", &name], words].concat()).exits(0);
    Some(ran.said())
}

#[test]
fn every_image_has_a_program_that_runs() {
    let Some(engine) = Engine::of(Generation::Installed) else { return };
    let of = |image, words: &[&str]| {
        let begun = Instant::now();
        let said = ran(&engine, image, words);
        eprintln!("{words:?}: {:?} in {:?}", said.as_deref().map(str::trim), begun.elapsed());
        said
    };
    let is = |said: Option<String>, text: &str| {
        assert!(said.as_deref().is_none_or(|said| said.contains(text)), "{said:?}");
    };
    is(of(Some(images::app()), &["bulsa", "--version"]), "bulsa");
    is(of(Some(images::busybox()), &["sh", "-c", "echo hello"]), "hello");
    is(of(images::redis(), &["redis-server", "--version"]), "Redis server");
    let express = "console.log(typeof require('express')(), typeof require('redis').createClient, typeof require('ws'))";
    is(of(images::node(), &["node", "-e", express]), "function function function");
    is(
        of(
            images::python(),
            &["python3", "-c", "import http.server, ssl, psycopg; print(psycopg.__version__)"],
        ),
        "3.",
    );
    is(of(images::postgres(), &["postgres", "--version"]), "PostgreSQL");
    let java = "echo 'class Main { public static void main(String[] a) { System.out.println(6 * 7); } }' >/tmp/Main.java
        exec java /tmp/Main.java";
    is(of(images::java(), &["sh", "-c", java]), "42");
    is(of(images::nginx(), &["nginx", "-t"]), "successful");
}

#[test]
fn postgres_makes_its_database_and_keeps_it_in_its_volume() {
    let Some(engine) = Engine::of(Generation::Installed) else { return };
    let Some(image) = images::postgres() else { return };
    let compose = "services:\n  db:\n    image: ${IMAGE}\n    environment: { POSTGRES_PASSWORD: a, POSTGRES_DB: shop }\n\
        \x20   volumes: [data:/var/lib/postgresql/data]\nvolumes: { data: {} }\n";
    let mut project = Project::new(&engine, compose);
    project.set("IMAGE", image.load(&engine));
    let Some(compose) = Compose::first() else { return };
    compose.run(&project, &["up", "-d"]).exits(0);
    let query = |query: &str| {
        let words =
            ["exec", "-T", "db", "psql", "-U", "postgres", "-h", "127.0.0.1", "-tA", "-c", query, "shop"];
        compose.run(&project, &[&words[..2], &["-e", "PGPASSWORD=a"], &words[2..]].concat())
    };
    until("the database answers", || (query("select 1").code == Some(0)).then_some(()));
    query("create table t as select 7 as n").exits(0);
    compose.run(&project, &["restart", "--timeout", "5", "db"]).exits(0);
    until("the database answers again", || (query("select n from t").out.trim() == "7").then_some(()));
}

#[tokio::test]
async fn an_engine_of_ones_own_runs_apps_and_leaves_nothing_behind() {
    for generation in [Generation::Installed, Generation::Next] {
        let Some(engine) = Engine::own(generation, true) else { continue };
        let app = images::app().load(&engine);
        engine.docker(&["network", "create", "inside"]);
        let port = free_port();
        let published = format!("127.0.0.1:{port}:3000");
        let words = ["run", "-d", "--name", "api", "--network", "inside", "-p", &published, &app];
        let id = engine.docker(&words);
        // Docker's own proxy takes connections before anything listens behind it.
        until("the app answers", || {
            let answer = get(engine.namespace(), at(port), "/").ok()?;
            answer.starts_with("HTTP/1.1 200").then_some(())
        });
        let load = on_app(&engine, port, 2).await;
        let caller = Caller::start(&engine, &app, "inside", "api:3000");
        caller.answers(100);
        caller.perfect();
        drop(caller);
        perfect(&load.stop().await);
        let pid: i32 = engine.inspect(&id, "{{.State.Pid}}").parse().unwrap();
        let namespace = engine.namespace().unwrap();

        // With live-restore its containers outlive the daemon, whether it is asked to end or killed.
        engine.daemon().end();
        engine.daemon().begin();
        engine.daemon().kill();
        engine.daemon().begin();
        assert_eq!(engine.inspect(&id, "{{.State.Pid}}").parse(), Ok(pid), "it is the same process");

        let host = engine.docker(&["info", "--format", "{{.DockerRootDir}}"]);
        drop(engine);
        ended(pid);
        assert!(!namespace.exists(), "its network namespace is still there");
        assert!(!Path::new(&host).exists(), "its files are still there");
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains(&host), "something is still mounted:\n{mounts}");
    }
}
