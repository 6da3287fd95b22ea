//! What is different on the docker engine: shared services that Docker keeps, names served inside networks, containers
//! that take long to be made.

use std::collections::{BTreeMap, BTreeSet};

use bulsa_core::{
    decide::{Event, Outcome, ReleaseState, ReplicaPhase, Request, observed::FORGET_AFTER},
    health::{ProbeResult, Verdict},
    ids::ReleaseId,
    plan::{Drift, plan},
    spec::{Condition::Healthy, Rolling},
};

use crate::{
    build::{AGES, BAKE, GATE, Svc, app, secs, shared, v},
    world::{EXIT_1, World, id},
};

fn cache() -> Svc {
    shared("cache").docker()
}

fn shop() -> World {
    World::up(&v(1, [app("web").docker(), cache()]))
}

fn without_cache(version: u32) -> std::sync::Arc<bulsa_core::spec::Spec> {
    v(version, [app("web").docker()])
}

fn unserved(reason: Option<&str>) -> Event {
    Event::Names { unserved: BTreeMap::from([("web".to_owned(), reason.map(str::to_owned))]) }
}

#[test]
fn a_candidate_waits_for_its_names_inside_the_networks() {
    let mut w = shop();
    w.observed.apply(unserved(None), w.now);
    w.deploy(&v(2, [app("web").docker().anchored(), cache()]));
    assert!(!w.is_baking(), "{:?}", w.log());
    w.event(Event::Names { unserved: BTreeMap::new() });
    assert!(w.is_baking());
}

#[test]
fn names_that_cannot_be_served_fail_the_deploy_and_change_nothing() {
    let mut w = shop();
    w.observed.apply(unserved(Some("the name `web` can't be served")), w.now);
    w.deploy(&v(2, [app("web").docker().anchored(), cache()]));
    assert_eq!(w.outcome(), Some(Outcome::Failed));
    assert_eq!(w.reason(), "the name `web` can't be served");
    w.pass(AGES);
    assert_eq!(w.routed(), "web-r1-1.1");
}

#[test]
fn a_name_that_is_gone_later_does_not_matter_to_those_without_one() {
    let mut w = shop();
    w.observed.apply(unserved(Some("no")), w.now);
    w.deploy(&v(2, [app("web").docker(), cache()]));
    assert!(w.is_baking());
}

#[test]
fn a_shared_container_is_never_killed_for_its_health() {
    for result in [ProbeResult::NoAnswer, ProbeResult::BadAnswer] {
        let mut w = shop();
        w.log();
        w.probed("cache-r0-1.1", result, 5);
        w.pass(AGES);
        assert_eq!(w.log(), Vec::<String>::new());
    }
}

#[test]
fn one_that_never_gets_ready_is_left_running() {
    let mut w = World::empty();
    w.slow = vec!["cache"];
    w.deploy(&v(1, [app("web").docker(), cache()]));
    w.starts("cache-r0-1.1");
    w.pass(AGES);
    assert_eq!(w.outcome(), Some(Outcome::Failed));
    assert!(w.runs("cache-r0-1.1"));
}

#[test]
fn it_is_healthy_again_once_it_answers() {
    let mut w = shop();
    w.probed("cache-r0-1.1", ProbeResult::NoAnswer, 3);
    let verdict = |w: &World| w.observed.replica(&id("cache-r0-1.1")).unwrap().health.verdict();
    assert_eq!(verdict(&w), Verdict::Failed { hung: true });
    assert!(w.probes.contains_key(&id("cache-r0-1.1")));
    w.probed("cache-r0-1.1", ProbeResult::Pass, 2);
    assert_eq!(verdict(&w), Verdict::Ready);
}

#[test]
fn a_deploy_waits_for_it_and_never_touches_it() {
    let spec = |version| v(version, [app("web").docker().needs("cache", Healthy), cache()]);
    let mut w = World::up(&spec(1));
    w.probed("cache-r0-1.1", ProbeResult::BadAnswer, 3);
    w.deploy(&spec(2));
    assert!(!w.runs("web-r2-1.1"), "it waits");
    w.probed("cache-r0-1.1", ProbeResult::Pass, 2);
    assert!(w.is_baking());
    w.pass(AGES);
    assert_eq!(w.running(), "cache-r0-1.1 web-r2-1.1");
}

#[test]
fn one_that_the_new_file_has_no_more_runs_on_until_the_project_goes_down() {
    let mut w = shop();
    for version in 2..5 {
        w.deploy(&without_cache(version));
        w.pass(AGES);
    }
    assert_eq!(w.running(), "cache-r0-1.1 web-r4-1.1");
    w.another_agent();
    w.desired.releases.remove(&ReleaseId(1));
    w.pass(AGES);
    assert!(w.runs("cache-r0-1.1"), "also when no release tells of it any more");
    w.ask(Request::Down).unwrap();
    assert_eq!(w.running(), "");
}

