//! Programs that ignore PORT, and users other than root.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use crate::world::{World, free_port, has, pid};

fn world() -> Option<World> {
    if !has("python3") {
        return None;
    }
    let mut world = World::new("fixed.yaml");
    world.set("TARGET", free_port().to_string());
    Some(world)
}

#[tokio::test]
async fn a_program_that_ignores_its_port_serves_as_the_only_replica() {
    let Some(world) = world() else { return };
    world.up().await;
    world.run(&["status"]).await.exits(0);
    let mut stream = TcpStream::connect(world.target()).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn two_replicas_of_a_program_that_ignores_its_port_are_one_clear_error() {
    let Some(mut world) = world() else { return };
    world.set("REPLICAS", "2");
    world.set("GATE", "2s");
    let ran = world.run(&["up", "-d"]).await;
    let said = format!("{}{}", ran.out, ran.err);
    assert_eq!(ran.code, Some(7), "{said}");
    for text in [world.target_of("TARGET").port().to_string().as_str(), "PORT", "one replica"] {
        assert!(said.contains(text), "it does not say `{text}`:\n{said}");
    }
}

#[tokio::test]
async fn a_replica_runs_as_the_user_that_the_file_names() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can change users");
        return;
    }
    let world = World::new("user.yaml");
    world.up().await;
    let snapshot = world.well("user").await;
    let replica = &snapshot.projects[0].services[0].replicas[0];
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid(replica.pid.unwrap()))).unwrap();
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
    assert_eq!(uids.split_whitespace().collect::<Vec<_>>(), ["65534"; 4]);
}
