//! Registries that want a login, and the user's credential helper.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use bulsa::{agent::images::ImageProblem, cli::images::credentials_for};

use crate::{registry::Registry, world::World};

/// A password whose base64 has letters that are not the same in URLs.
const PASSWORD: &str = "~~~???>>>";
/// The image that the child process pulls.
const CHILD_IMAGE: &str = "BULSA_TEST_IMAGES_CHILD";

#[tokio::test]
async fn a_login_comes_from_the_users_helper() {
    // The second half runs in a process of its own: the variables are those of a whole process.
    if let Ok(shop) = std::env::var(CHILD_IMAGE) {
        return pull_as_the_user(&shop).await;
    }
    let Some(world) = World::new("login").await else { return };
    let open = Registry::start(world.dir.path(), None);
    let pushed = format!("127.0.0.1:{}/{}:1", open.port, world.name);
    let id = world.image(&pushed, "private", &[]).await;
    world.push(&pushed).await;
    world.forget(&id).await;
    drop(open);
    let closed = Registry::start(world.dir.path(), Some(("ann", PASSWORD)));
    let host = format!("127.0.0.1:{}", closed.port);
    let shop = format!("{host}/{}:1", world.name);
    let (result, _) = world.resolve(&shop, |_| {}).await;
    let error = result.unwrap_err();
    assert!(matches!(error, ImageProblem::Login { .. }), "{error:?}");
    assert!(error.to_string().contains(&format!("docker login {host}")), "{error}");

    // A helper as Docker runs it, and a configuration that names it.
    let helper = world.path("docker-credential-bulsatest");
    let answer = format!(r#"{{"ServerURL":"{host}","Username":"ann","Secret":"{PASSWORD}"}}"#);
    fs::write(&helper, format!("#!/bin/sh\nread -r server\n[ \"$server\" = {host} ] || {{ echo credentials not found; exit 1; }}\necho '{answer}'\n")).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(world.path("config.json"), format!(r#"{{"credHelpers":{{"{host}":"bulsatest"}}}}"#)).unwrap();
    let path = format!("{}:{}", world.dir.path().display(), std::env::var("PATH").unwrap());
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "login::a_login_comes_from_the_users_helper", "--nocapture"])
        .env("PATH", path)
        .env("DOCKER_CONFIG", world.dir.path())
        .env(CHILD_IMAGE, &shop)
        .env_remove("DOCKER_AUTH_CONFIG")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout).into_owned() + &String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success() && said.contains("1 passed"), "{said}");
    assert!(!said.contains(PASSWORD), "{said}");
    assert_eq!(world.id(&shop).await, Some(id));
}

async fn pull_as_the_user(shop: &str) {
    let Some(world) = World::new("login-child").await else { return };
    let found = credentials_for([shop, "r.example/other:1"]).await;
    assert!(found.notes.is_empty(), "{:?}", found.notes);
    assert_eq!(found.by_registry.len(), 1);
    let credentials = found.by_registry.into_values().next();
    let (result, _) = world.resolve(shop, |wanted| wanted.credentials = credentials).await;
    assert!(result.unwrap().facts.is_pulled);
}