#[test]
fn what_only_a_failed_deploy_brought_is_taken_back() {
    let mut w = World::up(&without_cache(1));
    w.slow = vec!["web-r2"];
    w.deploy(&v(2, [app("web").docker(), cache()]));
    assert_eq!(w.running(), "cache-r0-1.2 web-r1-1.1 web-r2-1.2".replace(".2", ".1"));
    w.start_fails("web-r2-1.1", true);
    assert_eq!((w.outcome(), w.running()), (Some(Outcome::Failed), "web-r1-1.1".to_owned()));
}

#[test]
fn a_process_that_the_new_file_has_no_more_ends_with_its_release() {
    let mut w = World::up(&v(1, [app("web"), shared("cache")]));
    w.deploy(&v(2, [app("web")]));
    w.pass(AGES);
    assert_eq!(w.running(), "web-r2-1.1");
}

#[test]
fn one_that_is_really_gone_is_started_and_a_restart_goes_without_overlap() {
    let mut w = shop();
    w.pass(secs(1));
    w.log();
    w.dies("cache-r0-1.1", EXIT_1);
    assert_eq!(w.log_of(&["start"]), ["start cache-r0-1.2 (Died)"]);
    w.pass(secs(1));
    w.ask(Request::Restart { service: "cache".to_owned() }).unwrap();
    assert_eq!(w.log_of(&["start", "stop"]), ["stop cache-r0-1.2", "start cache-r0-1.3 (New)"]);
}

#[test]
fn the_plan_says_that_it_is_kept() {
    let w = shop();
    let plan = plan(&w.desired, &without_cache(2), "new", &Drift::default());
    let step = plan.steps.iter().find(|step| step.service.as_deref() == Some("cache")).unwrap();
    assert_eq!(
        (step.action, step.text.as_str()),
        ("keep", "no longer in the file; shared: it runs on until the project goes down")
    );
}

/// An app without a published port, whose name is served inside the networks.
fn inner(name: &str) -> Svc {
    app(name).docker().with(|service| {
        service.ports.clear();
        service.container.as_mut().unwrap().anchor = vec![3000];
    })
}

#[test]
fn a_name_inside_the_networks_is_routed_as_a_published_port_is() {
    let mut w = World::up(&v(1, [inner("api")]));
    assert_eq!(w.routed(), "api-r1-1.1");
    w.dies("api-r1-1.1", EXIT_1);
    assert_eq!(w.routed(), "api-r1-1.2");
    let mut other = World::up(&v(1, [plain("api")]));
    other.step();
    assert!(other.table.unwrap().routes.is_empty(), "one that carries its own name isn't");
}

/// One whose replicas carry the name themselves.
fn plain(name: &str) -> Svc {
    inner(name).with(|service| service.container.as_mut().unwrap().anchor.clear())
}

/// By which release the name of `api` goes, where its anchor leads, and to whom.
fn name_of_api(w: &World) -> (u32, Vec<u16>, String) {
    (w.desired.named_by("api").unwrap().0, w.desired.anchor_ports("api").into_iter().collect(), w.routed())
}

fn leads(release: u32, to: &str) -> (u32, Vec<u16>, String) {
    (release, if to.is_empty() { vec![] } else { vec![3000] }, to.to_owned())
}

#[test]
fn the_first_anchor_of_a_service_leads_nowhere_before_the_switch() {
    let mut w = World::up(&v(1, [plain("api")]));
    w.slow = vec!["api-r2"];
    w.deploy(&v(2, [inner("api")]));
    assert_eq!(name_of_api(&w), leads(1, ""));
    w.starts("api-r2-1.1");
    w.gets_ready("api-r2-1.1");
    assert!(w.is_baking());
    assert_eq!(name_of_api(&w), leads(2, "api-r2-1.1"));
}

#[test]
fn an_anchor_that_has_lost_its_name_leads_to_the_new_replicas_as_long_as_it_is_there() {
    let mut w = World::up(&v(1, [inner("api")]));
    assert_eq!(name_of_api(&w), leads(1, "api-r1-1.1"));
    w.slow = vec!["api-r2"];
    w.deploy(&v(2, [plain("api")]));
    assert_eq!(name_of_api(&w), leads(1, "api-r1-1.1"));
    w.starts("api-r2-1.1");
    w.gets_ready("api-r2-1.1");
    assert_eq!(name_of_api(&w), leads(2, "api-r2-1.1"));
    w.pass(BAKE + secs(1));
    assert_eq!((w.outcome(), name_of_api(&w)), (Some(Outcome::Deployed), leads(2, "api-r2-1.1")));
    w.pass(AGES);
    assert_eq!(
        (w.running(), name_of_api(&w)),
        ("api-r2-1.1".to_owned(), leads(2, "")),
        "gone with its release"
    );

    w.deploy(&v(3, [inner("api")]));
    w.pass(AGES);
    assert_eq!(name_of_api(&w), leads(3, "api-r3-1.1"), "{:?}", w.outcome());
}

