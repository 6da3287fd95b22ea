//! The agent is killed, or misbehaves.

use bulsa::agent::proxy_link::{ProxyEvent, ProxyLink};
use bulsa::link::messages::ExitStatus;
use libtest_mimic::Trial;

use crate::trial;
use crate::world::{World, ended, is_alive, served};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("the_next_agent_is_told_everything", everything_comes_back),
        trial("what_a_killed_agent_had_asked_for_is_done_before_the_next_is_welcomed", queued_requests),
        trial("an_unacknowledged_exit_waits_for_the_next_agent", exits_wait),
        trial("an_agent_that_breaks_the_protocol_is_replaced", nonsense),
        trial("traffic_flows_while_no_agent_lives", traffic_without_agent),
    ]
}

async fn everything_comes_back() {
    let (mut world, agent, first) = World::start().await;
    assert_eq!((first.agent_number, first.previous_agent), (1, None));
    assert!(first.sockets.is_empty() && first.table.is_none() && first.replicas.is_empty());
    let addr = agent.publish(41).await;
    let pid = agent.spawn(&world, "a", "exec sleep 600").await;
    agent.kill();
    let (next, welcome) = world.agent().await;
    assert!(!is_alive(agent.pid));
    assert_eq!(welcome.agent_number, 2);
    assert_eq!(welcome.previous_agent, Some(ExitStatus::Signal(9)));
    assert_eq!(welcome.sockets.len(), 1);
    assert_eq!((welcome.sockets[0].0.as_str(), welcome.sockets[0].1.len()), ("web", 2));
    assert_eq!(welcome.sockets[0].1[0].local_addr().unwrap(), addr);
    assert_eq!(welcome.table.unwrap().0, 41);
    let replica = &welcome.replicas[0];
    assert_eq!((replica.id.as_str(), replica.pid, replica.note.as_str()), ("a", pid, "note of a"));
    assert!(!replica.adopted && replica.start_time > 0);
    assert_eq!(welcome.proxies.len(), 1);
    let proxy = ProxyLink::new(welcome.proxies.into_iter().next().unwrap().link).unwrap();
    assert!(matches!(proxy.next().await.unwrap(), ProxyEvent::Hello { generation: 1, .. }));
    drop(next);
}

async fn queued_requests() {
    let (mut world, agent, _) = World::start().await;
    // Nothing is awaited between asking and dying: all this is in the socket at most.
    for number in 0..20 {
        agent.ask_spawn(&world, &format!("r{number}"), "exec sleep 600").await;
    }
    agent.kill();
    let (_next, welcome) = world.agent().await;
    assert_eq!(welcome.replicas.len(), 20);
}

async fn exits_wait() {
    let (mut world, agent, _) = World::start().await;
    agent.spawn(&world, "a", "exit 3").await;
    let record = agent.exit().await;
    agent.kill();
    let (agent, welcome) = world.agent().await;
    assert_eq!(welcome.exits, [record]);
    agent.client.ack_exit("a").await.unwrap();
    agent.kill();
    let (_agent, welcome) = world.agent().await;
    assert!(welcome.exits.is_empty());
}

async fn nonsense() {
    let mut world = World::new();
    world.start_keeper();
    let (pid, link, _process) = world.agent_link().await;
    link.send(&"nonsense", &[]).unwrap();
    let (_agent, welcome) = world.agent().await;
    ended(pid).await;
    assert_eq!(welcome.previous_agent, Some(ExitStatus::Signal(9)));
}

async fn traffic_without_agent() {
    let (mut world, agent, _) = World::start().await;
    let addr = agent.publish(1).await;
    served(addr).await;
    agent.kill();
    // The next agent process is there, and nobody speaks for it.
    let (_pid, _link, _process) = world.agent_link().await;
    served(addr).await;
}
