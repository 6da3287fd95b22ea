//! Docker Compose, old and new, sees our containers as its own.

use crate::{
    shop::{Shop, on_both_engines},
    support::{compose::Compose, engine::Engine},
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
