//! What a human does with `docker` is seen and left alone; what happens to a container by itself is repaired.

use bulsa_core::wire::api::ProjectView;

use crate::{
    shop::{Shop, on_both_engines},
    support::{
        engine::Engine,
        load::{answers, good_for, on_app, perfect},
        until,
    },
};

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
    let events = shop.project.events().await;
    let is_told = events.iter().any(|event| {
        let replica = event.replica.as_deref().and_then(|id| id.split('.').next());
        replica.is_some_and(|replica| name.ends_with(replica))
            && event.text.contains(words[0])
            && event.text.contains("by a person")
    });
    assert!(is_told, "`docker {}` is not recorded: {events:#?}", words.join(" "));
    good_for(&load, std::time::Duration::from_secs(1));
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
