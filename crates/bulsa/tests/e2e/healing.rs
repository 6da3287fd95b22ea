//! Healing beyond a death and a hang: what is left alone, what is tried again, what stands ready, what is gone back from.

use std::{fs, path::PathBuf, time::Duration};

use bulsa_core::wire::api::{ServiceState, ServiceView, Snapshot};
use rustix::process::Signal;

use crate::{
    traffic::{answers, gets, perfect},
    world::{World, ended, kill, pid},
};

/// The services of `care.yaml`, and what makes them ill.
struct Care {
    world: World,
    flag: PathBuf,
    script: PathBuf,
}

impl Care {
    async fn up(variables: &[(&'static str, &str)]) -> Self {
        let mut world = World::new("care.yaml");
        let (flag, script) = (world.path("flag"), world.path("queue.sh"));
        fs::write(&script, "exec sleep 600\n").unwrap();
        world.set("FLAG", flag.to_str().unwrap());
        world.set("SCRIPT", script.to_str().unwrap());
        for (name, value) in variables {
            world.set(name, *value);
        }
        world.up().await;
        Self { world, flag, script }
    }

    fn flag(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("{}-{name}", self.flag.display()))
    }

    /// Waits until a service is so.
    async fn until(&self, name: &str, is: impl Fn(&ServiceView) -> bool) -> Snapshot {
        let holds = |snapshot: &Snapshot| is(service(snapshot, name)?).then(|| snapshot.clone());
        self.world.until(&format!("`{name}`"), holds).await
    }

    async fn kill(&self, name: &str) {
        let snapshot = self.until(name, |service| service.state == ServiceState::Healthy).await;
        let victim = pid(service(&snapshot, name).unwrap().replicas[0].pid.unwrap());
        kill(victim, Signal::KILL);
        ended(victim).await;
    }
}

fn service<'s>(snapshot: &'s Snapshot, name: &str) -> Option<&'s ServiceView> {
    snapshot.projects.first()?.services.iter().find(|service| service.name == name)
}

fn pids(snapshot: &Snapshot, name: &str) -> Vec<u32> {
    service(snapshot, name).unwrap().replicas.iter().filter_map(|replica| replica.pid).collect()
}

#[tokio::test]
async fn what_needs_a_service_that_is_away_is_left_alone_until_that_is_back() {
    let care = Care::up(&[("REPLICAS", "2")]).await;
    let before = care.until("web", |web| web.state == ServiceState::Healthy).await;
    let start = care.world.last_event().await;
    fs::write(care.flag("store"), "").unwrap();
    let excused = care.world.event(start, "an excuse", |event| event.kind == "replica.excused").await;
    assert!(excused.text.contains("and `store`, which it needs, doesn't serve"), "{}", excused.text);
    care.until("web", |web| web.ready == 0).await;
    fs::remove_file(care.flag("store")).unwrap();
    let after = care.until("web", |web| web.state == ServiceState::Healthy && web.ready == 2).await;
    assert_eq!(pids(&after, "web"), pids(&before, "web"), "nobody was restarted");
    assert_eq!(service(&after, "web").unwrap().restarts, 0);
}

#[tokio::test]
async fn a_place_that_keeps_dying_is_tried_at_once_when_its_file_has_changed() {
    let care = Care::up(&[]).await;
    fs::write(&care.script, "echo no such table; exit 1\n").unwrap();
    care.kill("queue").await;
    let start = care.world.last_event().await;
    care.until("queue", |queue| {
        queue.state == ServiceState::CrashLooping && queue.next_retry_at_ms.is_some()
    })
    .await;
    // Until it waits for so long that it is looked at meanwhile.
    let waits = |queue: &ServiceView| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
        queue.next_retry_at_ms.is_some_and(|at| u128::from(at) > now + 12_000)
    };
    care.until("queue", waits).await;
    // A file is another one only to who has seen it before: it is written until that is so.
    let mending = async {
        loop {
            fs::write(&care.script, "exec sleep 600 # mended\n").unwrap();
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    let changed = tokio::select! {
        changed = care.world.event(start, "a change", |event| event.kind == "replica.changed") => changed,
        () = mending => unreachable!("it goes on for ever"),
    };
    assert!(
        changed.text.contains("queue.sh has changed: `queue` is tried again at once"),
        "{}",
        changed.text
    );
    care.until("queue", |queue| queue.state == ServiceState::Healthy).await;
}

#[tokio::test]
async fn a_spare_replica_takes_over_before_the_dead_one_is_back() {
    let care = Care::up(&[("SPARE", "1"), ("START_MS", "4000")]).await;
    let states =
        |web: &ServiceView| web.replicas.iter().map(|replica| replica.state.clone()).collect::<Vec<_>>();
    let both = |web: &ServiceView| states(web) == ["ready", "spare"];
    let before = care.until("web", both).await;
    assert_eq!(service(&before, "web").unwrap().desired, 1);
    let load = gets(care.world.target());
    answers(&load, 50).await;
    let first = &service(&before, "web").unwrap().replicas[0];
    kill(pid(first.pid.unwrap()), Signal::KILL);
    answers(&load, 100).await;
    let report = load.stop().await;
    perfect(&report);
    assert!(report.max < Duration::from_millis(3500), "{:?}: nobody waits for the app's start", report.max);
    care.until("web", both).await;
}

#[tokio::test]
async fn a_release_that_cannot_be_healed_is_left_for_the_one_before() {
    let mut care = Care::up(&[]).await;
    care.world.set("VERSION", "v2");
    care.world.run(&["deploy"]).await.exits(0);
    fs::write(care.flag("v2"), "").unwrap();
    let start = care.world.last_event().await;
    care.kill("web").await;
    let back = care.world.event(start, "going back", |event| event.kind == "deploy.fall_back").await;
    assert!(
        back.text.contains("`web` of r2 died") && back.text.contains("going back to r1"),
        "{}",
        back.text
    );
    let live = |snapshot: &Snapshot| (snapshot.projects.first()?.live == Some(1)).then_some(());
    care.world.until("the first release", live).await;
    care.until("web", |web| web.state == ServiceState::Healthy).await;
    let load = gets(care.world.target());
    answers(&load, 60).await;
    let report = load.stop().await;
    perfect(&report);
    assert_eq!(report.releases.keys().collect::<Vec<_>>(), ["v1"]);
}
