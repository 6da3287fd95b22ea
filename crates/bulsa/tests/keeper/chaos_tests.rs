//! SIGKILL at moments that nobody chose: whatever was being done, nothing is doubled, lost or left over.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bulsa::agent::keeper_client::{KeeperEvent, Welcome};
use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::trial;
use crate::world::{Agent, World, ended, is_alive, kill, marked, request, served, variable};

/// Rounds of the test that kills keepers; each costs some tens of milliseconds.
const ROUNDS: u64 = 12;
/// Rounds of the others: a keeper starts this many at once again, and then waits a little.
const FREE_ROUNDS: u64 = 5;
/// Replicas asked for in one round.
const REPLICAS: u64 = 8;
/// A kill comes at most this much after the requests.
const MAX_DELAY_MICROS: u64 = 6000;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_keeper_killed_while_it_spawns_loses_and_doubles_nothing", keeper_killed),
        trial("an_agent_killed_while_it_asks_loses_and_doubles_nothing", agent_killed),
        trial("no_connection_is_refused_whoever_is_killed", anyone_killed),
    ]
}

/// A sequence of numbers below a bound; the seed is printed, `BULSA_TEST_SEED` replays it.
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().subsec_nanos();
        let given = std::env::var("BULSA_TEST_SEED").ok().map(|seed| seed.parse().unwrap());
        let seed = given.unwrap_or_else(|| u64::from(now));
        println!("BULSA_TEST_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    /// Lets a random time pass without giving up the processor.
    fn delay(&mut self) {
        let until = Instant::now() + Duration::from_micros(self.below(MAX_DELAY_MICROS));
        while Instant::now() < until {
            std::hint::spin_loop();
        }
    }
}

/// The replicas' processes that exist, whoever knows of them.
fn existing(marker: &str) -> BTreeSet<i32> {
    marked(marker)
        .into_iter()
        .filter(|pid| is_alive(*pid) && variable(*pid, "BULSA_TASK").is_some())
        .collect()
}

/// What exists must be what the keeper knows. A process inside `execve` shows no environment, so look again.
async fn all_are_known(agent: &Agent, welcome: &Welcome) {
    let marker = variable(agent.pid, "BULSA_KEEPER").unwrap();
    let known: BTreeSet<i32> = welcome.replicas.iter().map(|replica| replica.pid).collect();
    let ids: BTreeSet<&str> = welcome.replicas.iter().map(|replica| replica.id.as_str()).collect();
    assert_eq!(ids.len(), known.len());
    while existing(&marker) != known {
        tokio::task::yield_now().await;
    }
}

/// Ends all replicas and waits until each end was told.
async fn end_all(agent: &Agent, welcome: &Welcome) {
    for replica in &welcome.replicas {
        agent.client.signal(&replica.id, Signal::KILL, true).await.unwrap();
    }
    let mut left: BTreeSet<&str> = welcome.replicas.iter().map(|replica| replica.id.as_str()).collect();
    while !left.is_empty() {
        if let KeeperEvent::Exited(record) = agent.client.next_event().await.unwrap() {
            left.remove(record.id.as_str());
            agent.client.ack_exit(&record.id).await.unwrap();
        }
    }
}

async fn ask_for_many(world: &World, agent: &Agent, round: u64) {
    for number in 0..REPLICAS {
        agent.ask_spawn(world, &format!("{round}.{number}"), "exec sleep 600").await;
    }
}

async fn keeper_killed() {
    let (mut world, mut agent, _) = World::start().await;
    let mut dice = Dice::new();
    for round in 0..ROUNDS {
        ask_for_many(&world, &agent, round).await;
        dice.delay();
        world.kill_keeper();
        world.start_keeper();
        let (next, welcome) = world.agent().await;
        all_are_known(&next, &welcome).await;
        end_all(&next, &welcome).await;
        agent = next;
    }
}

async fn agent_killed() {
    let (mut world, mut agent, _) = World::start().await;
    let mut dice = Dice::new();
    for round in 0..FREE_ROUNDS {
        ask_for_many(&world, &agent, round).await;
        dice.delay();
        agent.kill();
        let (next, welcome) = world.agent().await;
        assert_eq!(welcome.replicas.len(), usize::try_from(REPLICAS).unwrap(), "all that was asked for");
        all_are_known(&next, &welcome).await;
        end_all(&next, &welcome).await;
        agent = next;
    }
}

/// Connects as fast as it can until told to stop; counts answers. A refused connection panics.
fn customers(
    addr: SocketAddr,
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicU32>,
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            if request(addr).is_some_and(|answer| answer.ends_with("hello")) {
                answers.fetch_add(1, Ordering::Relaxed);
            }
        }
    })
}

async fn anyone_killed() {
    let (mut world, mut agent, mut welcome) = World::start().await;
    let addr = agent.publish(1).await;
    served(addr).await;
    let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let customers = customers(addr, Arc::clone(&stop), Arc::clone(&answers));
    let mut dice = Dice::new();
    for _ in 0..FREE_ROUNDS {
        let proxy = newest_proxy(&agent, &welcome).await;
        dice.delay();
        // Not keeper and proxy at once: then nobody has the sockets.
        match dice.below(4) {
            0 => {
                kill(proxy, Signal::KILL);
                ended(proxy).await;
            }
            1 => {
                agent.kill();
                (agent, welcome) = world.agent().await;
            }
            2 => {
                world.kill_keeper();
                world.start_keeper();
                let next = world.agent().await;
                (agent, welcome) = next;
            }
            _ => {
                kill(proxy, Signal::KILL);
                dice.delay();
                agent.kill();
                (agent, welcome) = world.agent().await;
            }
        }
        served(addr).await;
    }
    stop.store(true, Ordering::Relaxed);
    customers.join().unwrap();
    println!("{} answers", answers.load(Ordering::Relaxed));
    assert!(answers.load(Ordering::Relaxed) > 0);
}

/// The proxy that lives: one of the welcome, or one that came later.
async fn newest_proxy(agent: &Agent, welcome: &Welcome) -> i32 {
    if let Some(proxy) = welcome.proxies.last().filter(|proxy| is_alive(proxy.pid)) {
        return proxy.pid;
    }
    loop {
        match agent.client.next_event().await.unwrap() {
            KeeperEvent::ProxyUp(proxy) if is_alive(proxy.pid) => return proxy.pid,
            _ => {}
        }
    }
}
