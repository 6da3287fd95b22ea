//! The keeper itself is killed.

use std::process::Stdio;

use bulsa::agent::proxy_link::{ProxyEvent, ProxyLink};
use bulsa::link::messages::ExitStatus;
use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::trial;
use crate::world::{World, ended, is_alive, kill, number_in, served};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_successor_takes_over_sockets_table_proxy_and_replicas", successor),
        trial("a_successor_of_a_successor_does_so_too", second_successor),
        trial("a_replica_that_overwrote_its_environment_is_adopted", overwritten_environment),
        trial("a_replica_that_ended_while_no_keeper_lived_is_told_as_unknown", ended_unseen),
        trial("an_exit_that_was_not_acknowledged_survives_the_keeper", exit_survives),
        trial("what_an_adopted_replica_leaves_is_killed", adopted_leftovers),
        trial("a_proxy_that_hangs_is_replaced_by_the_successor", hanging_proxy),
        trial("a_second_keeper_is_told_who_runs", second_keeper),
        trial("a_state_directory_that_cannot_be_used_is_named", unusable_directory),
        trial("traffic_flows_while_no_keeper_lives", traffic_without_keeper),
    ]
}

async fn successor() {
    let (mut world, agent, welcome) = World::start().await;
    let addr = agent.publish(9).await;
    served(addr).await;
    let pid = agent.spawn(&world, "a", "exec sleep 600").await;
    let proxy = welcome.proxies[0].pid;
    world.kill_keeper();
    assert!(is_alive(proxy) && is_alive(pid) && is_alive(agent.pid));
    world.start_keeper();
    let (next, welcome) = world.agent().await;
    assert!(!is_alive(agent.pid), "two agents never live at once");
    assert_eq!(welcome.agent_number, 2);
    assert_eq!(welcome.sockets[0].1[0].local_addr().unwrap(), addr);
    assert_eq!(welcome.table.as_ref().unwrap().0, 9);
    assert_eq!(welcome.replicas.len(), 1);
    let replica = &welcome.replicas[0];
    assert_eq!((replica.pid, replica.adopted, replica.note.as_str()), (pid, true, "note of a"));
    assert_eq!((welcome.proxies[0].pid, welcome.proxies[0].generation), (proxy, 1));
    let link = ProxyLink::new(welcome.proxies.into_iter().next().unwrap().link).unwrap();
    match link.next().await.unwrap() {
        ProxyEvent::Hello { generation: 1, report } => assert_eq!(report.table, 9),
        other => panic!("{other:?}"),
    }
    served(addr).await;
    next.client.signal("a", Signal::TERM, true).await.unwrap();
    let record = next.exit().await;
    assert_eq!((record.pid, record.status), (pid, ExitStatus::Unknown));
}

async fn second_successor() {
    let (mut world, agent, _) = World::start().await;
    let addr = agent.publish(9).await;
    served(addr).await;
    let pid = agent.spawn(&world, "a", "exec sleep 600").await;
    let mut agents = vec![agent];
    for _ in 0..2 {
        world.kill_keeper();
        world.start_keeper();
        let (agent, welcome) = world.agent().await;
        assert_eq!(welcome.replicas[0].pid, pid);
        // The next keeper ends it.
        agents.push(agent);
    }
    // The proxy now belongs to the third keeper, which replaces it when it dies.
    world.kill_keeper();
    world.start_keeper();
    let (next, welcome) = world.agent().await;
    kill(welcome.proxies[0].pid, Signal::KILL);
    served(addr).await;
    assert_eq!(next.proxy_up().await.generation, 2);
}

async fn overwritten_environment() {
    let (mut world, agent, _) = World::start().await;
    let ready = world.path("ready");
    let script =
        format!("exec env -i sh -c 'echo $$ > {0}.new; mv {0}.new {0}; exec sleep 600'", ready.display());
    let pid = agent.spawn(&world, "a", &script).await;
    assert_eq!(number_in(&ready).await, pid);
    world.kill_keeper();
    world.start_keeper();
    let (next, welcome) = world.agent().await;
    assert_eq!(welcome.replicas[0].pid, pid);
    next.client.signal("a", Signal::KILL, true).await.unwrap();
    next.exit().await;
}

async fn ended_unseen() {
    let (mut world, agent, _) = World::start().await;
    let stray = world.path("stray");
    let script = format!("sleep 600 & echo $! > {0}.new; mv {0}.new {0}; exec sleep 600", stray.display());
    let pid = agent.spawn(&world, "a", &script).await;
    let stray = number_in(&stray).await;
    world.kill_keeper();
    kill(pid, Signal::KILL);
    ended(pid).await;
    assert!(is_alive(stray));
    world.start_keeper();
    let (_next, welcome) = world.agent().await;
    assert!(welcome.replicas.is_empty());
    assert_eq!((welcome.exits[0].pid, welcome.exits[0].status), (pid, ExitStatus::Unknown));
    ended(stray).await;
}

async fn exit_survives() {
    let (mut world, agent, _) = World::start().await;
    agent.spawn(&world, "a", "exit 3").await;
    let record = agent.exit().await;
    world.kill_keeper();
    world.start_keeper();
    let (_next, welcome) = world.agent().await;
    assert_eq!(welcome.exits, [record]);
}

async fn adopted_leftovers() {
    let (mut world, agent, _) = World::start().await;
    let outside = world.path("outside");
    let script = format!(
        "setsid sh -c 'echo $$ > {0}.new; mv {0}.new {0}; exec sleep 600' & exec sleep 600",
        outside.display()
    );
    let pid = agent.spawn(&world, "a", &script).await;
    let outside = number_in(&outside).await;
    world.kill_keeper();
    world.start_keeper();
    let (next, welcome) = world.agent().await;
    assert_eq!(welcome.replicas[0].pid, pid);
    assert!(is_alive(outside));
    kill(pid, Signal::KILL);
    next.exit().await;
    assert!(!is_alive(outside));
}

async fn hanging_proxy() {
    let (mut world, agent, welcome) = World::start().await;
    let proxy = welcome.proxies[0].pid;
    kill(proxy, Signal::STOP);
    world.kill_keeper();
    world.start_keeper();
    let (_next, welcome) = world.agent().await;
    ended(proxy).await;
    assert_eq!(welcome.proxies[0].generation, 2);
    drop(agent);
}

async fn second_keeper() {
    let (world, _agent, _) = World::start().await;
    let output = world.keeper_command().stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    let expected = format!("a daemon is already running here (process {},", world.keeper_pid());
    assert!(text.contains(&expected), "{text}");
}

async fn unusable_directory() {
    let world = World::new();
    std::fs::write(world.state_dir(), "a file").unwrap();
    let output = world.keeper_command().stderr(Stdio::piped()).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains(&format!("the state directory {}", world.state_dir().display())), "{text}");
}

async fn traffic_without_keeper() {
    let (mut world, agent, _) = World::start().await;
    let addr = agent.publish(1).await;
    served(addr).await;
    world.kill_keeper();
    served(addr).await;
    kill(agent.pid, Signal::KILL);
    served(addr).await;
}
