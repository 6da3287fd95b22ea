//! A service that calls another by its Compose name never gets anything but an answer.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
};

use crate::{
    shop::{Shop, on_both_engines, on_one_engine},
    support::{
        engine::Engine,
        images::{self, Image},
        is_long,
        load::Caller,
        network::get,
        project::Project,
        until,
    },
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
on_one_engine!(Next, a_service_is_reached_by_name_through_every_deploy);

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
on_one_engine!(Installed, a_name_is_served_while_its_service_joins_a_further_network);

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

/// One app that only others of its project call, and a job that ends once a file is there: its release's gate waits.
const CALLED: &str = r#"
x-bulsa: { keep: { warm: "${WARM}" } }
services:
  api:
    image: ${APP}
    expose: [EXPOSE]
    deploy: { replicas: 2 }
    environment: { DEMO_VERSION: "${VERSION:-v1}", DEMO_BROKEN: "${BROKEN:-0}" }
    stop_grace_period: 3s
    x-bulsa:
      role: app
      probe: { path: /health, port: 3000, interval: 1s }
      gate: { timeout: 5s }
      bake: { time: "${BAKE:-1s}" }
  flag:
    image: ${BUSYBOX}
    command: ["sh", "-c", "until [ -e /flag/up ]; do sleep 0.1; done"]
    volumes: ["${FLAG}:/flag"]
    restart: "no"
    x-bulsa: { role: job }
networks: { default: { NETWORK } }
"#;

/// The project of [`CALLED`].
struct Called<'a> {
    project: Project<'a>,
    app: String,
    flag: tempfile::TempDir,
}

impl<'a> Called<'a> {
    /// Brings it up with these ports in `expose`, and with these lines for its network.
    async fn up(engine: &'a Engine, expose: &str, network: &str) -> Self {
        let flag = tempfile::tempdir().unwrap();
        let mut project = Project::new(engine, &text(expose, network));
        // Nobody knows its ports but the file.
        let mut app = Image { name: "silent", ..images::app() };
        app.config.retain(|line| !line.starts_with("EXPOSE"));
        let app = app.load(engine);
        project.set("BUSYBOX", images::busybox().load(engine));
        project.set("FLAG", flag.path().display().to_string());
        project.set("WARM", "10m");
        let image = project.image("v1", &app, &[]);
        project.set("APP", image);
        let mut this = Self { project, app, flag };
        this.raise(true);
        this.project.up().await;
        this
    }

    /// Lets jobs end, or not.
    fn raise(&self, up: bool) {
        let file = self.flag.path().join("up");
        match up {
            true => std::fs::write(file, "").unwrap(),
            false => std::fs::remove_file(file).unwrap(),
        }
    }

    /// The next deploy is of another version, with these ports.
    fn change(&mut self, version: &str, expose: &str) {
        let image = self.project.image(version, &self.app, &[&format!("ENV BUILT={version}")]);
        self.project.set("APP", image);
        self.project.set("VERSION", version);
        self.project.write("compose.yaml", &text(expose, ""));
    }

    fn caller(&self) -> Caller<'a> {
        Caller::start(self.project.engine, &self.app, &self.project.object("default"), "api:3000")
    }

    fn anchors(&self) -> Vec<String> {
        let project = format!("bulsa.project={}", self.project.name());
        self.project.engine.containers(&[&project, "bulsa.anchor=api"])
    }

    /// Whether a container of it answers at this address of its own.
    fn answers(&self, container: &str, address: &str) -> bool {
        let template = format!("{{{{range .NetworkSettings.Networks}}}}{{{{.{address}}}}}{{{{end}}}}");
        let address = self.project.engine.try_docker(&["inspect", "--format", &template, container]);
        let Some(at) = address.ok().and_then(|text| text.parse::<IpAddr>().ok()) else { return false };
        let answer = get(self.project.engine.namespace(), SocketAddr::new(at, 3000), "/health");
        answer.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }
}

