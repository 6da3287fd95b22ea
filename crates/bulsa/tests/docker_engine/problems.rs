//! What keeps a replica from starting, and that nothing is left of it.

use std::net::TcpListener;

use bollard::{models::ContainerCreateBody, query_parameters::CreateContainerOptionsBuilder};
use bulsa::agent::docker::StartProblem;
use bulsa_core::spec::{
    Role,
    container::{Container, Mount, MountSource, Published},
};

use crate::world::{SERVER, World};

async fn refused(world: &World, role: Role, container: Container) -> StartProblem {
    let problem = world.start_as(role, "web", 1, container).await.unwrap_err();
    assert!(world.docker.list().await.unwrap().is_empty(), "something is left: {problem}");
    problem
}

#[tokio::test]
async fn each_problem_is_told_in_plain_words_and_leaves_nothing() {
    let Some(world) = World::new("problems").await else { return };
    let base = world.container(SERVER);

    let problem =
        refused(&world, Role::App, Container { image: "bulsa-test-none:1".to_owned(), ..base.clone() }).await;
    assert!(problem.permanent && problem.message.contains("is not on this host: pull or build"), "{problem}");

    for program in ["/nope", "nope"] {
        let command = Some(vec![program.to_owned()]);
        let problem = refused(&world, Role::App, Container { command, ..base.clone() }).await;
        assert!(problem.permanent && problem.message.contains("is not in the image"), "{problem}");
    }
    let command = Some(vec!["/bin/data".to_owned()]);
    let problem = refused(&world, Role::App, Container { command, ..base.clone() }).await;
    assert!(problem.permanent && problem.message.contains("may not be run"), "{problem}");

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let published = vec![Published {
        host: Some("127.0.0.1".parse().unwrap()),
        published: Some(taken.local_addr().unwrap().port().to_string()),
        target: 80,
        protocol: "tcp".to_owned(),
    }];
    let problem = refused(&world, Role::Shared, Container { published, ..base.clone() }).await;
    assert!(!problem.permanent && problem.message.contains("is taken by something else"), "{problem}");

    let mut container = base.clone();
    container.mounts.push(Mount {
        target: "/in".to_owned(),
        source: MountSource::Bind {
            path: "/bulsa-test-no-such-directory".to_owned(),
            create: false,
            propagation: None,
            selinux: None,
            recursive: None,
        },
        read_only: false,
        consistency: None,
    });
    let problem = refused(&world, Role::App, container).await;
    assert!(problem.permanent && problem.message.contains("create_host_path"), "{problem}");

    let mut container = base.clone();
    container.networks = [("gone".to_owned(), bulsa_core::spec::container::Attachment::default())].into();
    let problem = refused(&world, Role::App, container).await;
    assert!(!problem.permanent && problem.message.contains("a network that it joins is gone"), "{problem}");
}

#[tokio::test]
async fn a_program_for_another_machine_is_known_by_its_last_words() {
    let Some(world) = World::new("problems-exec").await else { return };
    let command = Some(vec!["/bin/broken".to_owned()]);
    let problem = match world.start(Container { command, ..world.container("") }).await {
        Err(problem) => problem,
        // The Engine said that it had started it; it ended a moment later.
        Ok(running) => {
            let found = world.ended(&running.found.id).await;
            assert_ne!(found.exit_code, 0);
            let words = world.docker.last_words(&found.id, 1).await.unwrap();
            StartProblem::from_last_words(&words[0].text).unwrap()
        }
    };
    assert!(problem.permanent && problem.message.contains("can't run on this processor"), "{problem}");
}

#[tokio::test]
async fn a_foreign_container_is_never_touched() {
    let Some(world) = World::new("problems-foreign").await else { return };
    let name = format!("{}-db", world.name);
    let body = ContainerCreateBody {
        image: Some(world.image()),
        cmd: Some(["sh", "-c", SERVER].map(str::to_owned).to_vec()),
        labels: Some([("bulsa.test".to_owned(), world.name.clone())].into()),
        ..ContainerCreateBody::default()
    };
    let options = CreateContainerOptionsBuilder::new().name(&name).build();
    let foreign = world.raw.create_container(Some(options), body).await.unwrap().id;
    world.raw.start_container(&foreign, None).await.unwrap();

    let container = Container { container_name: Some(name.clone()), ..world.container(SERVER) };
    let problem = refused(&world, Role::Shared, container).await;
    assert!(problem.permanent && problem.message.contains("isn't Bulsa's"), "{problem}");
    let found = world.docker.inspect(&foreign).await.unwrap().unwrap();
    assert!(found.is_up() && !found.ours && found.name == name);
}
