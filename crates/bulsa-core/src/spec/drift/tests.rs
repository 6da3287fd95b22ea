use serde::Serialize;

use super::*;
use crate::{
    compose::{LoadInput, ReadError, SourceFile, load},
    spec::container::PullPolicy,
};

const FILE: &str = "services:\n  redis:\n    image: redis:7\n    command: [redis-server, --save, '']\n    environment: {A: b}\n    volumes: [data:/data]\n    ports: ['6379:6379']\nvolumes: {data: {}}\n";

fn spec(text: &str) -> Spec {
    let mut read = |_: &str| Err(ReadError::NotFound);
    let files = vec![SourceFile { path: "compose.yaml".to_owned(), text: text.to_owned() }];
    let loaded = load(LoadInput::new(files, "/srv/shop", &mut read));
    let mut spec = loaded.spec.unwrap_or_else(|| panic!("{}", loaded.diagnostics));
    let services = spec.services.values_mut();
    for container in services.filter_map(|service| service.container.as_mut()) {
        container.image_id = Some("sha256:1".to_owned());
    }
    spec
}

fn ours(text: &str) -> Made {
    let spec = spec(text);
    let form = Some(form(&spec.services["redis"], &spec));
    Made { form, image: "redis:7".to_owned(), image_id: "sha256:1".to_owned(), ..Made::default() }
}

fn compared(text: &str, made: &Made) -> Vec<&'static str> {
    let spec = spec(text);
    differences(&spec.services["redis"], &spec, made)
}

#[test]
fn what_was_made_from_the_same_file_differs_in_nothing() {
    assert!(compared(FILE, &ours(FILE)).is_empty());
    let moved = format!("# a line more\n{FILE}");
    assert!(compared(&moved, &ours(FILE)).is_empty(), "positions are no part of it");
    let mut other = spec(FILE);
    let container = other.services.get_mut("redis").unwrap().container.as_mut().unwrap();
    container.notes.push("a note".to_owned());
    container.pull_policy = PullPolicy::Always;
    assert!(differences(&other.services["redis"], &other, &ours(FILE)).is_empty());
}

#[test]
fn each_part_that_differs_is_named() {
    let changes = [
        ("--save, ''", "--save, '60 1'", "command"),
        ("{A: b}", "{A: c}", "environment"),
        ("data:/data", "data:/var", "volumes"),
        ("data: {}", "data: {name: elsewhere}", "volumes"),
        ("6379:6379", "6380:6379", "ports"),
        ("image: redis:7", "image: redis:7\n    user: '1'", "user"),
        ("image: redis:7", "image: redis:7\n    mem_limit: 1g", "resources"),
        ("image: redis:7", "image: redis:7\n    hostname: other", REST),
        ("image: redis:7", "image: redis:7\n    restart: 'no'", "restart"),
    ];
    for (from, to, part) in changes {
        let text = FILE.replace(from, to);
        assert_ne!(text, FILE);
        assert_eq!(compared(&text, &ours(FILE)), [part], "{to}");
    }
}

#[test]
fn what_a_form_does_not_say_is_in_no_fingerprint() {
    #[derive(Serialize)]
    struct Before {
        user: &'static str,
    }
    #[derive(Serialize)]
    struct Later {
        user: &'static str,
        group: Option<&'static str>,
        inner: Vec<Self>,
    }
    let later = |group, inner| Later { user: "1", group, inner };
    let before = digest(&Before { user: "1" });
    assert_eq!(digest(&later(None, Vec::new())), before);
    assert_ne!(digest(&later(Some("2"), Vec::new())), before);
    assert_ne!(digest(&later(None, vec![later(None, Vec::new())])), before);
}

#[test]
fn an_image_is_compared_by_its_id() {
    let made = Made { image_id: "sha256:0".to_owned(), ..ours(FILE) };
    assert_eq!(compared(FILE, &made), ["image"], "its name means another one now");
    assert!(compared(&FILE.replace("redis:7", "redis:latest"), &ours(FILE)).is_empty());
}

#[test]
fn of_what_compose_made_the_visible_is_compared() {
    let mount = |source: &str| MadeMount {
        kind: "volume".to_owned(),
        source: source.to_owned(),
        target: "/data".to_owned(),
        writable: true,
    };
    let made = Made {
        image: "redis:7".to_owned(),
        image_id: "sha256:1".to_owned(),
        entrypoint: vec!["docker-entrypoint.sh".to_owned()],
        command: ["redis-server", "--save", ""].map(str::to_owned).into(),
        env: ["A=b", "PATH=/bin"].map(str::to_owned).into(),
        mounts: vec![mount("shop_data")],
        published: [("6379/tcp".to_owned(), None, "6379".to_owned())].into(),
        form: None,
    };
    assert!(compared(FILE, &made).is_empty());
    assert_eq!(compared(&FILE.replace("A: b", "A: c"), &made), ["environment"]);
    assert_eq!(compared(&FILE.replace("--save", "--appendonly"), &made), ["command"]);
    assert_eq!(compared(&FILE.replace("6379:6379", "6380:6379"), &made), ["ports"]);
    let other = Made { mounts: vec![mount("other")], ..made.clone() };
    assert_eq!(compared(FILE, &other), ["volumes"]);
    let removed = FILE.replace("    command: [redis-server, --save, '']\n", "");
    assert!(compared(&removed, &made).is_empty(), "it can't be told from the image's own");
}
