//! The end of the daemon.

use bulsa::agent::keeper_client::KeeperEvent;
use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::trial;
use crate::world::{World, ended, is_alive, kill, number_in};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("the_agent_is_asked_to_stop_everything_first", asked_first),
        trial("without_an_agent_replicas_get_sigterm_and_everything_ends", without_agent),
        trial("an_agent_that_dies_while_it_stops_everything_does_not_stop_the_end", agent_dies),
        trial("replicas_and_proxies_may_go_on_for_a_successor", left_running),
        trial("sighup_ends_nothing", hangup),
    ]
}

async fn asked_first() {
    let (mut world, agent, welcome) = World::start().await;
    let pid = agent.spawn(&world, "a", "trap '' TERM; while :; do sleep 600; done").await;
    kill(world.keeper_pid(), Signal::TERM);
    assert!(matches!(agent.client.next_event().await.unwrap(), KeeperEvent::ShuttingDown { .. }));
    assert!(is_alive(pid) && is_alive(welcome.proxies[0].pid));
    agent.client.shutdown(true).await.unwrap();
    assert_eq!(world.keeper_ended().await, Some(0));
    for pid in [pid, agent.pid, welcome.proxies[0].pid] {
        assert!(!is_alive(pid));
    }
}

async fn without_agent() {
    let mut world = World::new();
    world.start_keeper();
    let (agent, _welcome) = world.agent().await;
    let (ready, told) = (world.path("ready"), world.path("told"));
    let script = format!(
        "trap 'echo 1 > {told}; exit 0' TERM; echo 1 > {ready}.new; mv {ready}.new {ready}; while :; do sleep 0.01; done",
        told = told.display(),
        ready = ready.display()
    );
    let pid = agent.spawn(&world, "a", &script).await;
    number_in(&ready).await;
    agent.kill();
    // The next agent never says hello.
    let (_pid, _link, _process) = world.agent_link().await;
    kill(world.keeper_pid(), Signal::TERM);
    assert_eq!(world.keeper_ended().await, Some(0));
    assert!(!is_alive(pid));
    assert_eq!(number_in(&told).await, 1, "it had a chance to end by itself");
}

async fn agent_dies() {
    let (mut world, agent, _) = World::start().await;
    let pid = agent.spawn(&world, "a", "exec sleep 600").await;
    kill(world.keeper_pid(), Signal::INT);
    assert!(matches!(agent.client.next_event().await.unwrap(), KeeperEvent::ShuttingDown { .. }));
    agent.kill();
    assert_eq!(world.keeper_ended().await, Some(0));
    assert!(!is_alive(pid));
}

async fn left_running() {
    let (mut world, agent, welcome) = World::start().await;
    let pid = agent.spawn(&world, "a", "exec sleep 600").await;
    let proxy = welcome.proxies[0].pid;
    agent.client.shutdown(false).await.unwrap();
    assert_eq!(world.keeper_ended().await, Some(0));
    assert!(is_alive(pid) && is_alive(proxy));
    ended(agent.pid).await;
    world.start_keeper();
    let (_next, welcome) = world.agent().await;
    assert_eq!((welcome.replicas[0].pid, welcome.proxies[0].pid), (pid, proxy));
}

async fn hangup() {
    let (world, agent, _) = World::start().await;
    kill(world.keeper_pid(), Signal::HUP);
    agent.spawn(&world, "a", "exit 0").await;
    agent.exit().await;
}
