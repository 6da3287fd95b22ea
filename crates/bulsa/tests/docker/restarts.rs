//! The Engine itself ends, is killed, and comes back.

use std::time::Duration;

use crate::{
    shop::Shop,
    support::{
        engine::{Engine, Generation},
        load::{Caller, answers_of, good_for, on_app, perfect},
    },
};

/// How the Engine goes away.
#[derive(Clone, Copy, Debug)]
enum Going {
    Ends,
    IsKilled,
}

/// With live-restore containers don't notice, and so do their users.
async fn containers_that_live_on_are_served_all_the_time(generation: Generation) {
    let Some(engine) = Engine::own(generation, true) else { return };
    let Some(mut shop) = Shop::up(&engine, &[]).await else { return };
    let apps = shop.apps();
    let load = on_app(&engine, shop.project.port(), 0).await;
    for going in [Going::Ends, Going::IsKilled] {
        go(&engine, going);
        shop.project.well().await;
    }
    assert_eq!(shop.apps(), apps, "nobody replaced what lived on");
    shop.build("v2");
    shop.project.run(&["deploy"]).exits(0);
    answers_of(&load, "v2");
    perfect(&load.stop().await);
    shop.redis_is_untouched();
}

/// Without it everything stops and comes back, and names work inside before they are needed.
async fn everything_comes_back_after_the_engine(generation: Generation) {
    let Some(engine) = Engine::own(generation, false) else { return };
    let Some(mut shop) = Shop::up(&engine, &[]).await else { return };
    let load = on_app(&engine, shop.project.port(), 0).await;
    go(&engine, Going::Ends);
    shop.project.well().await;
    good_for(&load, Duration::from_secs(2));
    let network = shop.project.object("default");
    let caller = Caller::start(&engine, &shop.app, &network, "api:3000");
    caller.answers(100);
    caller.perfect();
    shop.build("v2");
    shop.project.run(&["deploy"]).exits(0);
    answers_of(&load, "v2");
}

/// A deploy that the Engine leaves in the middle ends one way or the other, and says which.
async fn a_deploy_survives_its_engine(generation: Generation) {
    let Some(engine) = Engine::own(generation, false) else { return };
    let Some(mut shop) = Shop::up(&engine, &[]).await else { return };
    let load = on_app(&engine, shop.project.port(), 0).await;
    shop.build("v2");
    shop.project.set("START_MS", "3000");
    let before = shop.apps().len();
    let deploy = shop.project.start(&["deploy"]);
    crate::support::until("the new release starts", || (shop.apps().len() > before).then_some(()));
    go(&engine, Going::Ends);
    let ran = deploy.end();
    let project = shop.project.well().await;
    good_for(&load, Duration::from_secs(2));
    let live = match ran.code {
        Some(0) => "v2",
        Some(3) => "v1",
        _ => panic!("{}", ran.said()),
    };
    answers_of(&load, live);
    assert!(project.deploying().is_none());
}

fn go(engine: &Engine, going: Going) {
    match going {
        Going::Ends => engine.daemon().end(),
        Going::IsKilled => engine.daemon().kill(),
    }
    engine.daemon().begin();
}

/// Each on both generations.
macro_rules! on_own_engines {
    ($($name:ident),*) => {$(
        mod $name {
            use crate::support::engine::Generation;

            #[tokio::test]
            async fn on_the_installed_engine() {
                super::$name(Generation::Installed).await;
            }

            #[tokio::test]
            async fn on_the_next_engine() {
                super::$name(Generation::Next).await;
            }
        }
    )*};
}
on_own_engines!(
    containers_that_live_on_are_served_all_the_time,
    everything_comes_back_after_the_engine,
    a_deploy_survives_its_engine
);