#[test]
fn an_anchor_has_the_name_while_those_who_carried_it_make_room() {
    let mut w = World::up(&v(1, [plain("api")]));
    w.slow = vec!["api-r2"];
    w.deploy(&v(2, [inner("api").stop_first()]));
    assert!(w.runs("api-r2-1.1"), "{}", w.running());
    assert_eq!(
        (w.desired.named_by("api"), w.desired.anchor_ports("api")),
        (Some(ReleaseId(2)), [3000].into())
    );
    assert!(w.table.as_ref().unwrap().routes["api"].targets.is_empty(), "requests are held");
    w.starts("api-r2-1.1");
    w.gets_ready("api-r2-1.1");
    assert_eq!(name_of_api(&w), leads(2, "api-r2-1.1"));

    let how = Rolling { parallelism: 1, stop_first: true, delay: secs(0) };
    let mut w = World::up(&v(1, [plain("api").replicas(2)]));
    w.slow = vec!["api-r2-2"];
    w.deploy(&v(2, [inner("api").replicas(2).rolling(how)]));
    assert_eq!(w.running(), "api-r2-1.1 api-r2-2.1");
    assert_eq!(name_of_api(&w), leads(2, "api-r2-1.1"));
    w.starts("api-r2-2.1");
    w.gets_ready("api-r2-2.1");
    assert!(w.is_baking());
}

#[test]
fn a_container_serves_once_its_address_is_known() {
    let mut w = World::up(&v(1, [inner("api"), cache()]));
    for name in ["api-r1-1.1", "cache-r0-1.1"] {
        let service = w.desired.service(id(name).release, &id(name).service).unwrap().clone();
        assert!(w.observed.replica(&id(name)).unwrap().serves(&service));
        w.observed.apply(Event::Listening { id: id(name), addr: None }, w.now);
        assert!(!w.observed.replica(&id(name)).unwrap().serves(&service), "{name}");
    }
}

fn lists(w: &mut World, creating: &str) {
    let creating = if creating.is_empty() { BTreeSet::new() } else { [id(creating)].into() };
    w.event(Event::Listed { replicas: BTreeMap::new(), creating, as_of: w.now });
}

#[test]
fn a_container_may_take_a_minute_to_be_made_and_longer_while_the_engine_has_it() {
    let mut w = World::empty();
    w.slow = vec!["web"];
    w.deploy(&v(1, [app("web").docker().with(|service| service.gate_timeout = GATE * 3)]));
    w.pass(secs(59));
    lists(&mut w, "");
    assert!(!w.runs("web-r1-1.2"));
    w.pass(secs(30));
    lists(&mut w, "web-r1-1.1");
    assert!(!w.runs("web-r1-1.2"));
    assert_eq!(w.observed.replica(&id("web-r1-1.1")).unwrap().phase, ReplicaPhase::Starting);
    lists(&mut w, "");
    assert!(w.runs("web-r1-1.2"));
}

#[test]
fn a_first_release_that_never_was_healthy_is_nothing_to_go_back_to() {
    let mut w = World::empty();
    w.slow = vec!["web-r1"];
    w.deploy(&v(1, [app("web")]));
    w.starts("web-r1-1.1");
    w.pass(GATE + GATE + AGES);
    assert_eq!(w.outcome(), Some(Outcome::Failed));
    w.deploy(&v(2, [app("web")]));
    assert!(w.is_baking());
    assert_eq!(w.state(1), ReleaseState::Failed);
    assert_eq!(w.running(), "web-r2-1.1", "it isn't kept warm");
    assert!(w.ask(Request::Rollback { to: None }).is_err());
    w.dies("web-r2-1.1", EXIT_1);
    assert_eq!(w.outcome(), Some(Outcome::Failed));
    assert!(
        w.reason().ends_with("r1 never was healthy, so there is nothing to go back to"),
        "{}",
        w.reason()
    );
    assert_eq!(w.routed(), "web-r2-1.2", "it stays and is healed");
}

#[test]
fn a_first_release_that_serves_after_all_is() {
    let mut w = World::empty();
    w.slow = vec!["web-r1-1.1"];
    w.deploy(&v(1, [app("web")]));
    w.starts("web-r1-1.1");
    w.pass(GATE + secs(5));
    assert_eq!(w.outcome(), Some(Outcome::Failed));
    assert!(w.log().contains(&"proven r1".to_owned()));
    w.deploy(&v(2, [app("web")]));
    assert!(matches!(w.state(1), ReleaseState::Warm { .. }));
    w.pass(BAKE);
    w.rollback(None);
    assert_eq!(w.routed(), "web-r1-1.2");
}

#[test]
fn slots_of_releases_that_run_no_more_are_forgotten_and_their_names_stay_used() {
    let mut w = World::baking(&[v(1, [app("web")]), v(2, [app("web")])]);
    w.pass(AGES);
    assert_eq!(w.state(1), ReleaseState::Retired);
    assert!(w.observed.slot(&id("web-r1-1.1").slot()).is_some() || AGES > FORGET_AFTER);
    w.pass(FORGET_AFTER);
    assert!(w.observed.slot(&id("web-r1-1.1").slot()).is_none());
    assert!(w.observed.slot(&id("web-r2-1.1").slot()).is_some());
    w.rollback(Some(1));
    assert_eq!(w.routed(), "web-r1-1.2");
}
