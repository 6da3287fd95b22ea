//! The commands that go on: `logs -f`, `events --follow`, `up` without `-d`.

use std::{process::Stdio, time::Duration};

use rustix::process::Signal;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStderr, ChildStdout},
    time::timeout,
};

use crate::{
    watch::only,
    world::{LIMIT, World, ended, is_closed, kill, pid},
};

/// A command whose output is read as it comes.
struct Followed {
    child: Child,
    out: Lines<BufReader<ChildStdout>>,
    err: Lines<BufReader<ChildStderr>>,
}

impl Followed {
    fn start(world: &World, arguments: &[&str]) -> Self {
        let mut command = world.command(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap()).lines();
        let err = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, out, err }
    }

    /// Reads standard output up to a line with `text` in it.
    async fn says(&mut self, text: &str) -> String {
        let found = async {
            while let Some(line) = self.out.next_line().await.unwrap() {
                if line.contains(text) {
                    return line;
                }
            }
            panic!("it ended without `{text}`");
        };
        timeout(LIMIT, found).await.unwrap_or_else(|_| panic!("it never says `{text}`"))
    }

    /// Reads standard error up to a line with `text` in it.
    async fn remarks(&mut self, text: &str) {
        let found = async {
            while let Some(line) = self.err.next_line().await.unwrap() {
                if line.contains(text) {
                    return;
                }
            }
            panic!("it ended without `{text}`");
        };
        timeout(LIMIT, found).await.unwrap_or_else(|_| panic!("it never says `{text}`"));
    }

    /// Fails the test where it does not end, or with another exit code.
    async fn ends(mut self, code: i32) {
        let status = timeout(LIMIT, self.child.wait()).await.expect("it ends").unwrap();
        let mut said = Vec::new();
        while let Some(line) = self.err.next_line().await.unwrap() {
            said.push(line);
        }
        assert_eq!(status.code(), Some(code), "{said:#?}");
    }
}

#[tokio::test]
async fn logs_and_events_are_followed_over_deaths_of_the_agent_until_the_project_is_gone() {
    let world = World::web(&[]).await;
    let before = world.well("web").await;
    let mut logs = Followed::start(&world, &["logs", "-f"]);
    let mut events = Followed::start(&world, &["events", "--follow", "--json"]);
    logs.says("web-r1-1.1").await;
    events.says("deploy.finished").await;

    let victims = &only(&before).1.replicas;
    kill(pid(victims[0].pid.unwrap()), Signal::KILL);
    events.says("replica.died").await;
    let new = &only(&world.well("web").await).1.replicas[0].id.clone();
    logs.says(new).await;
    events.says("replica.ready").await;

    // What happens while no agent lives is told by the next one.
    kill(pid(before.agent.pid), Signal::KILL);
    ended(pid(before.agent.pid)).await;
    kill(pid(victims[1].pid.unwrap()), Signal::KILL);
    let died = events.says("replica.died").await;
    assert!(died.contains(&victims[1].id), "{died}");
    events.says("replica.ready").await;

    world.run(&["down"]).await.exits(0);
    events.says("project.gone").await;
    logs.ends(0).await;
}

#[tokio::test]
async fn an_attached_up_that_started_the_daemon_ends_it_at_ctrl_c() {
    let world = World::new("web.yaml");
    let mut up = Followed::start(&world, &["up"]);
    up.remarks("Ctrl-C stops everything").await;
    let before = world.well("web").await;
    kill(pid(up.child.id().unwrap()), Signal::INT);
    up.ends(0).await;
    ended(pid(before.keeper_pid)).await;
    assert!(is_closed(world.target()));
    world.run(&["status"]).await.exits(5);
}

/// The daemon that it started ends only where nothing serves.
#[tokio::test]
async fn an_attached_up_whose_deploy_fails_leaves_what_serves() {
    let mut world = World::new("web.yaml");
    let broken = [("VERSION", "v2"), ("BROKEN", "1"), ("GATE", "1500ms")];
    broken.iter().for_each(|(name, value)| world.set(name, *value));
    let mut up = Followed::start(&world, &["up"]);
    up.remarks("stopping the daemon that this command started").await;
    up.ends(7).await;
    world.run(&["status"]).await.exits(5);

    [("VERSION", "v1"), ("BROKEN", "0"), ("GATE", "20s")]
        .iter()
        .for_each(|(name, value)| world.set(name, *value));
    world.up().await;
    let before = world.well("web").await;
    kill(pid(before.keeper_pid), Signal::TERM);
    ended(pid(before.keeper_pid)).await;
    assert!(is_closed(world.target()));

    // The release before it comes back with the daemon, and is what serves in the end.
    broken.iter().for_each(|(name, value)| world.set(name, *value));
    let mut up = Followed::start(&world, &["up"]);
    up.remarks("goes on with `web`: `bulsa down -p NAME` stops a project").await;
    up.ends(3).await;
    let after = world.well("web").await;
    assert_eq!(only(&after).0.live, only(&before).0.live);
    assert!(!is_closed(world.target()));
}

#[tokio::test]
async fn an_attached_up_on_a_running_daemon_only_detaches_at_ctrl_c() {
    let world = World::web(&[]).await;
    let before = world.well("web").await;
    let mut up = Followed::start(&world, &["up"]);
    up.remarks("Ctrl-C leaves it running").await;
    kill(pid(up.child.id().unwrap()), Signal::INT);
    up.ends(0).await;
    assert_eq!(world.well("web").await.projects, before.projects);
    // Long enough for a daemon that was wrongly told to end.
    let gone = timeout(Duration::from_millis(300), ended(pid(before.keeper_pid))).await;
    assert!(gone.is_err(), "the daemon ended");
}
