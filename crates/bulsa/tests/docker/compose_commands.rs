//! Docker Compose, old and new, sees our containers as its own.

use bulsa_core::wire::api::ProjectView;

use crate::{
    shop::{Shop, on_both_engines},
    support::{
        compose::Compose,
        engine::Engine,
        load::{answers, on_app, perfect},
    },
};

async fn compose_shows_our_containers_their_logs_and_enters_them(engine: &Engine) {
    let Some(shop) = Shop::up(engine, &[]).await else { return };
    for compose in [Compose::first(), Compose::second()].into_iter().flatten() {
        let run = |words: &[&str]| compose.run(&shop.project, words).exits(0);
        run(&["ps"]).says(&["web", "api", "redis", "worker"]);
        let mut listed: Vec<_> = run(&["ps", "-q", "web"]).out.lines().map(str::to_owned).collect();
        listed.sort();
        let mut ours = shop.project.containers("web");
        ours.sort();
        assert_eq!(listed, ours, "{compose:?}");
        run(&["logs", "--no-color", "web"]).says(&["listens on"]);
        run(&["exec", "-T", "web", "bulsa", "--version"]).says(&["bulsa"]);
        run(&["exec", "-T", "redis", "redis-cli", "ping"]).says(&["PONG"]);
    }
}
on_both_engines!(compose_shows_our_containers_their_logs_and_enters_them);

/// Compose stops ours, fails at the port, and goes: what it stopped is no human's wish.
async fn what_compose_makes_anew_is_back(engine: &Engine) {
    for compose in [Compose::first(), Compose::second()].into_iter().flatten() {
        let Some(shop) = Shop::up(engine, &[]).await else { return };
        // 1.29 knows no default with a variable in it.
        let text = include_str!("../fixtures/shop.yaml").replace("${API:-${APP}}", "${APP}");
        shop.project.write("compose.yaml", &text);
        let before = shop.apps();
        let load = on_app(engine, shop.project.port(), 0).await;
        let ran = compose.run(&shop.project, &["up", "-d"]);
        let whole = |project: &ProjectView| {
            let is_ready = |name| project.service(name).is_some_and(|service| service.ready == 2);
            (is_ready("web") && is_ready("api")).then_some(())
        };
        let ours = |service: &str| {
            let label = format!("com.docker.compose.service={service}");
            let project = format!("bulsa.project={}", shop.project.name());
            engine.containers(&[&project, &label])
        };
        let replaced = "all are ready, and Compose has stopped at least one";
        shop.project
            .until(replaced, |project, _| {
                let now = [ours("web"), ours("api")].concat();
                (before.iter().any(|id| !now.contains(id)) && whole(project).is_some()).then_some(())
            })
            .await;
        let mark = load.mark();
        answers(&load, 200);
        perfect(&load.window(mark, load.mark()));
        let events = shop.project.events().await;
        let has = |kind: &str| events.iter().any(|event| event.kind == kind);
        // 1.29 can't read what newer Engines say of images: there it stops ours, and makes none of its own.
        let made_none = ran.err.contains("'ContainerConfig'");
        assert!(has("compose.beside") || made_none, "{compose:?}: {ran:?} {events:#?}");
        assert!(!has("replica.taken_away"), "{compose:?}: {ran:?} {events:#?}");
    }
}
on_both_engines!(what_compose_makes_anew_is_back);
