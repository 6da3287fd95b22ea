//! `bulsa run` as the first process of a container: `ENTRYPOINT ["bulsa", "run", "--workers", "2", "--"]`, with what every
//! container has and nothing more: Docker's own capabilities and seccomp profile, no init, no terminal.

use std::time::{Duration, Instant};

use crate::{
    shop::{on_both_engines, on_one_engine},
    support::{
        engine::Engine,
        images,
        load::{answers, at, good_for, on_app, perfect},
        network::{free_port, get},
        unique, until,
    },
};

/// `docker stop` kills after 10 s; what ends by itself ends before, also on a busy machine.
const STOPPED_MAX: Duration = Duration::from_secs(9);

/// A container, removed when dropped.
struct Container<'a> {
    engine: &'a Engine,
    name: String,
}

impl<'a> Container<'a> {
    /// `docker run OPTIONS IMAGE WORDS`, of the image with Bulsa and a shell.
    fn run(engine: &'a Engine, options: &[&str], words: &[&str]) -> Self {
        let image = images::app().load(engine);
        let name = unique("bulsa-test-init");
        let this = Self { engine, name };
        let first = ["run", "--detach", "--name", &this.name, "--entrypoint", "bulsa"];
        engine.docker(&[&first, options, &[&image, "run"], words].concat());
        this
    }

    /// A shell as the only worker.
    fn shell(engine: &'a Engine, options: &[&str], words: &[&str], script: &str) -> Self {
        Self::run(engine, options, &[words, &["--no-port", "--", "sh", "-c", script]].concat())
    }

    fn exec(&self, words: &[&str]) -> String {
        self.engine.docker(&[&["exec", &self.name], words].concat())
    }

    /// Everything that it wrote, on both streams.
    fn logs(&self) -> String {
        let ran = self.engine.run(&["logs", &self.name]);
        format!("{}{}", ran.out, ran.err)
    }

    #[track_caller]
    fn says(&self, text: &str) {
        until(&format!("it says `{text}`"), || self.logs().contains(text).then_some(()));
    }

    /// Processes in it, as `(pid, parent, state, command)`, without the one that looks.
    fn processes(&self) -> Vec<(u32, u32, String, String)> {
        let all = self.exec(&["ps", "-o", "pid,ppid,stat,args"]);
        let lines = all.lines().skip(1).filter_map(|line| {
            let mut words = line.split_whitespace();
            let (pid, parent) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            Some((pid, parent, words.next()?.to_owned(), words.collect::<Vec<_>>().join(" ")))
        });
        lines.filter(|(_, _, _, command)| !command.contains("ps -o pid")).collect()
    }

    /// Those whose command begins so; of what is left of the path of a program only its name counts.
    fn pids(&self, command: &str) -> Vec<u32> {
        let all = self.processes().into_iter();
        let found = all.filter(|(_, _, _, line)| {
            // `{name} ` stands in front where a process has given itself one.
            let line = line.split_once("} ").map_or(line.as_str(), |(_, line)| line);
            line.starts_with(command) || line.starts_with(&format!("/usr/bin/{command}"))
        });
        found.map(|process| process.0).collect()
    }

    /// Waits until one process with this command runs that is none of these.
    fn another(&self, command: &str, than: &[u32]) -> u32 {
        until(&format!("another `{command}`"), || {
            self.pids(command).into_iter().find(|pid| !than.contains(pid))
        })
    }

    fn kill(&self, pid: u32) {
        self.exec(&["kill", "-9", &pid.to_string()]);
    }

    /// `docker stop`: its exit code.
    fn stop(&self) -> String {
        let begun = Instant::now();
        self.engine.docker(&["stop", &self.name]);
        let took = begun.elapsed();
        assert!(took < STOPPED_MAX, "it was killed: {took:?}\n{}", self.logs());
        self.engine.inspect(&self.name, "{{.State.ExitCode}}")
    }

