use bulsa_core::spec::Spec;

use super::*;

fn spec(text: &str) -> Spec {
    let text = format!("name: shop\n{text}");
    let files = vec![bulsa_core::compose::SourceFile { path: "compose.yaml".to_owned(), text }];
    let mut read = |_: &str| Err(bulsa_core::compose::ReadError::NotFound);
    let loaded = bulsa_core::compose::load(bulsa_core::compose::LoadInput::new(files, "/srv", &mut read));
    let mut spec = loaded.spec.unwrap_or_else(|| panic!("{}", loaded.diagnostics));
    // As once their images are known.
    for service in spec.services.values_mut().filter(|service| service.name != "db") {
        service.role = bulsa_core::spec::Role::App;
        service.container.as_mut().unwrap().anchor = vec![3000];
    }
    spec
}

/// The replicas of `web` carry its name themselves.
fn plain(text: &str) -> Spec {
    let mut spec = spec(text);
    spec.services.get_mut("web").unwrap().container.as_mut().unwrap().anchor.clear();
    spec
}

fn found(networks: &[(&str, &[&str])]) -> Found {
    let joined = networks.iter().map(|(name, names)| {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        ((*name).to_owned(), found::Joined { names, address: None })
    });
    Found { id: "abcdef012345".to_owned(), networks: joined.collect(), anchor: None }
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

const LIVE: &str = "services:\n  web: { image: web, networks: { front: { aliases: [www] } } }\n  \
    db: { image: db, networks: { front: { ipv4_address: 10.9.0.7 } } }\nnetworks: { front: {} }\n";
const CANDIDATE: &str = "services:\n  web: { image: web, networks: { front: {}, back: { aliases: [inner] } } }\n\
    networks: { front: {}, back: {} }\n";

#[test]
fn an_anchor_is_what_both_releases_want() {
    let (live, candidate) = (spec(LIVE), spec(CANDIDATE));
    let wanted = Wanted::of("shop", "web", &[&live, &candidate], Some(&live));
    let front = &wanted.networks["shop_front"];
    assert_eq!((&front.names, &front.others), (&set(&["web", "www"]), &set(&["db"])));
    assert_eq!(front.reserved, BTreeSet::from(["10.9.0.7".parse().unwrap()]), "the file gives it to another");
    assert_eq!(wanted.networks["shop_back"].names, set(&["inner", "web"]));
}

#[test]
fn one_that_runs_is_joined_to_what_it_lacks_and_keeps_what_does_no_harm() {
    let (live, candidate) = (spec(LIVE), spec(CANDIDATE));
    let there = found(&[("shop_front", &["web", "www"])]);
    let of = |spec: &Spec| Wanted::of("shop", "web", &[spec], Some(spec));
    assert_eq!(lacks(&there, &of(&live)), Lacks::default());
    let both = Wanted::of("shop", "web", &[&live, &candidate], Some(&live));
    assert_eq!(lacks(&there, &both), Lacks { join: set(&["shop_back"]), ..Lacks::default() });

    // The alias that is gone hurts nobody; a name that is another service's does.
    assert_eq!(lacks(&there, &of(&candidate)).again, set(&[]));
    let other = spec("services:\n  web: { image: web }\n  www: { image: www }\n");
    let there = found(&[("shop_default", &["web", "www"]), ("shop_front", &["web"])]);
    let lacks = lacks(&there, &of(&other));
    assert_eq!(
        lacks,
        Lacks { again: set(&["shop_default"]), leave: set(&["shop_front"]), ..Lacks::default() }
    );
}

/// The names on `shop_front`, while a deploy goes from one release to the other and after its switch.
fn names_over(before: &Spec, after: &Spec, service: &str) -> [BTreeSet<String>; 2] {
    [before, after].map(|by| {
        let wanted = Wanted::of("shop", service, &[before, after], Some(by));
        wanted.networks["shop_front"].names.clone()
    })
}

#[test]
fn a_name_that_replicas_carry_themselves_goes_to_the_anchor_with_the_switch_and_back() {
    let (with, without) = (spec(LIVE), plain(LIVE));
    let names = set(&["web", "www"]);
    assert_eq!(names_over(&without, &with, "web"), [set(&[]), names.clone()]);
    assert_eq!(names_over(&with, &without, "web"), [names.clone(), set(&[])]);

    // It is there without its names first, and loses them where the others get them.
    let (there, named) = (found(&[("shop_front", &[])]), found(&[("shop_front", &["web", "www"])]));
    let by = |by| Wanted::of("shop", "web", &[&without, &with], Some(by));
    assert_eq!(lacks(&there, &by(&without)), Lacks::default());
    for (found, by) in [(&there, by(&with)), (&named, by(&without))] {
        assert_eq!(lacks(found, &by), Lacks { again: set(&["shop_front"]), ..Lacks::default() });
    }
}

#[test]
fn a_name_that_moves_to_another_service_is_never_on_two_anchors() {
    let before = spec(LIVE);
    let after = "services:\n  web: { image: web, networks: [front] }\n  www: { image: www, networks: [front] }\n\
        networks: { front: {} }\n";
    let after = spec(after);
    assert_eq!(names_over(&before, &after, "web"), [set(&["web", "www"]), set(&["web"])]);
    assert_eq!(names_over(&before, &after, "www"), [set(&[]), set(&["www"])]);
}

#[test]
fn an_address_of_others_is_never_taken() {
    let network: bollard::models::NetworkInspect = serde_json::from_str(
        r#"{"Labels":{"bulsa.owner":"me"},
        "IPAM":{"Config":[{"Subnet":"10.9.0.0/28","Gateway":"10.9.0.1","AuxiliaryAddresses":{"printer":"10.9.0.14"}}]},
        "Containers":{"one":{"IPv4Address":"10.9.0.13/28"},"own":{"IPv4Address":"10.9.0.12/28"}}}"#,
    )
    .unwrap();
    let address = |last: u8| Ipv4Addr::new(10, 9, 0, last);
    let reserved = BTreeSet::from([address(11)]);
    let choose = |former, own| address::choose(network.clone(), former, &reserved, own);
    assert_eq!(choose(None, None), [address(10), address(9), address(8)]);
    assert_eq!(choose(Some(address(5)), None), [address(5), address(10), address(9)]);
    assert_eq!(choose(Some(address(12)), Some("own"))[0], address(12), "its own is free for it");
    assert_eq!(choose(Some(address(14)), None)[0], address(10));
}

#[test]
fn a_replica_is_no_anchor_whatever_its_labels_say() {
    let labels = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), "x".to_owned())).collect();
    assert_eq!(service_of(&labels(&[SERVICE])), Some("x"));
    assert_eq!(service_of(&labels(&[SERVICE, label::REPLICA])), None);
}

#[test]
fn the_short_id_that_old_engines_add_is_no_name() {
    let inspected = serde_json::from_str(
        r#"{"Id":"abcdef0123456789","State":{"Running":true,"Pid":7},
        "Config":{"Labels":{"bulsa.anchor":"web","bulsa.project":"shop"}},
        "NetworkSettings":{"Networks":{"shop_default":{"Aliases":["web","a","abcdef012345"],"IPAddress":"10.9.0.2"}}}}"#,
    );
    let found = found::read(inspected.unwrap()).unwrap();
    // A name that the id happens to begin with is one.
    assert_eq!(found.networks["shop_default"].names, set(&["web", "a"]));
    assert_eq!(found.anchor.map(|anchor| anchor.pid), Some(7));
}
