//! `deploy.resources.limits` of processes: held by the kernel's control groups, where a group can be made.

use std::{
    fs,
    path::{Path, PathBuf},
};

use bulsa_core::wire::api::{Snapshot, Why};
use rustix::process::Signal;

use tokio::time::{Instant, sleep};

use crate::world::{LIMIT, LOOK_EVERY, World, ended, has, kill, pid};

const MEMORY: &str = "67108864";

/// The directories of a process's control group that hold it to something: those of ours.
fn groups(of: i32) -> Vec<PathBuf> {
    let own = fs::read_to_string(format!("/proc/{of}/cgroup")).unwrap_or_default();
    let mut found = Vec::new();
    for line in own.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next().unwrap(), parts.next().unwrap());
        let path = path.trim_start_matches('/');
        if !path.rsplit('/').next().is_some_and(|name| name.starts_with("bls-")) {
            continue;
        }
        let tops = ["/sys/fs/cgroup".to_owned(), format!("/sys/fs/cgroup/{controllers}")];
        found.extend(tops.map(|top| PathBuf::from(top).join(path)).into_iter().filter(|path| path.is_dir()));
    }
    found
}

/// The group of another replica of the same daemon: what a name ends with follows from the replica.
fn left_over(group: &Path) -> PathBuf {
    let name = group.file_name().unwrap().to_str().unwrap();
    let (owner, last) = name.split_at(name.len() - 1);
    group.with_file_name(format!("{owner}{}", if last == "a" { "b" } else { "a" }))
}

/// What a file of these groups holds, in whichever of the two versions' words.
fn setting(groups: &[PathBuf], files: [&str; 2]) -> Option<String> {
    let mut paths = groups.iter().flat_map(|group| files.map(|file| group.join(file)));
    paths.find_map(|path| Some(fs::read_to_string(path).ok()?.trim().to_owned()))
}

fn pid_of(snapshot: &Snapshot, service: &str) -> Option<i32> {
    let services = &snapshot.projects.first()?.services;
    let replica = services.iter().find(|one| one.name == service)?.replicas.first()?;
    (replica.state == "ready").then_some(pid(replica.pid?))
}

async fn running(world: &World, service: &str) -> i32 {
    world.until("a replica", |snapshot| pid_of(snapshot, service)).await
}

/// Whether groups can be made; says that something is skipped where they can't.
fn has_groups() -> bool {
    let hierarchies = [
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory"),
        ("/sys/fs/cgroup/cgroup.controllers", "/sys/fs/cgroup"),
    ];
    let top = hierarchies.into_iter().find(|(file, _)| fs::exists(file).unwrap_or(false)).map(|(_, top)| top);
    let can = top.is_some_and(|top| {
        let tried = PathBuf::from(top).join(format!("bulsa-test-{}", std::process::id()));
        fs::create_dir(&tried).and_then(|()| fs::remove_dir(&tried)).is_ok()
    });
    if !can {
        eprintln!("skipped: no control groups can be made here");
    }
    can
}

#[tokio::test]
async fn a_process_is_held_to_its_limits_and_one_that_wants_more_memory_is_told_of() {
    if !has("python3") || !has_groups() {
        return;
    }
    let mut world = World::new("limits.yaml");
    let flag = world.path("flag");
    world.set("FLAG", flag.to_str().unwrap());
    world.run(&["up", "-d"]).await.exits(0);
    let (greedy, free) = (running(&world, "greedy").await, running(&world, "free").await);
    let own = groups(greedy);
    assert!(groups(free).is_empty(), "without limits there is no group");
    assert_eq!(setting(&own, ["memory.max", "memory.limit_in_bytes"]).as_deref(), Some(MEMORY));
    assert_eq!(setting(&own, ["pids.max", "pids.max"]).as_deref(), Some("20"));
    let cpu = setting(&own, ["cpu.max", "cpu.cfs_quota_us"]);
    assert!(matches!(cpu.as_deref(), Some("50000 100000" | "50000")), "{cpu:?}");

    let before = world.last_event().await;
    fs::write(&flag, "").unwrap();
    ended(greedy).await;
    fs::remove_file(&flag).unwrap();
    world.event(before, "the end of the incident", |event| event.kind == "incident.over").await;
    let why: Why =
        serde_json::from_value(world.run(&["why", "greedy", "--json"]).await.exits(0).json()).unwrap();
    let incident = &why.incidents[0];
    assert_eq!(incident.cause, "out of memory", "{incident:?}");
    assert!(
        incident.evidence.memory_peak.is_some_and(|peak| (60 << 20..=64 << 20).contains(&peak)),
        "{incident:?}"
    );
    let text = world.run(&["why", "greedy"]).await.exits(0).out;
    assert!(text.contains("within its limit") && text.contains("memory  at most 64 MiB"), "{text}");

    // A drill does the same on purpose.
    let line = ["drill", "greedy", "--only", "memory", "--yes", "--last", "--json"];
    let drill = world.run(&line).await.exits(0).json();
    assert_eq!(drill["drills"][0]["passed"], true, "{drill:#}");

    // A group outlives the agent as its replica does, and is gone with it. One of a replica that isn't there any more, as an
    // agent leaves it that dies before it removes it, is gone with the next agent's start.
    let greedy = running(&world, "greedy").await;
    let own = groups(greedy);
    let left = left_over(&own[0]);
    fs::create_dir(&left).unwrap();
    let agent = world.snapshot().await.agent.pid;
    kill(pid(agent), Signal::KILL);
    let is_back = |s: &Snapshot| (s.agent.pid != agent).then(|| pid_of(s, "greedy")).flatten();
    assert_eq!(world.until("the next agent", is_back).await, greedy);
    let end = Instant::now() + LIMIT;
    while left.exists() {
        assert!(Instant::now() < end, "{} stays", left.display());
        sleep(LOOK_EVERY).await;
    }
    assert!(own.iter().all(|group| group.is_dir()), "{own:?}");
    world.run(&["down"]).await.exits(0);
    assert!(own.iter().all(|group| !group.exists()), "{own:?}");
}
