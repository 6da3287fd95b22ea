//! Builds through the Engine's own API, and through buildx where it is installed.

use std::{collections::BTreeMap, fs, path::Path};

use bulsa::cli::build::{BuildError, Builder, Built, Order, build, builder};
use bulsa_core::spec::container::Build;
use tokio::sync::mpsc;

use crate::world::{SOCKET, World};

/// Builds, and gives the output too.
async fn run(world: &World, how: &Build, with: Builder) -> (Result<Built, BuildError>, String) {
    let (to, mut heard) = mpsc::channel(1000);
    let none = BTreeMap::new();
    let tag = format!("{}:built", world.name);
    let build_labels = [("bulsa-test-images".to_owned(), world.name.clone())].into();
    let how = Build { labels: build_labels, ..how.clone() };
    let order = Order {
        service: "web",
        build: &how,
        tag: &tag,
        platform: None,
        socket: Path::new(SOCKET),
        credentials: &none,
    };
    let result = build(&order, with, &to).await;
    drop(to);
    let mut said = String::new();
    while let Some(progress) = heard.recv().await {
        said += &progress.text;
        said.push('\n');
    }
    (result, said)
}

fn context(world: &World, dockerfile: &str) -> Build {
    let context = world.path("context");
    fs::create_dir_all(context.join("secret")).unwrap();
    fs::copy("/bin/busybox", context.join("busybox")).unwrap();
    fs::write(context.join("secret/key"), "hush").unwrap();
    fs::write(context.join(".dockerignore"), "secret\nDockerfile\n").unwrap();
    fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    Build { context: context.display().to_string(), ..Build::default() }
}

async fn builders() -> Vec<Builder> {
    match builder().await {
        Builder::Engine => {
            eprintln!("skipped in part: docker buildx is not installed");
            vec![Builder::Engine]
        }
        Builder::Buildx => vec![Builder::Engine, Builder::Buildx],
    }
}

#[tokio::test]
async fn a_context_is_built_with_its_arguments_and_without_what_is_ignored() {
    let Some(world) = World::new("build").await else { return };
    let dockerfile = "FROM scratch\nARG WORD\nCOPY . /c/\n\
        RUN [\"/c/busybox\", \"sh\", \"-c\", \"echo the word is $WORD; /c/busybox test ! -e /c/secret\"]\nEXPOSE 3000\n";
    for with in builders().await {
        // Another word each time, so that nothing comes from a cache.
        let word = format!("{with:?}-{}", world.name);
        let args = [("WORD".to_owned(), word.clone())].into();
        let how = Build { args, ..context(&world, dockerfile) };
        let (result, said) = run(&world, &how, with).await;
        let built = result.unwrap();
        assert_eq!(world.id(&built.tag).await, built.id, "{said}");
        assert!(said.contains(&format!("the word is {word}")), "{said}");
    }
}

#[tokio::test]
async fn an_inline_dockerfile_is_enough() {
    let Some(world) = World::new("inline").await else { return };
    for with in builders().await {
        let inline = format!("FROM scratch\nCOPY busybox /b-{with:?}\n");
        let how = Build { dockerfile_inline: Some(inline), ..context(&world, "FROM nonsense at all") };
        let (result, said) = run(&world, &how, with).await;
        assert!(result.is_ok(), "{result:?} {said}");
    }
}

#[tokio::test]
async fn a_step_that_fails_is_shown_with_its_output() {
    let Some(world) = World::new("fails").await else { return };
    let dockerfile =
        "FROM scratch\nCOPY busybox /b\nRUN [\"/b\", \"sh\", \"-c\", \"echo told you so; exit 7\"]\n";
    for with in builders().await {
        let (result, _) = run(&world, &context(&world, dockerfile), with).await;
        let error = result.unwrap_err().to_string();
        assert!(error.contains("`web`") && error.contains("told you so"), "{error}");
    }
    let how = Build { ssh: vec!["default".to_owned()], ..context(&world, dockerfile) };
    let (result, _) = run(&world, &how, Builder::Engine).await;
    assert!(matches!(result, Err(BuildError::NeedsBuildx { key: "ssh", .. })), "{result:?}");
    assert_eq!(world.id(&format!("{}:built", world.name)).await, None);
}

#[tokio::test]
async fn an_engine_that_is_not_there_is_named() {
    let Some(world) = World::new("nowhere").await else { return };
    let none = BTreeMap::new();
    let how = context(&world, "FROM scratch");
    let socket = world.path("no.sock");
    let order =
        Order { service: "web", build: &how, tag: "x", platform: None, socket: &socket, credentials: &none };
    let (to, _heard) = mpsc::channel(10);
    let error = build(&order, Builder::Engine, &to).await.unwrap_err().to_string();
    assert!(error.contains("no.sock"), "{error}");
}
