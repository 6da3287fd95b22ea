//! What a human does with `docker` is seen and left alone; what happens to a container by itself is repaired.

use std::time::Duration;

use bulsa_core::wire::api::{Event, ProjectView};

use crate::{
    shop::{Shop, on_both_engines},
    support::{
        engine::Engine,
        images,
        load::{answers, good_for, on_app, perfect},
        project::Project,
        until,
    },
};

/// The longest until it is recorded what a human did, and how often that is looked for.
const RECORDED_MAX: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Ready replicas of the web service.
fn ready(project: &ProjectView) -> u32 {
    project.service("web").map_or(0, |service| service.ready)
}

/// Three replicas; to the first one this is done, and it must stay as it is. That Bulsa has had the time to do
/// something is shown by a second replica, which is killed from inside meanwhile, and healed.
async fn is_left_alone(engine: &Engine, words: &[&str], state: &str) {
    let Some(shop) = Shop::up(engine, &[]).await else { return };
    shop.project.run(&["scale", "web=3"]).exits(0);
    let whole = |project: &ProjectView| (ready(project) == 3).then_some(());
    shop.project.until("three replicas", |project, _| whole(project)).await;
    let containers = shop.project.containers("web");
    let (victim, other) = (&containers[0], &containers[1]);
    let load = on_app(engine, shop.project.port(), 0).await;
    engine.docker(&[words, &[victim.as_str()]].concat());
    shop.project.until("two ready replicas", |project, _| (ready(project) == 2).then_some(())).await;
    let name = engine.inspect(victim, "{{.Name}}").trim_start_matches('/').to_owned();

    // A program that ends its own container isn't told how that went.
    engine.try_docker(&["exec", other, "kill", "1"]).ok();
    until("the other one is replaced", || {
        let now = shop.project.containers("web");
        now.iter().any(|id| !containers.contains(id)).then_some(())
    });
    shop.project.until("two ready replicas again", |project, _| (ready(project) == 2).then_some(())).await;
    assert_eq!(
        engine.inspect(victim, "{{.State.Status}}"),
        state,
        "{words:?}: it is not as the human left it"
    );
    let is_told = |event: &Event| {
        let replica = event.replica.as_deref().and_then(|id| id.split('.').next());
        replica.is_some_and(|replica| name.ends_with(replica))
            && event.text.contains(words[0])
            && event.text.contains("by a person")
    };
    // It is recorded once it is clear that nothing else stopped it.
    let recorded = async {
        while !shop.project.events().await.iter().any(is_told) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    let in_time = tokio::time::timeout(RECORDED_MAX, recorded).await;
    assert!(in_time.is_ok(), "`docker {}` is not recorded", words.join(" "));
    good_for(&load, Duration::from_secs(1));
    shop.redis_is_untouched();
}

async fn docker_stop_is_left_alone(engine: &Engine) {
    is_left_alone(engine, &["stop"], "exited").await;
}
on_both_engines!(docker_stop_is_left_alone);

async fn docker_kill_is_left_alone(engine: &Engine) {
    is_left_alone(engine, &["kill"], "exited").await;
}
on_both_engines!(docker_kill_is_left_alone);

async fn docker_pause_is_left_alone(engine: &Engine) {
    is_left_alone(engine, &["pause"], "paused").await;
}
on_both_engines!(docker_pause_is_left_alone);

/// `rm -f` takes the container away, and a kill from inside is a death: both are repaired.
async fn what_is_removed_or_dies_is_replaced(engine: &Engine) {
    let Some(shop) = Shop::up(engine, &[]).await else { return };
    let load = on_app(engine, shop.project.port(), 0).await;
    for act in [["rm", "--force"].as_slice(), &["exec"]] {
        let victim = shop.project.containers("web").remove(0);
        let mut words = act.to_vec();
        words.push(&victim);
        if act == ["exec"] {
            words.extend(["kill", "1"]);
        }
        // A program that kills its own container isn't told how that went.
        engine.try_docker(&words).ok();
        until("it is gone or stopped", || {
            let state = engine.try_docker(&["inspect", "--format", "{{.State.Running}}", &victim]);
            (state.as_deref() != Ok("true")).then_some(())
        });
        shop.project.until("two ready replicas", |project, _| (ready(project) == 2).then_some(())).await;
    }
    let mark = load.mark();
    answers(&load, 100);
    let after = load.window(mark, load.mark());
    perfect(&after);
    shop.redis_is_untouched();
}
on_both_engines!(what_is_removed_or_dies_is_replaced);

const CRASHES: &str = "# A backing service that crashes once it is told to.
services:
  cache:
    image: ${BUSYBOX}
    command: [sh, -c, \"while [ ! -e /flags/crash ]; do sleep 0.1; done; exit 3\"]
    restart: always
    volumes: [flags:/flags]
    x-bulsa: { role: shared }
volumes: { flags: {} }
";

/// Docker starts a backing service again by itself, after a longer wait each time.
async fn every_death_of_what_docker_restarts_is_counted(engine: &Engine) {
    let mut project = Project::new(engine, CRASHES);
    project.set("BUSYBOX", images::busybox().load(engine));
    project.up().await;
    let container = project.containers("cache").remove(0);
    engine.docker(&["exec", &container, "touch", "/flags/crash"]);
    let told = |project: &ProjectView| {
        let cache = project.service("cache").unwrap();
        assert!(!format!("{cache:?}").contains("paused"), "{cache:?}");
        (cache.restarts >= 4).then_some(())
    };
    project.until("four deaths", |project, _| told(project)).await;
    let events = project.events().await;
    let died = events.iter().filter(|event| event.kind == "replica.died");
    assert!(died.clone().any(|event| event.text.contains("crash-looping")), "{events:#?}");
    assert!(died.count() >= 4, "{events:#?}");
    assert_eq!(project.containers("cache"), [container], "its data may be in it");
}
on_both_engines!(every_death_of_what_docker_restarts_is_counted);

const GUEST: &str = "# One service in the network of another.
services:
  host:
    image: ${BUSYBOX}
    command: [sh, -c, \"while :; do sleep 0.2; done\"]
    x-bulsa: { role: worker }
  guest:
    image: ${BUSYBOX}
    command: [sh, -c, \"while :; do sleep 0.2; done\"]
    network_mode: service:host
    depends_on: [host]
    x-bulsa: { role: worker }
";

async fn a_guest_in_the_network_of_a_replaced_container_follows_it(engine: &Engine) {
    let mut project = Project::new(engine, GUEST);
    project.set("BUSYBOX", images::busybox().load(engine));
    project.up().await;
    let host = project.containers("host").remove(0);
    engine.docker(&["rm", "--force", &host]);
    until("the guest is in the new one's network", || {
        let now = project.containers("host").into_iter().find(|id| *id != host)?;
        let guest = project.containers("guest").into_iter().next()?;
        let mode = engine.try_docker(&["inspect", "--format", "{{.HostConfig.NetworkMode}}", &guest]).ok()?;
        (mode == format!("container:{now}")).then_some(())
    });
    project.well().await;
}
on_both_engines!(a_guest_in_the_network_of_a_replaced_container_follows_it);

const BAD_HOOK: &str = "# A container that runs, and whose start fails all the same.
services:
  web:
    image: ${BUSYBOX}
    command: [sh, -c, \"while :; do sleep 0.2; done\"]
    post_start: [{ command: [\"false\"] }]
    x-bulsa: { role: worker, gate: { timeout: 20s } }
";

/// What the failed start made is removed, which the Engine tells as an end, too.
async fn a_failed_start_is_counted_once(engine: &Engine) {
    let mut project = Project::new(engine, BAD_HOOK);
    project.set("BUSYBOX", images::busybox().load(engine));
    project.serve().await;
    let ran = project.run(&["up", "-d"]);
    assert_ne!(ran.code, Some(0), "{ran:?}");
    let events = project.events().await;
    let count = |kind: &str| events.iter().filter(|event| event.kind == kind).count();
    assert!(count("replica.start_failed") >= 3 && count("replica.died") == 0, "{events:#?}");
}
on_both_engines!(a_failed_start_is_counted_once);