    /// The exit code of one that ends by itself.
    fn ends(&self) -> String {
        until("it ends", || (self.engine.inspect(&self.name, "{{.State.Running}}") == "false").then_some(()));
        self.engine.inspect(&self.name, "{{.State.ExitCode}}")
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{} wrote:\n{}", self.name, self.logs());
        }
        self.engine.try_docker(&["rm", "--force", "--volumes", &self.name]).ok();
    }
}

/// The commands of its parts.
const WORKER: &str = "bulsa __demo-app";
const AGENT: &str = "/proc/self/exe __agent";
const PROXY: &str = "/proc/self/exe __proxy";
const ATTENDANT: &str = "bulsa run --workers";

/// Nothing but memory can be written, and nobody is root.
async fn a_cluster_in_a_container_outlives_whoever_is_killed_in_it(engine: &Engine) {
    let port = free_port();
    let publish = format!("{port}:3000");
    let options = ["--read-only", "--user", "1000", "--publish", &publish];
    let container = Container::run(engine, &options, &["--workers", "2", "--", "bulsa", "__demo-app"]);
    until("it answers", || {
        get(engine.namespace(), at(port), "/").ok().filter(|said| said.contains("200 OK"))
    });
    container.says("showing logs");
    let load = on_app(engine, port, 0).await;
    // What can't be asked for twice, and was under way in the one that is killed, is lost.
    let before = container.pids(WORKER);
    assert_eq!(before.len(), 2, "{:?}", container.processes());
    container.kill(before[0]);
    until("it is replaced, and the other one is not", || {
        let now = container.pids(WORKER);
        (now.len() == 2 && !now.contains(&before[0]) && now.contains(&before[1])).then_some(())
    });
    good_for(&load, Duration::from_secs(1));

    let mark = load.mark();
    for part in [AGENT, ATTENDANT] {
        let before = container.pids(part);
        container.kill(before[0]);
        container.another(part, &before);
        answers(&load, 50);
    }
    perfect(&load.window(mark, load.mark()));
    let before = container.pids(PROXY);
    container.kill(before[0]);
    container.another(PROXY, &before);
    good_for(&load, Duration::from_secs(1));
    // Nobody in a container can kill its first process.
    container.kill(1);
    assert!(
        container.exec(&["bulsa", "status"]).contains("2/2"),
        "commands find the daemon that is process 1"
    );

    // A child of a child, whose parents are gone, in a session of its own.
    container.exec(&["sh", "-c", "(sleep 0.2 & sleep 0.3 &) ; (sh -c 'sleep 0.4 &' &)"]);
    until("the orphans are gone, and nobody is a zombie", || {
        let left = container.processes();
        let is_left = |p: &(u32, u32, String, String)| p.2.starts_with('Z') || p.3.contains("sleep");
        (!left.iter().any(is_left)).then_some(())
    });
    assert_eq!(container.stop(), "0", "{}", container.logs());
}
on_one_engine!(Next, a_cluster_in_a_container_outlives_whoever_is_killed_in_it);

async fn docker_stop_is_a_sigterm_for_workers_whose_last_words_are_shown(engine: &Engine) {
    let script = "trap 'for i in 1 2 3; do echo word $i; done; printf last; exit 0' TERM
        echo begun; while :; do sleep 0.1; done";
    let container = Container::shell(engine, &[], &["--workers", "2"], script);
    container.says("showing logs");
    // A further life of the container goes on with its own words.
    for lives in 1..3 {
        assert_eq!(container.stop(), "0", "{}", container.logs());
        let logs = container.logs();
        for text in ["| begun", "| word 3", "| last"] {
            assert_eq!(logs.matches(text).count(), 2 * lives, "`{text}` of each worker and life:\n{logs}");
        }
        if lives == 1 {
            engine.docker(&["start", &container.name]);
            until("both begin again", || (container.logs().matches("| begun").count() == 4).then_some(()));
        }
    }
}
on_both_engines!(docker_stop_is_a_sigterm_for_workers_whose_last_words_are_shown);

