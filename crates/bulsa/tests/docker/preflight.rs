//! What is found out before a deploy begins, and that a deploy that isn't begun leaves nothing.

use std::net::TcpListener;

use crate::{
    shop::on_both_engines,
    support::{engine::Engine, images, network::within, project::Project},
};

const COMPOSE: &str = r#"
services:
  web:
    image: ${APP}
    ports: ["127.0.0.1:${PORT}:3000"]
    volumes: ['data:/data']
    networks: [default, edge]
networks: {edge: {external: true, name: "${EDGE}"}}
volumes: {data: {}}
"#;

async fn a_refused_first_deploy_leaves_nothing_behind(engine: &Engine) {
    let mut project = Project::new(engine, COMPOSE);
    project.set("APP", images::app().load(engine));
    project.set("EDGE", project.object("edge"));
    project.serve().await;
    let port = project.port();
    let taken = within(engine.namespace(), move || TcpListener::bind(("127.0.0.1", port)).unwrap());
    project.run(&["up", "-d"]).exits(1).says(&["is in use"]);
    assert!(project.objects().is_empty(), "{:?}", project.objects());
    drop(taken);
    // Its other network and its volume are made before this one is missed.
    project.run(&["up", "-d"]).exits(1).says(&["docker network create"]);
    assert!(project.objects().is_empty(), "{:?}", project.objects());
    engine.docker(&["network", "create", &project.object("edge")]);
    project.run(&["up", "-d"]).exits(0);
    project.run(&["down"]).exits(0);
    engine.docker(&["network", "rm", &project.object("edge")]);
    assert_eq!(project.objects(), [format!("volume {}", project.object("data"))]);
}
on_both_engines!(a_refused_first_deploy_leaves_nothing_behind);
