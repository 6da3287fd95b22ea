//! A backing service that differs from its file: it is told and left alone, and recreated by name, with its data.

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    shop::{on_both_engines, on_one_engine},
    support::{engine::Engine, images, project::Project, until},
};

const COMPOSE: &str = "services:\n  redis:\n    image: ${REDIS}\n    command: [redis-server, --maxmemory, \"${MEMORY}\"]\n    volumes: [\"kept:/kept\"]\n  web:\n    image: ${APP}\n    ports: [\"127.0.0.1:${PORT}:3000\"]\n    environment: {VERSION: \"${VERSION}\"}\n    x-bulsa: {bake: {time: 1s}}\nvolumes: {kept: {}}\n";

/// A project with data in Redis: in an anonymous volume, and in one with a name.
struct Kept<'a> {
    project: Project<'a>,
    redis: String,
    volumes: Vec<String>,
}

impl<'a> Kept<'a> {
    async fn up(engine: &'a Engine) -> Option<Self> {
        let redis = images::redis()?;
        let mut project = Project::new(engine, COMPOSE);
        project.set("REDIS", redis.load(engine));
        project.set("APP", images::app().load(engine));
        project.set("MEMORY", "50mb");
        project.set("VERSION", "1");
        project.up().await;
        let redis = project.containers("redis").remove(0);
        engine.docker(&["exec", &redis, "redis-cli", "set", "key", "a value"]);
        engine.docker(&["exec", &redis, "redis-cli", "save"]);
        engine.docker(&["exec", "--user", "0", &redis, "sh", "-c", "echo kept > /kept/file"]);
        let volumes = volumes_of(engine, &redis);
        assert_eq!(volumes.len(), 2, "{volumes:?}");
        Some(Self { project, redis, volumes })
    }

    /// The only container that Redis has, once nothing else is left of it; it runs, has its old name and all data.
    fn only_redis(&self) -> String {
        let engine = self.project.engine;
        let id = until("Redis has one container", || {
            let all = self.project.containers("redis");
            (all.len() == 1).then(|| all[0].clone())
        });
        let name = format!("/{}-redis-1", self.project.name());
        assert_eq!(engine.inspect(&id, "{{.Name}} {{.State.Running}}"), format!("{name} true"));
        assert_eq!(volumes_of(engine, &id), self.volumes);
        assert_eq!(engine.docker(&["exec", &id, "redis-cli", "get", "key"]).trim(), "a value");
        assert_eq!(engine.docker(&["exec", &id, "cat", "/kept/file"]).trim(), "kept");
        until("Docker starts it again by itself", || {
            let policy = engine.inspect(&id, "{{.HostConfig.RestartPolicy.Name}}");
            (policy == "unless-stopped").then_some(())
        });
        id
    }

    fn memory(&self, redis: &str) -> String {
        self.project.engine.docker(&["exec", redis, "redis-cli", "config", "get", "maxmemory"])
    }

    /// Waits until the deploy that runs is that far, and kills the agent.
    async fn kill_agent_at(&self, phase: &str) {
        let pid = self
            .project
            .until(phase, |project, snapshot| {
                let is_there = project.deploying().is_some_and(|deployment| deployment.phase == phase);
                is_there.then_some(snapshot.agent.pid)
            })
            .await;
        kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL).unwrap();
        let is_another = |agent: u32| (agent != pid).then_some(());
        self.project.until("another agent", |_, snapshot| is_another(snapshot.agent.pid)).await;
    }

    /// Volumes outlive a project.
    fn end(self) {
        self.project.run(&["down"]).exits(0);
        for volume in &self.volumes {
            self.project.engine.try_docker(&["volume", "rm", volume]).ok();
        }
    }
}

/// The volumes of a container.
fn volumes_of(engine: &Engine, container: &str) -> Vec<String> {
    let all =
        engine.inspect(container, "{{range .Mounts}}{{if eq .Type \"volume\"}}{{.Name}} {{end}}{{end}}");
    let mut all: Vec<String> = all.split_whitespace().map(str::to_owned).collect();
    all.sort();
    all
}

async fn one_that_differs_is_left_alone_and_recreated_by_name(engine: &Engine) {
    let Some(mut kept) = Kept::up(engine).await else { return };
    let before = kept.project.untouched("redis");
    kept.project.run(&["deploy", "redis"]).exits(0).says(&["nothing has changed"]);
    kept.project.set("MEMORY", "60mb");
    let told =
        "`redis` differs from what runs (command) and is left as it is; `bulsa deploy redis` recreates it";
    kept.project.run(&["deploy", "--plan"]).exits(0).says(&["nothing differs", told]);
    kept.project.run(&["deploy"]).exits(0).says(&["nothing has changed", told]);
    kept.project.run(&["status"]).exits(0).says(&["redis: what runs differs from the file (command)"]);
    kept.project.set("VERSION", "2");
    kept.project.run(&["deploy"]).exits(0).says(&[told]);
    assert_eq!(kept.project.untouched("redis"), before, "nobody named it");

    let plan = kept.project.run(&["deploy", "--plan", "redis"]).exits(0);
    plan.says(&["recreate", "`redis` is away for its stop and start"]);
    kept.project.run(&["deploy", "redis"]).exits(0).says(&["recreating `redis`"]);
    let redis = kept.only_redis();
    assert_ne!(redis, kept.redis);
    assert!(kept.memory(&redis).contains("62914560"), "{}", kept.memory(&redis));
    kept.project.well().await;
    let status = kept.project.run(&["status"]).exits(0);
    assert!(!status.said().contains("differs"), "{}", status.said());
    kept.project.run(&["deploy", "redis"]).exits(0).says(&["nothing has changed"]);
    assert_eq!(kept.only_redis(), redis);
    kept.end();
}
on_one_engine!(Installed, one_that_differs_is_left_alone_and_recreated_by_name);

async fn a_new_one_that_fails_gives_its_place_back(engine: &Engine) {
    let Some(mut kept) = Kept::up(engine).await else { return };
    kept.project.set("MEMORY", "nonsense");
    let failed = kept.project.run(&["deploy", "redis"]).exits(3);
    failed.says(&["argument must be a memory value", "what `redis` was before comes back", "failed"]);
    assert_eq!(kept.only_redis(), kept.redis);
    kept.project.well().await;
    kept.project.set("MEMORY", "70mb");
    kept.project.run(&["deploy", "redis"]).exits(0);
    assert_ne!(kept.only_redis(), kept.redis, "and another try is free to do it");
    kept.end();
}
on_one_engine!(Next, a_new_one_that_fails_gives_its_place_back);

async fn an_agent_that_is_killed_in_between_ends_it_well(engine: &Engine) {
    let Some(mut kept) = Kept::up(engine).await else { return };
    kept.project.set("MEMORY", "60mb");
    let deploy = kept.project.start(&["deploy", "redis"]);
    kept.kill_agent_at("exchange").await;
    deploy.end().exits(0);
    kept.project.well().await;
    let second = kept.only_redis();
    assert_ne!(second, kept.redis);

    kept.project.set("MEMORY", "nonsense");
    let deploy = kept.project.start(&["deploy", "redis"]);
    kept.kill_agent_at("exchange").await;
    kept.kill_agent_at("going back").await;
    deploy.end().exits(3);
    kept.project.well().await;
    assert_eq!(kept.only_redis(), second);
    kept.end();
}
on_both_engines!(an_agent_that_is_killed_in_between_ends_it_well);
