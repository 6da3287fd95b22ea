use super::*;
use crate::compose::tests::Shop;

fn live() -> Spec {
    Shop::new().spec("services:\n  web: {image: shop:1, ports: ['80:80']}\n  api: {image: api:1}\n")
}

fn named(text: &str, names: &[&str]) -> Result<Spec, Vec<String>> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    restrict(Shop::new().spec(text), &names, Some(&live()))
}

#[test]
fn a_named_service_brings_its_networks_and_volumes_along() {
    let text = "services:\n  web: {image: shop:2, networks: [front], volumes: ['data:/d']}\n  api: {image: api:2}\n\
                networks: {front: {}}\nvolumes: {data: {}}\n";
    let mixed = named(text, &["web"]).unwrap();
    assert!(mixed.networks.contains_key("front") && mixed.networks.contains_key("default"));
    assert!(mixed.volumes.contains_key("data"));
    let image = |name: &str| mixed.services[name].container.as_ref().unwrap().image.clone();
    assert_eq!((image("web").as_str(), image("api").as_str()), ("shop:2", "api:1"));
}

#[test]
fn a_named_service_that_needs_what_does_not_run_is_refused() {
    let text = "services:\n  web: {image: shop:2, depends_on: [cache]}\n  api: {image: api:1}\n  cache: {image: redis}\n";
    assert_eq!(named(text, &["web"]).unwrap_err(), ["cache"]);
    assert!(named(text, &["web", "cache"]).is_ok());
    assert_eq!(named(text, &["wep"]).unwrap_err(), ["wep"]);
}