async fn a_worker_that_does_not_end_is_killed_in_time_and_the_exit_code_says_so(engine: &Engine) {
    let script = "trap '' TERM; echo begun; while :; do sleep 0.1; done";
    let container = Container::shell(engine, &[], &["--stop-within", "3s"], script);
    container.says("| begun");
    assert_eq!(container.stop(), "137", "{}", container.logs());
}
on_both_engines!(a_worker_that_does_not_end_is_killed_in_time_and_the_exit_code_says_so);

async fn signals_reach_the_program_and_its_whole_family_ends_with_it(engine: &Engine) {
    let script = "trap 'echo usr1' USR1; trap 'echo usr2' USR2; (while :; do sleep 0.1; done) &
        echo begun; while :; do sleep 0.1; done";
    let container = Container::shell(engine, &["--stop-signal", "QUIT"], &[], script);
    container.says("| begun");
    container.says("showing logs");
    for (signal, word) in [("USR1", "| usr1"), ("USR2", "| usr2")] {
        engine.docker(&["kill", "--signal", signal, &container.name]);
        container.says(word);
    }
    let before = container.pids("sh -c trap");
    engine.docker(&["kill", "--signal", "HUP", &container.name]);
    until("SIGHUP replaces the workers", || {
        let now = container.pids("sh -c trap");
        (now.len() == before.len() && !now.iter().any(|pid| before.contains(pid))).then_some(())
    });
    // The shell in the background goes with the one that is killed.
    let before = container.pids("sh -c trap");
    let leader =
        container.processes().into_iter().find(|process| process.1 == 1 && before.contains(&process.0));
    container.kill(leader.unwrap().0);
    until("all of them are others", || {
        let now = container.pids("sh -c trap");
        (now.len() == before.len() && !now.iter().any(|pid| before.contains(pid))).then_some(())
    });
    assert_eq!(container.stop(), "0", "SIGQUIT stops, too:\n{}", container.logs());
}
on_both_engines!(signals_reach_the_program_and_its_whole_family_ends_with_it);

async fn what_cannot_begin_ends_the_container_and_says_why(engine: &Engine) {
    let container = Container::run(engine, &[], &["--no-port", "--", "no-such-program"]);
    assert_ne!(container.ends(), "0");
    assert!(container.logs().contains("no-such-program"), "{}", container.logs());

    // Not even memory can be written.
    let nowhere = ["--read-only", "--user", "1000", "--ipc", "none"];
    let container = Container::run(engine, &nowhere, &["--no-port", "--", "sh"]);
    assert_eq!(container.ends(), "1");
    let logs = container.logs();
    assert!(logs.contains("no place for Bulsa's state") && logs.contains("--tmpfs"), "{logs}");

    let container = Container::run(engine, &[], &["--detach", "--no-port", "--", "sh"]);
    assert_eq!(container.ends(), "1");
    assert!(container.logs().contains("detached"), "{}", container.logs());
}
on_both_engines!(what_cannot_begin_ends_the_container_and_says_why);

/// A quota of a part of a processor is one; the machine's processors are none of the container's business.
async fn workers_are_counted_by_the_quota(engine: &Engine) {
    let script = "echo begun; while :; do sleep 1; done";
    let cpus = std::thread::available_parallelism().unwrap().get();
    for (quota, workers) in [("1", 1), ("0.5", 1), ("1.5", 2)] {
        let container = Container::shell(engine, &["--cpus", quota], &["--workers", "cpus"], script);
        container.says("showing logs");
        let expected = workers.min(cpus);
        let status = container.exec(&["bulsa", "status"]);
        assert!(status.contains(&format!(" {expected}/{expected} ")), "--cpus {quota}: {status}");
    }
    let container = Container::shell(engine, &["--cpuset-cpus", "0"], &["--workers", "cpus"], script);
    container.says("showing logs");
    assert!(container.exec(&["bulsa", "status"]).contains(" 1/1 "));
}
on_one_engine!(Installed, workers_are_counted_by_the_quota);
