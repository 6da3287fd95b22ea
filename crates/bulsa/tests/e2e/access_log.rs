//! The access log, over the deaths of those who write it and of the one who keeps its file.

use std::{collections::BTreeMap, fs, path::PathBuf};

use rustix::process::Signal;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep},
};

use crate::world::{LIMIT, LOOK_EVERY, World, ended, kill, pid};

/// A daemon whose one service has a log, and what was asked of it.
struct Logged {
    world: World,
    asked: u32,
}

impl Logged {
    /// Sends so many requests, one after the other, each to a path of its own.
    async fn ask(&mut self, count: u32) {
        for _ in 0..count {
            self.asked += 1;
            let mut stream = TcpStream::connect(self.world.target()).await.unwrap();
            let request = format!(
                "GET /?n={} HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: \"e2e\"\r\nConnection: close\r\n\r\n",
                self.asked
            );
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 "), "{answer}");
        }
    }

    fn file(&self) -> PathBuf {
        self.world.state_dir().join("logs/access.log")
    }

    /// Waits until the file has so many lines, and looks at each of them.
    async fn has(&self, count: u32) {
        let end = Instant::now() + LIMIT;
        let lines = loop {
            let text = fs::read_to_string(self.file()).unwrap_or_default();
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            if lines.len() >= count as usize || end < Instant::now() {
                break lines;
            }
            sleep(LOOK_EVERY).await;
        };
        let mut paths: BTreeMap<&str, u32> = BTreeMap::new();
        for line in &lines {
            let words: Vec<&str> = line.split(' ').collect();
            let [
                address,
                "-",
                "-",
                _,
                "+0000]",
                "\"GET",
                path,
                "HTTP/1.1\"",
                status,
                bytes,
                "\"-\"",
                r#""\x22e2e\x22""#,
                id,
                target,
                took,
            ] = words[..]
            else {
                panic!("{line}");
            };
            assert_eq!((address, status, id.len()), ("127.0.0.1", "200", 32), "{line}");
            assert!(
                target.starts_with("web/") && bytes.parse::<u64>().is_ok_and(|bytes| bytes > 0),
                "{line}"
            );
            assert!(took.parse::<f64>().is_ok(), "{line}");
            *paths.entry(path).or_default() += 1;
        }
        assert!(paths.values().all(|count| *count == 1), "{paths:?}");
        assert_eq!(lines.len(), count as usize, "{}\n{}", lines.join("\n"), self.world.daemon_log());
    }
}

#[tokio::test]
async fn each_request_has_its_line_whoever_is_killed_between_them() {
    let world = World::web(&[("ACCESS_LOG", "true")]).await;
    let before = world.well("web").await;
    let mut logged = Logged { world, asked: 0 };
    logged.ask(20).await;
    logged.has(20).await;

    let (agent, proxy) = (pid(before.agent.pid), pid(before.proxies[0].pid));
    kill(agent, Signal::KILL);
    ended(agent).await;
    // Nobody keeps the file now, and the proxy writes on.
    logged.ask(20).await;
    logged.has(40).await;
    logged.world.until("another agent", |s| (pid(s.agent.pid) != agent).then_some(())).await;
    logged.ask(20).await;
    logged.has(60).await;

    kill(proxy, Signal::KILL);
    ended(proxy).await;
    // The next one begins to serve before it has the file.
    logged.ask(20).await;
    logged.has(80).await;

    let both = logged.world.well("web").await;
    let (agent, proxy) = (pid(both.agent.pid), pid(both.proxies[0].pid));
    kill(agent, Signal::KILL);
    kill(proxy, Signal::KILL);
    ended(agent).await;
    ended(proxy).await;
    logged.ask(20).await;
    logged.has(100).await;
    let after = logged.world.well("web").await;
    assert_eq!(after.proxies[0].access_log_dropped, 0);
}

#[tokio::test]
async fn a_log_that_is_moved_away_is_begun_anew_and_one_that_is_off_is_not_written() {
    let world = World::web(&[("ACCESS_LOG", "true"), ("BAKE", "200ms")]).await;
    world.well("web").await;
    let mut logged = Logged { world, asked: 0 };
    logged.ask(10).await;
    logged.has(10).await;
    fs::rename(logged.file(), logged.world.path("moved")).unwrap();
    let end = Instant::now() + LIMIT;
    while !logged.file().exists() {
        assert!(Instant::now() < end, "no other file\n{}", logged.world.daemon_log());
        sleep(LOOK_EVERY).await;
    }
    // Every proxy is given it right then; what comes in that moment is in the one or in the other.
    logged.ask(1).await;
    let moved = || fs::read_to_string(logged.world.path("moved")).unwrap().lines().count();
    let there = || fs::read_to_string(logged.file()).unwrap_or_default().lines().count();
    while moved() + there() < 11 {
        sleep(LOOK_EVERY).await;
    }
    let begun = u32::try_from(there()).unwrap();
    logged.ask(10).await;
    logged.has(begun + 10).await;

    for (log, version, lines) in [("false", "v2", 10), ("true", "v3", 20)] {
        logged.world.set("ACCESS_LOG", log);
        logged.world.set("VERSION", version);
        logged.world.run(&["deploy"]).await.exits(0);
        logged.ask(10).await;
        logged.has(begun + lines).await;
    }
}

#[tokio::test]
async fn the_last_lines_are_written_before_a_daemon_ends() {
    let mut world = World::new("web.yaml");
    world.set("ACCESS_LOG", "true");
    world.serve().await;
    world.up().await;
    let keeper = pid(world.well("web").await.keeper_pid);
    let mut logged = Logged { world, asked: 0 };
    logged.ask(30).await;
    kill(keeper, Signal::TERM);
    assert_eq!(logged.world.served().await, Some(0), "{}", logged.world.daemon_log());
    logged.has(30).await;
}
