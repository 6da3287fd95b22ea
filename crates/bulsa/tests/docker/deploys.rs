//! Deploys in a row under load: nobody notices, and nothing is left over.

use std::time::{Duration, Instant};

use crate::{
    shop::{Shop, on_both_engines, on_one_engine},
    support::{
        engine::Engine,
        images, is_long,
        load::{answers, answers_of, at, on_app, perfect},
        network::get,
        project::Project,
        unique, until,
    },
};

/// How many deploys, in the long form and in the short one.
fn deploys() -> usize {
    if is_long() { 20 } else { 3 }
}

/// Deploys again and again, with an app that does this at SIGTERM.
async fn deploys_with(engine: &Engine, on_term: &str) {
    let Some(mut shop) = Shop::up(engine, &[("ON_TERM", on_term)]).await else { return };
    let first = shop.project.objects();
    let loads = [on_app(engine, shop.project.port(), 0).await, on_app(engine, shop.api_port(), 0).await];
    for number in 0..deploys() {
        let version = format!("v{}", number + 2);
        shop.build(&version);
        shop.project.run(&["deploy"]).exits(0);
        loads.iter().for_each(|load| answers_of(load, &version));
        shop.redis_is_untouched();
    }
    loads.iter().for_each(|load| answers(load, 100));
    for load in loads {
        let report = load.stop().await;
        perfect(&report);
        assert_eq!(report.releases.len(), deploys() + 1, "{:?}", report.releases);
    }
    shop.project.well().await;
    // What was warm is gone after a while, and nothing else is there than was at first; names tell the release.
    until("nothing is left over", || (shop.project.objects().len() == first.len()).then_some(()));
    let not_containers = |all: &[String]| -> Vec<String> {
        all.iter().filter(|name| !name.starts_with("container")).cloned().collect()
    };
    assert_eq!(not_containers(&shop.project.objects()), not_containers(&first));
    assert_eq!(shop.apps().len(), 4, "two replicas of two services: {:?}", shop.project.objects());
    shop.redis_is_untouched();
    shop.project.run(&["down"]).exits(0);
    let left = shop.project.objects();
    assert!(left.iter().all(|name| name.starts_with("volume")), "{left:?}");
}

async fn an_app_that_drains_is_deployed_without_a_lost_request(engine: &Engine) {
    deploys_with(engine, "drain").await;
}
on_one_engine!(Installed, an_app_that_drains_is_deployed_without_a_lost_request);

async fn an_app_that_exits_at_once_is_deployed_without_a_lost_request(engine: &Engine) {
    deploys_with(engine, "exit").await;
}
on_both_engines!(an_app_that_exits_at_once_is_deployed_without_a_lost_request);

async fn an_app_that_ignores_sigterm_is_deployed_without_a_lost_request(engine: &Engine) {
    deploys_with(engine, "ignore").await;
}
on_one_engine!(Next, an_app_that_ignores_sigterm_is_deployed_without_a_lost_request);

/// An app that needs two seconds, and nothing else.
const SLOW: &str = r#"
x-bulsa: { keep: { releases: 2, warm: 1s } }
services:
  web:
    image: ${APP}
    deploy: { replicas: 2 }
    ports: ["127.0.0.1:${PORT}:3000"]
    environment: { DEMO_VERSION: "${VERSION:-v1}", DEMO_START_MS: 2000 }
    healthcheck:
      test: ["CMD", "curl", "-f", "http://localhost:3000/health"]
      interval: 1s
    stop_grace_period: 3s
    x-bulsa:
      bake: { time: 1s }
      drain: { requests: 5s, stagger: 1s }
"#;

/// How long such an app alone takes from `docker run` until it is ready.
fn alone(engine: &Engine, app: &str) -> Duration {
    let name = unique("bulsa-test-alone");
    let begun = Instant::now();
    let port = crate::support::network::free_port();
    let published = format!("127.0.0.1:{port}:3000");
    engine.docker(&["run", "-d", "--name", &name, "-p", &published, "-e", "DEMO_START_MS=2000", app]);
    until("the app alone is ready", || {
        let answer = get(engine.namespace(), at(port), "/health").ok()?;
        answer.starts_with("HTTP/1.1 200").then_some(())
    });
    let alone = begun.elapsed();
    engine.docker(&["rm", "--force", &name]);
    alone
}

/// The switch comes at most a second after the app alone would be ready.
async fn the_switch_comes_when_the_app_is_ready(engine: &Engine) {
    let app = images::app().load(engine);
    let mut project = Project::new(engine, SLOW);
    let first = project.image("v1", &app, &[]);
    project.set("APP", first);
    project.up().await;
    let alone = alone(engine, &app);
    let second = project.image("v2", &app, &["ENV BUILT=v2"]);
    project.set("APP", second);
    project.set("VERSION", "v2");
    let load = on_app(engine, project.port(), 0).await;
    let begun = Instant::now();
    let deploy = project.start(&["deploy"]);
    answers_of(&load, "v2");
    let switched = begun.elapsed();
    deploy.end().exits(0);
    perfect(&load.stop().await);
    eprintln!("ready alone after {alone:?}, switched after {switched:?}");
    // On a machine with other work to do a time proves nothing.
    assert!(!is_long() || switched <= alone + Duration::from_secs(1), "{switched:?}, alone {alone:?}");
}
on_both_engines!(the_switch_comes_when_the_app_is_ready);

/// A deploy of what runs already changes nothing, and says so.
async fn a_deploy_of_the_same_is_none(engine: &Engine) {
    let Some(shop) = Shop::up(engine, &[]).await else { return };
    let (before, apps) = (shop.project.well().await, shop.apps());
    // No registry knows its image: that the one of this host was taken instead is said in every manner.
    let taken = "going on with the image on this host";
    shop.project.run(&["deploy"]).exits(0).says(&["nothing has changed", taken]);
    let quiet = shop.project.run(&["deploy", "--quiet"]).exits(0);
    assert!(quiet.err.starts_with("warning: ") && quiet.err.contains(taken), "{}", quiet.said());
    let json = shop.project.run(&["deploy", "--json"]).exits(0);
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert!(
        json["notes"].as_array().unwrap().iter().all(|note| note.as_str().unwrap().contains(taken)),
        "{json}"
    );
    assert!(!json["notes"].as_array().unwrap().is_empty(), "{json}");
    assert_eq!(shop.project.well().await.live, before.live);
    assert_eq!(shop.apps(), apps);
}
on_both_engines!(a_deploy_of_the_same_is_none);

/// A tag that names another image than before is a new release.
async fn a_moved_tag_is_a_new_release(engine: &Engine) {
    let Some(shop) = Shop::up(engine, &[]).await else { return };
    let load = on_app(engine, shop.project.port(), 0).await;
    let before = shop.apps();
    shop.project.image("v1", &shop.app, &["ENV BUILT=again"]);
    shop.project.run(&["deploy"]).exits(0);
    until("new containers", || shop.apps().iter().any(|id| !before.contains(id)).then_some(()));
    answers(&load, 50);
    perfect(&load.stop().await);
    shop.redis_is_untouched();
}
on_both_engines!(a_moved_tag_is_a_new_release);
