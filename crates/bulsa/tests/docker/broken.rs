//! Releases that are not fit to serve: users see nothing of them, and whoever deploys is told why.

use crate::{
    shop::{Shop, on_one_engine},
    support::{
        engine::Engine,
        load::{answers, good_for, on_app, perfect},
    },
};

/// A way to be broken: what is set, what is said, and whether it shows only after the switch.
struct Broken {
    what: &'static str,
    set: &'static [(&'static str, &'static str)],
    /// Instead of the usual image: lines on top of it.
    image: Option<&'static [&'static str]>,
    says: &'static [&'static str],
    after_the_switch: bool,
}

const fn before(
    what: &'static str,
    set: &'static [(&'static str, &'static str)],
    says: &'static [&'static str],
) -> Broken {
    Broken { what, set, image: None, says, after_the_switch: false }
}

const EXEC_FORMAT: &[&str] =
    &["RUN printf 'no program' >/usr/bin/broken && chmod 755 /usr/bin/broken", r#"CMD ["/usr/bin/broken"]"#];

const TABLE: &[Broken] = &[
    before("image missing", &[("APP", "bulsa-test/nowhere:1")], &["bulsa-test/nowhere:1"]),
    before(
        "never healthy",
        &[("BROKEN", "1"), ("GATE", "5s")],
        &["did not become healthy", "500", "listens on"],
    ),
    before("one of two services broken", &[("API_BROKEN", "1"), ("GATE", "5s")], &["api", "500"]),
    before("port never opened", &[("START_MS", "600000"), ("GATE", "5s")], &["did not become healthy"]),
    before("migration fails", &[("MIGRATE", "echo no such table; exit 3")], &["migrate", "no such table"]),
    Broken {
        what: "exec format error",
        set: &[],
        image: Some(EXEC_FORMAT),
        says: &["exec format error"],
        after_the_switch: false,
    },
    Broken {
        what: "healthy, then crashing within the bake",
        set: &[("CRASH_MS", "300"), ("BAKE", "10s")],
        image: None,
        says: &["rolled back"],
        after_the_switch: true,
    },
];

async fn a_broken_release_is_undone_and_exits_3(engine: &Engine) {
    for broken in TABLE {
        let Some(mut shop) = Shop::up(engine, &[]).await else { return };
        eprintln!("{}", broken.what);
        let (before, live) = (shop.apps(), shop.project.well().await.live);
        let load = on_app(engine, shop.project.port(), 0).await;
        shop.build("v2");
        if let Some(lines) = broken.image {
            let image = shop.project.image("broken", &shop.app, lines);
            shop.project.set("APP", image);
        }
        broken.set.iter().for_each(|(name, value)| shop.project.set(name, *value));
        shop.project.run(&["deploy"]).exits(3).says(broken.says);

        assert_eq!(shop.project.well().await.live, live, "{}", broken.what);
        let after = shop.apps();
        assert!(before.iter().all(|id| after.contains(id)), "{}: the old replicas went on", broken.what);
        shop.redis_is_untouched();
        if broken.after_the_switch {
            good_for(&load, std::time::Duration::from_secs(1));
        } else {
            answers(&load, 50);
            let report = load.stop().await;
            perfect(&report);
            assert_eq!(report.releases.keys().collect::<Vec<_>>(), ["v1"], "{}", broken.what);
        }
    }
}
on_one_engine!(Next, a_broken_release_is_undone_and_exits_3);
