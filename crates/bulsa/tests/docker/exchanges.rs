//! Releases that can't simply run beside one another: replicas replaced a few at a time, or after the old ones have gone.

use crate::{
    shop::{on_both_engines, on_one_engine},
    support::{
        engine::Engine,
        images,
        load::{answers, answers_of, on_app, perfect},
        project::Project,
        until,
    },
};

/// One app service that the tests give their way of being replaced.
const COMPOSE: &str = r#"
services:
  web:
    image: ${APP}
    ports: ["127.0.0.1:${PORT}:3000"]
    environment: { DEMO_VERSION: "${VERSION:-v1}", DEMO_BROKEN: "${BROKEN:-0}" }
    stop_grace_period: 3s
    x-bulsa: { probe: {path: /health, interval: 1s}, gate: {timeout: 5s}, bake: {time: 1s}, drain: {requests: 5s, stagger: 1s} }
"#;

/// The project, with further lines of its service, at version `v1`; not up yet.
fn project<'a>(engine: &'a Engine, lines: &str) -> (Project<'a>, String) {
    let mut project = Project::new(engine, &format!("{COMPOSE}{lines}"));
    let app = images::app().load(engine);
    let image = project.image("v1", &app, &["ENV BUILT=v1"]);
    project.set("APP", image);
    (project, app)
}

/// A new image and the version that it answers with.
fn build(project: &mut Project<'_>, app: &str, version: &str) {
    let image = project.image(version, app, &[&format!("ENV BUILT={version}")]);
    project.set("APP", image);
    project.set("VERSION", version);
}

async fn replicas_are_replaced_a_few_at_a_time_without_a_lost_request(engine: &Engine) {
    for order in ["start-first", "stop-first"] {
        let config = format!("    deploy: {{replicas: 3, update_config: {{order: {order}, delay: 1s}}}}\n");
        let (mut project, app) = project(engine, &config);
        project.up().await;
        let load = on_app(engine, project.port(), 0).await;
        build(&mut project, &app, "v2");
        let deploy = project.start(&["deploy"]);
        answers_of(&load, "v2");
        let mark = load.mark();
        answers(&load, 30);
        let both = load.window(mark, load.mark());
        deploy.end().exits(0).says(&["step by step", "1 of 3", "2 of 3"]);
        assert!(both.releases.len() == 2, "{order}: both releases answer in between: {:?}", both.releases);
        let mark = load.mark();
        answers(&load, 30);
        assert_eq!(load.window(mark, load.mark()).releases.keys().collect::<Vec<_>>(), ["v2"]);
        perfect(&load.stop().await);
        // Nothing of the old release is kept beside it.
        until("the old ones are gone", || (project.containers("web").len() == 3).then_some(()));
        project.run(&["down"]).exits(0);
    }
}
on_one_engine!(Next, replicas_are_replaced_a_few_at_a_time_without_a_lost_request);

async fn a_step_that_is_bad_is_undone(engine: &Engine) {
    let (mut project, app) = project(engine, "    deploy: {replicas: 2, update_config: {parallelism: 1}}\n");
    project.up().await;
    let load = on_app(engine, project.port(), 0).await;
    build(&mut project, &app, "v2");
    project.set("BROKEN", "1");
    project.run(&["deploy"]).exits(3).says(&["did not become healthy", "release r1 serves all traffic"]);
    perfect(&load.stop().await);
    assert_eq!(project.well().await.live, Some(1));
}
on_one_engine!(Next, a_step_that_is_bad_is_undone);

async fn a_failed_exchange_says_whether_the_old_release_is_back(engine: &Engine) {
    let lines = "    volumes: ['data:/data']\nvolumes: {data: {}}\n";
    let (mut project, app) = project(engine, lines);
    project.up().await;
    let load = on_app(engine, project.port(), 0).await;
    build(&mut project, &app, "v2");
    project.set("BROKEN", "1");
    project.run(&["deploy"]).exits(3).says(&["requests are held", "release r1 serves all traffic"]);
    answers(&load, 50);
    perfect(&load.stop().await);
    project.run(&["down"]).exits(0);
}
on_one_engine!(Installed, a_failed_exchange_says_whether_the_old_release_is_back);

/// Also what can't run twice has to pass its gate in a first release.
async fn a_first_release_that_never_gets_healthy_exits_7(engine: &Engine) {
    let (mut project, _) = project(engine, "    volumes: ['data:/data']\nvolumes: {data: {}}\n");
    project.set("BROKEN", "1");
    project.serve().await;
    project.run(&["up", "-d"]).exits(7).says(&["did not become healthy", "500"]);
    project.set("BROKEN", "0");
    project.run(&["deploy"]).exits(0);
    project.run(&["down"]).exits(0);
}
on_one_engine!(Installed, a_first_release_that_never_gets_healthy_exits_7);

/// What can't be started again is said before anything is stopped.
async fn a_rollback_without_its_image_is_not_begun(engine: &Engine) {
    let (mut project, app) = project(engine, "    volumes: ['data:/data']\nvolumes: {data: {}}\n");
    project.up().await;
    let first = engine.docker(&["image", "inspect", "--format", "{{.Id}}", &project.variables()["APP"]]);
    build(&mut project, &app, "v2");
    project.run(&["deploy"]).exits(0);
    let load = on_app(engine, project.port(), 0).await;
    let before = project.containers("web");
    until("the old image is nobody's", || engine.try_docker(&["rmi", "--force", first.trim()]).ok());
    project.run(&["rollback"]).exits(3).says(&["r1 can't be started again", "not on this host"]);
    assert_eq!(project.containers("web"), before, "nothing was stopped");
    answers(&load, 50);
    perfect(&load.stop().await);
    project.run(&["down"]).exits(0);
}
on_both_engines!(a_rollback_without_its_image_is_not_begun);

/// A migration that takes long is seen at work; one that failed can be tried again without any change.
async fn a_jobs_output_is_shown_while_it_runs_and_it_is_tried_again(engine: &Engine) {
    let lines = "    depends_on: {migrate: {condition: service_completed_successfully}}\n  migrate:\n    image: ${BUSYBOX}\n    \
                 volumes: ['./state:/state']\n    command: ['sh', '-c', 'echo begun; until test -e /state/go; do sleep 0.1; done; cat /state/go; exit $$(cat /state/code)']\n";
    let (mut project, _) = project(engine, lines);
    project.set("BUSYBOX", images::busybox().load(engine));
    std::fs::create_dir(project.directory().join("state")).unwrap();
    project.serve().await;
    project.write("state/code", "3");
    let first = project.start(&["up", "-d"]);
    let said = |text: &'static str| {
        move |project: &bulsa_core::wire::api::ProjectView| {
            let lines = project.deployments.iter().flat_map(|deployment| &deployment.progress);
            lines.into_iter().any(|line| line.text.contains(text)).then_some(())
        }
    };
    project.until("the job's first line", |project, _| said("migrate: begun")(project)).await;
    project.write("state/go", "half way\n");
    first.end().exits(7).says(&["the job `migrate` failed", "half way"]);
    project.write("state/code", "0");
    project.run(&["up", "-d"]).exits(0).says(&["migrate: half way"]);
    project.well().await;
    project.run(&["down"]).exits(0);
}
on_one_engine!(Next, a_jobs_output_is_shown_while_it_runs_and_it_is_tried_again);
