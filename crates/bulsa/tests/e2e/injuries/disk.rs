//! A disk that is full while replicas die: healing goes on.

use std::{fs, io::Write as _, path::PathBuf, process::Command};

use rustix::process::Signal;

use super::{figures, killed_and_back, load_on, replicas, spread};
use crate::{
    traffic::answers,
    world::{World, kill, pid},
};

/// A file system of its own, of 8 MiB; unmounted when dropped.
struct Small(PathBuf);

impl Small {
    /// `None` without the right to mount, which is said.
    fn mount(at: PathBuf) -> Option<Self> {
        fs::create_dir_all(&at).unwrap();
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", "size=8m,mode=0700", "bulsa-test"]).arg(&at);
        let is_there = command.output().is_ok_and(|output| output.status.success());
        if !is_there {
            eprintln!("skipped: it needs root, to mount a small file system");
        }
        is_there.then_some(Self(at))
    }

    /// Fills it to the last byte.
    fn fill(&self) {
        let mut file = fs::File::create(self.0.join("filler")).unwrap();
        for size in [1 << 16, 1 << 12, 1 << 6, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
    }

    fn free(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Processes that still have files there keep it from view no longer than they live.
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

#[tokio::test]
async fn healing_goes_on_while_the_disk_is_full_and_a_deploy_is_refused() {
    // The daemon ends before its disk goes, also when the test fails.
    let small;
    let mut world = World::new("injuries.yaml");
    world.set("REPLICAS", "2");
    small = Small::mount(world.state_dir());
    let Some(small) = &small else { return };
    world.up().await;
    world.well("injuries").await;
    let load = load_on(&world).await;
    small.fill();
    let mut times = Vec::new();
    for round in 0..6 {
        let victim = replicas(&world).await.remove(round % 2);
        times.push(killed_and_back(&world, &victim).await);
        answers(&load, 10).await;
    }
    let agent = world.snapshot().await.agent.pid;
    kill(pid(agent), Signal::KILL);
    let has_next =
        |s: &bulsa_core::wire::api::Snapshot| (s.agent.pid != agent && s.projects.len() == 1).then_some(());
    world.until("another agent, without a disk to write to", has_next).await;
    let victim = replicas(&world).await.remove(0);
    times.push(killed_and_back(&world, &victim).await);
    world.set("START_MS", "1");
    let refused = world.run(&["deploy"]).await;
    assert!(refused.code != Some(0), "{refused:?}");
    small.free();
    world.run(&["deploy"]).await.exits(0);
    let report = load.stop().await;
    assert_eq!(report.failed, 0, "{:#?}", report.failures);
    eprintln!("disk full: back after {}; {}", spread(&times), figures(&report));
}
