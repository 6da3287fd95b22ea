//! A service that calls another by its Compose name never gets anything but an answer.

use crate::{
    shop::{Shop, on_both_engines},
    support::{engine::Engine, is_long, load::Caller, until},
};

async fn a_service_is_reached_by_name_through_every_deploy(engine: &Engine) {
    for on_term in ["drain", "exit", "ignore"] {
        let Some(mut shop) = Shop::up(engine, &[("ON_TERM", on_term)]).await else { return };
        let network = shop.project.object("default");
        let caller = Caller::start(engine, &shop.app, &network, "api:3000");
        caller.answers(100);
        for number in 0..if is_long() { 20 } else { 2 } {
            let version = format!("v{}", number + 2);
            shop.build(&version);
            shop.project.run(&["deploy"]).exits(0);
            caller.answers(100);
            let releases = caller.report()["releases"].clone();
            assert!(releases.get(&version).is_some(), "inside, {version} never answered: {releases}");
        }
        caller.perfect();
    }
}
on_both_engines!(a_service_is_reached_by_name_through_every_deploy);

const FIXTURE: &str = include_str!("../fixtures/shop.yaml");

/// The anchor that runs is joined to the further network, and keeps its address and its sockets.
async fn a_name_is_served_while_its_service_joins_a_further_network(engine: &Engine) {
    let Some(mut shop) = Shop::up(engine, &[]).await else { return };
    let network = shop.project.object("default");
    let caller = Caller::start(engine, &shop.app, &network, "api:3000");
    caller.answers(50);
    let text = FIXTURE
        .replace("  api:\n", "  api:\n    networks: { default: {}, back: { aliases: [prices] } }\n")
        .replace("volumes:\n  redis-data", "networks: { back: {} }\nvolumes:\n  redis-data");
    shop.project.write("compose.yaml", &text);
    shop.build("v2");
    shop.project.run(&["deploy"]).exits(0);
    caller.answers(50);
    caller.perfect();
    let inside = Caller::start(engine, &shop.app, &shop.project.object("back"), "prices:3000");
    inside.answers(50);
    inside.perfect();
}
on_both_engines!(a_name_is_served_while_its_service_joins_a_further_network);

/// The longest that an anchor is away which somebody killed: less than until the next list of the Engine's.
const AWAY_MAX: std::time::Duration = std::time::Duration::from_secs(4);

/// Docker doesn't start it again after a `docker kill`.
async fn an_anchor_that_is_killed_or_removed_is_there_again_at_once(engine: &Engine) {
    let Some(shop) = Shop::up(engine, &[]).await else { return };
    let project = format!("bulsa.project={}", shop.project.name());
    let anchors = || engine.containers(&[&project, "bulsa.anchor=api"]);
    let caller = Caller::start(engine, &shop.app, &shop.project.object("default"), "api:3000");
    for words in [["kill"].as_slice(), &["rm", "--force"], &["restart"]] {
        let anchor = anchors().remove(0);
        let began = std::time::Instant::now();
        engine.docker(&[words, &[anchor.as_str()]].concat());
        until("it runs", || {
            let id = anchors().into_iter().next()?;
            let state = engine.try_docker(&["inspect", "--format", "{{.State.Running}}", &id]);
            (state.as_deref() == Ok("true")).then_some(())
        });
        assert!(began.elapsed() < AWAY_MAX, "{words:?}: {:?}", began.elapsed());
        let good = || {
            let report = caller.report();
            report["requests"].as_u64().unwrap() - report["failed"].as_u64().unwrap()
        };
        let before = good();
        until("good answers again", || (good() > before + 20).then_some(()));
    }
}
on_both_engines!(an_anchor_that_is_killed_or_removed_is_there_again_at_once);