fn text(expose: &str, network: &str) -> String {
    CALLED.replace("EXPOSE", expose).replace("NETWORK", network)
}

/// Its replicas carry the name until the switch, and those of the old release as long as they run.
async fn a_name_goes_from_replicas_to_their_first_anchor_without_a_lost_request(engine: &Engine) {
    let mut called = Called::up(engine, "", "").await;
    assert_eq!(called.anchors(), [""; 0]);
    let caller = called.caller();
    caller.answers(50);
    called.change("v2", r#""3000""#);
    called.project.set("BROKEN", "1");
    called.project.run(&["deploy"]).exits(3);
    until("its anchor is gone", || called.anchors().is_empty().then_some(()));
    caller.answers(50);
    caller.perfect();

    called.project.set("BROKEN", "0");
    called.change("v3", r#""3000""#);
    called.project.run(&["deploy"]).exits(0);
    until("the name leads to the anchor, too", || answered(&caller, "v3").then_some(()));
    caller.answers(100);
    assert_eq!(called.project.containers("api").len(), 4, "the old ones run on, and have the name, too");
    assert!(!answered(&caller, "v2"), "what never passed its gate answered");
    caller.perfect();
}
on_both_engines!(a_name_goes_from_replicas_to_their_first_anchor_without_a_lost_request);

/// Whether this version has answered.
fn answered(caller: &Caller<'_>, version: &str) -> bool {
    caller.report()["releases"].get(version).is_some()
}

/// Where a container is in its only network.
const ADDRESS: &str = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";

/// A port that an anchor can't carry: the new replicas carry the name themselves, and the anchor leads to them for those
/// who remember it, as long as its own release is warm.
async fn a_name_goes_from_its_anchor_to_the_replicas_without_a_lost_request(engine: &Engine) {
    let mut called = Called::up(engine, r#""3000""#, "").await;
    let anchor = called.anchors().remove(0);
    called.raise(false);
    called.change("v2", r#""3000", "5353/udp""#);
    let deploy = called.project.start(&["deploy"]);
    until("the new replicas answer", || {
        let all = called.project.containers("api");
        (all.len() == 4 && all.iter().all(|one| called.answers(one, "IPAddress"))).then_some(())
    });
    let caller = called.caller();
    until("both releases answer", || (answered(&caller, "v1") && answered(&caller, "v2")).then_some(()));
    let target = format!("{}:3000", engine.inspect(&anchor, ADDRESS));
    let remembers = Caller::start(engine, &called.app, &called.project.object("default"), &target);
    remembers.answers(20);
    called.raise(true);
    until("the anchor leads to the new ones", || answered(&remembers, "v2").then_some(()));
    until("the anchor has no name", || {
        let names = engine.inspect(&anchor, "{{range .NetworkSettings.Networks}}{{.Aliases}}{{end}}");
        (!names.contains("api")).then_some(())
    });
    deploy.end().exits(0);
    remembers.answers(50);
    remembers.perfect();
    caller.perfect();
}
on_both_engines!(a_name_goes_from_its_anchor_to_the_replicas_without_a_lost_request);

/// A network with IPv6 gives an anchor an address of each family, and Docker's DNS answers with both.
async fn a_name_is_served_over_both_families(engine: &Engine) {
    if !Path::new("/proc/net/if_inet6").exists() {
        eprintln!("skipped: the kernel has no IPv6");
        return;
    }
    let id = std::process::id();
    let subnet = format!("fd6c:{:x}:{:x}::/64", id >> 16, id & 0xffff);
    let network = format!("enable_ipv6: true, ipam: {{ config: [{{ subnet: \"{subnet}\" }}] }}");
    let called = Called::up(engine, r#""3000""#, &network).await;
    let anchor = called.anchors().remove(0);
    for family in ["IPAddress", "GlobalIPv6Address"] {
        until(family, || called.answers(&anchor, family).then_some(()));
    }
}
on_both_engines!(a_name_is_served_over_both_families);
