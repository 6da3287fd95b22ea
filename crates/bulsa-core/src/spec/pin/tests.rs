use super::*;
use crate::{
    compose::{LoadInput, ReadError, SourceFile, load},
    spec::container::PortNumber,
    wire::spec::content_hash,
};

fn spec(web: &str) -> Spec {
    let mut read = |_: &str| Err(ReadError::NotFound);
    let text = format!(
        "services:\n  web: {{image: 'shop:1', {web}}}\n  redis: {{image: 'redis:7'}}\nvolumes: {{v: {{}}}}\n"
    );
    let files = vec![SourceFile { path: "compose.yaml".to_owned(), text }];
    let loaded = load(LoadInput::new(files, "/srv/shop", &mut read));
    loaded.spec.unwrap_or_else(|| panic!("{}", loaded.diagnostics))
}

fn port(port: u16, protocol: &str) -> PortNumber {
    PortNumber { port, protocol: protocol.to_owned() }
}

fn facts(expose: Vec<PortNumber>) -> BTreeMap<String, ImageFacts> {
    let facts = ImageFacts { id: "sha256:aa".to_owned(), expose, ..ImageFacts::default() };
    BTreeMap::from([("web".to_owned(), facts)])
}

/// Pins twice, and shows that the second time changes nothing.
fn web(file: &str, images: &BTreeMap<String, ImageFacts>) -> Service {
    let once = pin(spec(file), images);
    let twice = pin(once.clone(), images);
    assert_eq!(once, twice);
    once.services["web"].clone()
}

#[test]
fn an_image_that_exposes_a_port_makes_an_app() {
    let it = web("container_name: shop", &facts(vec![port(3000, "tcp")]));
    let container = it.container.as_ref().unwrap();
    assert_eq!((it.role, it.handover), (Role::App, Handover::Overlap), "{:?}", container.notes);
    assert_eq!(container.anchor, [3000]);
    assert_eq!(container.image_id.as_deref(), Some("sha256:aa"));
    assert_eq!(container.networks["default"].aliases, ["shop"]);
    assert!(matches!(it.probe.check, Check::Http { port: Some(3000), .. }), "{:?}", it.probe);
    // Another program than the image's own may listen nowhere.
    let it = web("command: [work]", &facts(vec![port(3000, "tcp")]));
    assert_eq!((it.role, it.probe.check), (Role::App, Check::Up));
    let it = web("", &facts(Vec::new()));
    assert_eq!((it.role, it.container.unwrap().anchor.len()), (Role::Worker, 0));
    let it = web("x-bulsa: {role: worker}", &facts(vec![port(3000, "tcp")]));
    assert_eq!(it.role, Role::Worker);
}

#[test]
fn a_service_with_udp_or_without_a_network_of_its_own_keeps_its_plain_name() {
    let it = web("ports: [{target: 80}]", &facts(vec![port(53, "udp")]));
    let container = it.container.unwrap();
    assert!(container.anchor.is_empty() && container.notes.iter().any(|note| note.contains("isn't TCP")));
    let it = web("network_mode: host", &facts(vec![port(80, "tcp")]));
    assert_eq!((it.role, it.container.unwrap().anchor.len()), (Role::Worker, 0));
    let it = web("ports: [{target: 80}], expose: ['90']", &facts(vec![port(100, "tcp")]));
    assert_eq!(it.container.unwrap().anchor, [80, 90, 100]);
}

#[test]
fn the_images_healthcheck_counts_where_the_file_has_none() {
    let mut images = facts(vec![port(80, "tcp")]);
    let check = Healthcheck { test: vec!["CMD".to_owned(), "ok".to_owned()], ..Healthcheck::default() };
    images.get_mut("web").unwrap().healthcheck = Some(check);
    let it = web("ports: [{target: 80}]", &images);
    assert_eq!((it.probe.check, it.probe.declared), (Check::Exec(vec!["ok".to_owned()]), true));
    let it = web("ports: [{target: 80}], healthcheck: {test: [CMD, mine]}", &images);
    assert_eq!(it.probe.check, Check::Exec(vec!["mine".to_owned()]));
    let it = web("ports: [{target: 80}], healthcheck: {disable: true}", &images);
    assert!(!it.probe.declared);
    let it = web("ports: [{target: 80}], healthcheck: {interval: 9s}", &images);
    assert_eq!((it.probe.interval.as_secs(), it.probe.declared), (9, true));
}

#[test]
fn volumes_of_the_image_without_one_in_the_file_are_noted() {
    let mut images = facts(vec![port(80, "tcp")]);
    images.get_mut("web").unwrap().volumes = vec!["/data".to_owned()];
    let it = web("", &images);
    assert!(it.container.unwrap().notes.iter().any(|note| note.contains("a volume at /data")));
    let it = web("volumes: [{type: volume, source: v, target: /data}]", &images);
    assert!(!it.container.unwrap().notes.iter().any(|note| note.contains("a volume at /data")));
}

#[test]
fn a_hash_names_what_a_deploy_makes_run_and_nothing_else() {
    let base = pin(spec("ports: [{target: 80}]"), &facts(Vec::new()));
    let hash = content_hash(&base);
    let changed = |change: &dyn Fn(&mut Spec)| {
        let mut other = base.clone();
        change(&mut other);
        content_hash(&other) != hash
    };
    let container = |spec: &mut Spec, name: &str, change: &dyn Fn(&mut Container)| {
        change(spec.services.get_mut(name).unwrap().container.as_mut().unwrap());
    };
    assert!(!changed(&|spec| container(spec, "web", &|it| it.notes.push("x".to_owned()))));
    assert!(!changed(&|spec| container(spec, "redis", &|it| it.image = "redis:8".to_owned())));
    assert!(!changed(&|spec| spec.services.get_mut("web").unwrap().position.clear()));
    assert!(changed(&|spec| container(spec, "web", &|it| it.image_id = Some("sha256:bb".to_owned()))));
    assert!(changed(&|spec| container(spec, "web", &|it| it.files.push(Default::default()))));
    assert!(changed(&|spec| drop(spec.services.remove("redis"))));
    assert!(changed(&|spec| drop(spec.services.get_mut("web").unwrap().env.insert("A".into(), "1".into()))));
}
