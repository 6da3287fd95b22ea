//! Replicas: start, end, and what they leave.

use std::os::fd::AsFd;

use bulsa::agent::keeper_client::KeeperEvent;
use bulsa::link::messages::{ExitStatus, SpawnSpec};
use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::trial;
use crate::world::{World, ended, is_alive, number_in};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_replica_runs_and_its_exit_code_is_told", runs_and_exits),
        trial("a_signal_that_ends_a_replica_is_told", ends_by_signal),
        trial("an_id_never_has_two_processes", one_process_per_id),
        trial("a_replica_that_cannot_start_says_why", cannot_start),
        trial("what_a_dead_leader_leaves_is_killed_in_its_group_and_outside", leftovers_die),
        trial("a_daemonised_child_of_a_living_replica_is_left_alone", living_daemons_stay),
        trial("signals_that_the_keeper_was_started_to_ignore_are_at_their_default", signals_are_reset),
        trial("output_is_appended_to_the_log", output_is_appended),
    ]
}

async fn runs_and_exits() {
    let (world, agent, _) = World::start().await;
    let pid = agent.spawn(&world, "a", "exit 7").await;
    let record = agent.exit().await;
    assert_eq!((record.id.as_str(), record.pid, record.status), ("a", pid, ExitStatus::Code(7)));
    assert!(record.at_ms > 1_600_000_000_000);
}

async fn ends_by_signal() {
    let (world, agent, _) = World::start().await;
    agent.spawn(&world, "a", "exec sleep 600").await;
    agent.client.signal("a", Signal::USR1, false).await.unwrap();
    assert_eq!(agent.exit().await.status, ExitStatus::Signal(Signal::USR1.as_raw()));
}

async fn one_process_per_id() {
    let (world, agent, _) = World::start().await;
    let pid = agent.spawn(&world, "a", "read x < /dev/zero; sleep 600").await;
    let again = agent.spawn(&world, "a", "exit 1").await;
    assert_eq!(again, pid);
    agent.client.signal("a", Signal::KILL, true).await.unwrap();
    let record = agent.exit().await;
    agent.ask_spawn(&world, "a", "exit 1").await;
    assert_eq!(agent.exit().await, record, "the exit was not acknowledged, so it is told again");
    agent.client.ack_exit("a").await.unwrap();
    assert_ne!(agent.spawn(&world, "a", "exit 1").await, pid);
}

async fn cannot_start() {
    let (world, agent, _) = World::start().await;
    let spec = SpawnSpec { argv: vec!["/nope".to_owned()], ..SpawnSpec::default() };
    agent.client.spawn("a", &spec, world.log("a").as_fd(), None).await.unwrap();
    match agent.client.next_event().await.unwrap() {
        KeeperEvent::SpawnFailed { id, error } => {
            assert_eq!((id.as_str(), error.as_str()), ("a", "there is no program \"/nope\""));
        }
        other => panic!("{other:?}"),
    }
    agent.spawn(&world, "a", "exit 0").await;
}

/// Starts one process in the group and one in a session of its own, and writes down their pids.
fn family(world: &World, then: &str) -> String {
    let (group, outside) = (world.path("group"), world.path("outside"));
    format!(
        "sleep 600 & echo $! > {group}.new; mv {group}.new {group}; \
         setsid sh -c 'echo $$ > {outside}.new; mv {outside}.new {outside}; exec sleep 600' & {then}",
        group = group.display(),
        outside = outside.display(),
    )
}

async fn leftovers_die() {
    let (world, agent, _) = World::start().await;
    agent.spawn(&world, "a", &family(&world, "exec sleep 600")).await;
    let group = number_in(&world.path("group")).await;
    let outside = number_in(&world.path("outside")).await;
    assert!(is_alive(group) && is_alive(outside));
    agent.client.signal("a", Signal::KILL, false).await.unwrap();
    assert_eq!(agent.exit().await.status, ExitStatus::Signal(9));
    ended(group).await;
    ended(outside).await;
}

async fn living_daemons_stay() {
    let (world, agent, _) = World::start().await;
    // The parent of the process outside ends, so that it comes to the keeper while its replica lives.
    let script = format!("({}); exec sleep 600", family(&world, "true"));
    agent.spawn(&world, "a", &script).await;
    let outside = number_in(&world.path("outside")).await;
    // Another replica's end makes the keeper look at its orphans.
    agent.spawn(&world, "b", "exit 0").await;
    agent.exit().await;
    assert!(is_alive(outside));
}

async fn output_is_appended() {
    let (world, agent, _) = World::start().await;
    agent.spawn(&world, "a", "echo one; echo two >&2").await;
    agent.exit().await;
    agent.client.ack_exit("a").await.unwrap();
    agent.spawn(&world, "a", "echo three").await;
    agent.exit().await;
    assert_eq!(world.log_text("a"), "one\ntwo\nthree\n");
}

async fn signals_are_reset() {
    let mut world = World::new();
    world.start_keeper_by("trap '' HUP USR1 PIPE; exec \"$@\"");
    let (agent, _) = world.agent().await;
    agent.spawn(&world, "a", "exec grep -E 'SigBlk|SigIgn' /proc/self/status").await;
    agent.exit().await;
    // Two signals of the C library's own, 32 and 33, cannot be reset through it.
    let reserved: u64 = 0b11 << 31;
    for line in world.log_text("a").lines() {
        let bits = u64::from_str_radix(line.split_whitespace().last().unwrap(), 16).unwrap();
        assert_eq!(bits & !reserved, 0, "{line}");
    }
}
