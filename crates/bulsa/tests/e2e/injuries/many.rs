//! Many replicas, of which a tenth dies each second.

use std::{fs, time::Duration};

use bulsa_core::wire::api::Snapshot;
use rustix::process::Signal;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::{is_long, long_or};
use crate::{
    watch::only,
    world::{World, kill, pid},
};

/// The agent may take half a core.
const SHARE_MAX: f64 = 0.5;
/// And so much more memory at the end than at the beginning, in KiB: its records of the dead have a limit each.
const GROWTH_MAX_KIB: u64 = 8 << 10;

fn agent_cpu(pid: u32) -> Duration {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_secs_f64(ticks as f64 / super::TICKS_PER_SECOND)
}

fn agent_kib(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_tenth_of_many_dies_each_second_and_all_are_healed() {
    let (count, seconds) = (long_or(40, 200), long_or(6, 60));
    let mut world = World::new("many.yaml");
    world.set("REPLICAS", count.to_string());
    world.up().await;
    let whole = |s: &Snapshot| (only(s).1.ready == count).then(|| s.clone());
    let first = world.until("all of them", whole).await;
    let agent = first.agent.pid;
    let (mut every, mut killed, mut next) = (interval(Duration::from_secs(1)), 0_u64, 0);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut cpu, mut begun, mut kib) = (agent_cpu(agent), Instant::now(), agent_kib(agent));
    for second in 0..seconds {
        every.tick().await;
        let snapshot = world.snapshot().await;
        let living: Vec<i32> = only(&snapshot).1.replicas.iter().filter_map(|one| one.pid).map(pid).collect();
        for index in 0..count / 10 {
            let at = (next + index as usize) % living.len();
            // One that has just been killed may be gone.
            if rustix::process::test_kill_process(rustix::process::Pid::from_raw(living[at]).unwrap()).is_ok()
            {
                kill(living[at], Signal::KILL);
                killed += 1;
            }
        }
        next += count as usize / 10;
        if second == seconds / 4 {
            // By then it has all of the memory that it needs for this.
            (cpu, begun, kib) = (agent_cpu(agent), Instant::now(), agent_kib(agent));
        }
    }
    let share = (agent_cpu(agent) - cpu).as_secs_f64() / begun.elapsed().as_secs_f64();
    let grown = agent_kib(agent).saturating_sub(kib);
    let last_kill = Instant::now();
    let after = world.until("all of them again", whole).await;
    let healed = last_kill.elapsed();
    sleep(Duration::from_millis(100)).await;
    eprintln!(
        "{count} replicas, {} killed each second for {seconds} s: {killed} deaths, all back {:.2} s after the last, the agent took {:.0} % of \
         a core, its memory grew by {grown} KiB",
        count / 10,
        healed.as_secs_f64(),
        share * 100.0,
    );
    assert_eq!(after.agent.pid, agent, "the agent lived on");
    assert_eq!(only(&after).1.restarts, killed, "every death is counted");
    assert!(grown < GROWTH_MAX_KIB, "{grown} KiB");
    if is_long() && !cfg!(debug_assertions) {
        assert!(share < SHARE_MAX, "{share}");
    }
}
