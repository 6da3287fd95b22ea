//! A service that calls another by its Compose name never gets anything but an answer.

use crate::{
    shop::{Shop, on_both_engines},
    support::{engine::Engine, is_long, load::Caller},
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
