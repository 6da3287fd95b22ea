//! Load from where the users are, and from inside a project's network, and what must be true of it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use bulsa::load::{Config, Load, LoadHandle, Method, Report, Shot, Sockets};

use crate::support::{
    LIMIT, LOOK_EVERY,
    engine::Engine,
    network::{get, within},
    unique, until,
};

/// The usual load: requests per second.
const RATE: u32 = 100;

/// 100 requests/s to the demo's app behind a published port, a tenth of them slow (300 ms), a fifth of the quick ones
/// POSTs, and so many WebSockets, which are connected when this returns.
pub(crate) async fn on_app(engine: &Engine, port: u16, sockets: u32) -> LoadHandle {
    let shot = |weight, method, path: &str| Shot { weight, method, path: path.to_owned() };
    let mix = vec![
        shot(72, Method::Get, "/"),
        shot(18, Method::Post, "/echo"),
        shot(8, Method::Get, "/slow?ms=300"),
        shot(2, Method::Post, "/echo?ms=300"),
    ];
    let sockets_config = (sockets > 0).then(|| Sockets::new(sockets));
    let config = Config { rate: RATE, mix, sockets: sockets_config, ..Config::to(at(port)) };
    let mut load = start(engine, config);
    assert!(load.connected(sockets as usize, LIMIT).await, "the WebSockets are not connected");
    answers(&load, 50);
    load
}

/// GETs of a path, so many a second.
pub(crate) fn gets(engine: &Engine, port: u16, path: &str, rate: u32) -> LoadHandle {
    start(engine, Config { rate, mix: Shot::only_get(path), ..Config::to(at(port)) })
}

/// A load in the Engine's network.
pub(crate) fn start(engine: &Engine, config: Config) -> LoadHandle {
    within(engine.namespace(), move || Load::start(config).unwrap())
}

/// A published port, as users of the same machine see it.
pub(crate) fn at(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Waits until so many more requests have ended, well or not.
pub(crate) fn answers(load: &LoadHandle, count: u64) {
    let from = load.mark();
    until("the load goes on", || (load.window(from, load.mark()).requests >= count).then_some(()));
}

/// Waits until a good answer of this version comes.
pub(crate) fn answers_of(load: &LoadHandle, version: &str) {
    let from = load.mark();
    until(version, || load.window(from, load.mark()).releases.contains_key(version).then_some(()));
}

/// Not a single request may have failed, and no WebSocket been dropped but politely.
#[track_caller]
pub(crate) fn perfect(report: &Report) {
    assert!(report.requests > 50, "a load of {} requests proves nothing", report.requests);
    assert_eq!(report.failed, 0, "of {}: {:#?}", report.requests, report.failures);
}

/// Waits for the first time without a failure that is this long.
pub(crate) fn good_for(load: &LoadHandle, time: Duration) {
    let end = Instant::now() + LIMIT;
    let mut from = load.mark();
    loop {
        let report = load.window(from, load.mark());
        if report.failed > 0 {
            from = load.mark();
        } else if load.mark().since(from) >= time && report.requests > 0 {
            return;
        }
        assert!(Instant::now() < end, "requests go on failing: {:#?}", report.failures.last());
        std::thread::sleep(LOOK_EVERY);
    }
}

/// A container in a project's network, which calls a service by its name all the time. Removed when dropped.
pub(crate) struct Caller<'a> {
    engine: &'a Engine,
    name: String,
}

impl<'a> Caller<'a> {
    /// 100 requests/s to `target` (`api:3000`), a tenth of them slow; the name is looked up for each connection.
    pub(crate) fn start(engine: &'a Engine, app: &str, network: &str, target: &str) -> Self {
        let this = Self { engine, name: unique("bulsa-test-caller") };
        let load = format!("DEMO_LOAD={target}");
        let words = ["run", "--detach", "--name", &this.name, "--network", network, "--env", &load, app];
        engine.docker(&words);
        until("the caller answers", || {
            this.answer("/health").filter(|answer| answer.starts_with("HTTP/1.1 200"))
        });
        this
    }

    fn answer(&self, path: &str) -> Option<String> {
        let template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        let address = self.engine.inspect(&self.name, template).parse::<Ipv4Addr>().ok()?;
        get(self.engine.namespace(), SocketAddr::from((address, 3000)), path).ok()
    }

    /// What became of its requests so far: `requests`, `failed`, `failures` …, as [`Report`] in JSON.
    pub(crate) fn report(&self) -> serde_json::Value {
        let answer = until("the caller's report", || self.answer("/load"));
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    /// Waits until so many more requests have ended, well or not.
    pub(crate) fn answers(&self, count: u64) {
        let from = self.report()["requests"].as_u64().unwrap();
        let goes_on = || (self.report()["requests"].as_u64().unwrap() >= from + count).then_some(());
        until("the load inside goes on", goes_on);
    }

    /// Not a single one may have failed.
    #[track_caller]
    pub(crate) fn perfect(&self) {
        let report = self.report();
        assert!(
            report["requests"].as_u64().unwrap() > 50,
            "a load of so few requests proves nothing: {report}"
        );
        assert_eq!(report["failed"], 0, "of {}: {:#}", report["requests"], report["failures"]);
    }
}

impl Drop for Caller<'_> {
    fn drop(&mut self) {
        self.engine.try_docker(&["rm", "--force", &self.name]).ok();
    }
}
