//! The proxy is killed, told, and asked.

use std::fs;
use std::os::fd::AsFd;
use std::time::Instant;

use bulsa::agent::keeper_client::KeeperEvent;
use bulsa::agent::proxy_link::{ProxyEvent, ProxyLink};
use bulsa::link::memfd;
use bulsa::link::messages::ExitStatus;
use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::trial;
use crate::world::{World, backend, kill, request, served, table};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_killed_proxy_is_replaced_on_the_same_sockets_and_no_connection_is_refused", replaced),
        trial("a_proxy_that_dies_while_no_agent_lives_is_replaced_too", replaced_without_agent),
        trial("a_proxy_that_the_agent_calls_silent_is_killed_and_replaced", killed_on_request),
        trial("a_proxy_reports_acknowledges_and_refuses_tables", talks_to_the_agent),
        trial("a_proxy_has_no_rights", has_no_rights),
        trial("dropped_sockets_are_closed_everywhere", sockets_are_dropped),
        trial("a_proxy_that_dies_at_once_is_restarted_with_growing_pauses_and_comes_back", storm),
    ]
}

async fn replaced() {
    let (_world, agent, welcome) = World::start().await;
    let addr = agent.publish(1).await;
    served(addr).await;
    let first = &welcome.proxies[0];
    for round in 0..3 {
        let pid = if round == 0 { first.pid } else { proxy_pid_of(&agent).await };
        let killed = Instant::now();
        kill(pid, Signal::KILL);
        // Each try is a fresh connection, and a refused one fails the test.
        served(addr).await;
        println!("from SIGKILL of the proxy to the first answer of the next: {:?}", killed.elapsed());
        if round == 0 {
            expect_down(&agent, 1).await;
        }
    }
}

/// The pid of the proxy that came up last.
async fn proxy_pid_of(agent: &crate::world::Agent) -> i32 {
    loop {
        if let KeeperEvent::ProxyUp(handle) = agent.client.next_event().await.unwrap() {
            return handle.pid;
        }
    }
}

async fn expect_down(agent: &crate::world::Agent, generation: u64) {
    // The next one is started before anybody is told that the last one ended.
    let next = agent.proxy_up().await;
    assert_eq!(next.generation, generation + 1);
    match agent.client.next_event().await.unwrap() {
        KeeperEvent::ProxyDown { generation: of, status } => {
            assert_eq!((of, status), (generation, ExitStatus::Signal(9)));
        }
        other => panic!("{other:?}"),
    }
    kill(next.pid, Signal::KILL);
}

async fn replaced_without_agent() {
    let (mut world, agent, welcome) = World::start().await;
    let addr = agent.publish(1).await;
    served(addr).await;
    agent.kill();
    let (_pid, _link, _process) = world.agent_link().await;
    kill(welcome.proxies[0].pid, Signal::KILL);
    served(addr).await;
}

async fn killed_on_request() {
    let (_world, agent, welcome) = World::start().await;
    kill(welcome.proxies[0].pid, Signal::STOP);
    agent.client.kill_proxy(1).await.unwrap();
    assert_eq!(agent.proxy_up().await.generation, 2);
}

async fn talks_to_the_agent() {
    let (_world, agent, welcome) = World::start().await;
    let proxy = ProxyLink::new(welcome.proxies.into_iter().next().unwrap().link).unwrap();
    match proxy.next().await.unwrap() {
        ProxyEvent::Hello { generation: 1, report } => assert_eq!(report.table, 0),
        other => panic!("{other:?}"),
    }
    let sent = table(5, backend());
    proxy.send_table(5, sent.as_fd()).await.unwrap();
    loop {
        match proxy.next().await.unwrap() {
            ProxyEvent::Report(report) if report.table == 5 => break,
            ProxyEvent::Report(_) => {}
            other => panic!("{other:?}"),
        }
    }
    let broken = memfd::sealed("table", b"{}").unwrap();
    proxy.send_table(6, broken.as_fd()).await.unwrap();
    proxy.ping(77).await.unwrap();
    let (mut refused, mut answered) = (false, false);
    while !(refused && answered) {
        match proxy.next().await.unwrap() {
            ProxyEvent::TableRefused { number: 6, .. } => refused = true,
            ProxyEvent::Pong { nonce: 77, report } => answered = report.table == 5,
            ProxyEvent::Report(_) => {}
            other => panic!("{other:?}"),
        }
    }
    drop(agent);
}

async fn has_no_rights() {
    let (_world, _agent, welcome) = World::start().await;
    let status = fs::read_to_string(format!("/proc/{}/status", welcome.proxies[0].pid)).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line[name.len()..].split_whitespace().collect::<Vec<_>>()
    };
    assert_eq!(field("NoNewPrivs:"), ["1"]);
    if rustix::process::geteuid().is_root() {
        assert_ne!(field("Uid:")[0], "0");
        assert_eq!(field("CapEff:"), ["0000000000000000"]);
        assert!(field("Groups:").is_empty());
    }
}

async fn sockets_are_dropped() {
    let (_world, agent, _) = World::start().await;
    let addr = agent.publish(1).await;
    served(addr).await;
    agent.client.drop_sockets("web").await.unwrap();
    let refused = tokio::task::spawn_blocking(move || {
        while std::net::TcpStream::connect(addr).is_ok() {
            std::thread::yield_now();
        }
    });
    refused.await.unwrap();
}

async fn storm() {
    let (_world, agent, welcome) = World::start().await;
    let addr = agent.publish(1).await;
    served(addr).await;
    let mut pid = welcome.proxies[0].pid;
    for _ in 0..7 {
        kill(pid, Signal::KILL);
        pid = proxy_pid_of(&agent).await;
    }
    let answered = tokio::task::spawn_blocking(move || request(addr)).await.unwrap();
    assert!(answered.unwrap().ends_with("hello"));
}
