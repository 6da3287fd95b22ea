use super::*;
use crate::wire::api::{Again, ProbeSeen};

const NOW: u64 = 1_000_000_000;

fn service(state: ServiceState, ready: u32) -> ServiceView {
    ServiceView {
        name: "web".to_owned(),
        role: "app".to_owned(),
        desired: 2,
        ready,
        withheld: 0,
        state,
        reason: None,
        held: None,
        urls: Vec::new(),
        restarts: 0,
        next_retry_at_ms: None,
        finding: None,
        replicas: Vec::new(),
    }
}

fn incident(cause: &str, status: Option<&str>, ready_for_ms: Option<u64>) -> Incident {
    Incident {
        replica: "web-r3-1.5".to_owned(),
        cause: cause.to_owned(),
        detected_at_ms: NOW - 65_000,
        recovered_at_ms: Some(NOW - 65_000 + 1_400),
        evidence: Evidence { status: status.map(str::to_owned), ready_for_ms, ..Evidence::default() },
        ..Incident::default()
    }
}

#[test]
fn a_service_without_incidents_says_so() {
    let why = why(&service(ServiceState::Healthy, 2), Vec::new(), NOW);
    assert_eq!(why.verdict, "`web` is healthy; 2 of 2 replicas serve, and no incident is remembered");
    assert!(why.advice.is_empty());
}

#[test]
fn a_hang_that_is_over_is_told_with_its_evidence_and_cost() {
    let mut hung = incident("hung", Some("signal 9"), Some(3_600_000));
    hung.evidence.probes = vec![ProbeSeen {
        since_ms: NOW - 68_000,
        at_ms: NOW - 66_000,
        text: "no answer within 1s".to_owned(),
        times: 3,
    }];
    hung.evidence.last_lines = vec!["listening".to_owned()];
    hung.requests_lost = 2;
    let why = why(&service(ServiceState::Healthy, 2), vec![hung], NOW);
    assert_eq!(
        why.verdict,
        "`web` is healthy, 2 of 2 replicas serve. web-r3-1 hung after 60 min of service and was killed 65 s ago (its last probe: no \
         answer within 1s); its place served again after 1.4 s, and 2 requests were lost"
    );
    assert!(why.advice[0].contains("answered none"), "{:?}", why.advice);
}

#[test]
fn a_crash_loop_names_the_last_line_of_the_last_try_and_the_next() {
    let mut dead = incident("killed", Some("signal 9"), Some(5_000));
    dead.recovered_at_ms = None;
    let mut again = Again {
        deaths: 6,
        replica: "web-r3-1.11".to_owned(),
        cause: "exited".to_owned(),
        ..Again::default()
    };
    again.evidence.status = Some("code 1".to_owned());
    again.evidence.last_lines =
        vec!["Error: listen EADDRINUSE: address already in use".to_owned(), String::new()];
    dead.again = Some(again);
    let next = ServiceView { next_retry_at_ms: Some(NOW + 12_000), ..service(ServiceState::CrashLooping, 0) };
    let looping = why(&next, vec![dead.clone()], NOW);
    assert_eq!(
        looping.verdict,
        "`web` is crash-looping, and tried again more and more slowly, the next in 12 s: web-r3-1 exited with 1 before it was ready \
         (its last line: `Error: listen EADDRINUSE: address already in use`), and there were 7 deaths in a row"
    );
    assert!(looping.advice[0].contains("its port is taken"), "{:?}", looping.advice);
    assert_eq!(
        looping.advice.len(),
        2,
        "two signs with one meaning are one piece of advice: {:?}",
        looping.advice
    );
    let down = why(&service(ServiceState::Down, 0), vec![dead], NOW);
    assert_eq!(
        down.verdict,
        "`web` is down, 0 of 2 replicas serve: web-r3-1 was killed by SIGKILL after 5.0 s of service 65 s ago, and who was to take its \
         place did not serve: web-r3-1 exited with 1 before it was ready (its last line: `Error: listen EADDRINUSE: address already in use`)"
    );
}

#[test]
fn a_place_that_is_not_filled_yet_is_said_to_be_so() {
    let mut dead = incident("killed", Some("signal 9"), Some(9_500));
    dead.recovered_at_ms = None;
    let why = why(&service(ServiceState::Degraded, 1), vec![dead], NOW);
    assert_eq!(
        why.verdict,
        "`web` is degraded, 1 of 2 replicas serve: web-r3-1 was killed by SIGKILL after 9.5 s of service 65 s ago (it said \
         nothing), and its place is not filled yet"
    );
    assert!(why.advice[0].contains("want of memory"), "{:?}", why.advice);
}

#[test]
fn a_place_that_was_given_up_is_no_open_wound() {
    let mut dead = incident("exited", Some("code 1"), None);
    (dead.recovered_at_ms, dead.given_up_at_ms) = (None, Some(NOW - 60_000));
    let why = why(&service(ServiceState::Healthy, 2), vec![dead], NOW);
    assert_eq!(
        why.verdict,
        "`web` is healthy, 2 of 2 replicas serve. The last to die was of a place that was given up then: web-r3-1 exited with 1 before \
         it was ready 65 s ago (it said nothing)"
    );
}

#[test]
fn every_end_has_its_words() {
    let said = |cause, status| what_happened(cause, &incident(cause, status, Some(1_000)).evidence);
    assert_eq!(said("exited", Some("code 0")), "ended by itself with exit 0 after 1.0 s of service");
    assert_eq!(said("exited", Some("code 127")), "exited with 127 after 1.0 s of service");
    assert_eq!(said("exited", Some("signal 11")), "was ended by SIGSEGV after 1.0 s of service");
    assert_eq!(said("exited", Some("signal 34")), "was ended by signal 34 after 1.0 s of service");
    assert_eq!(said("exited", None), "ended after 1.0 s of service and nobody saw how");
}

#[test]
fn want_of_memory_is_said_with_what_proves_it() {
    let mut dead = incident("out of memory", Some("signal 9"), Some(9_500));
    dead.evidence.out_of_memory = Some("the Docker Engine saw its container run out of memory".to_owned());
    dead.evidence.last_lines = vec!["GET /".to_owned()];
    let why = why(&service(ServiceState::Healthy, 2), vec![dead], NOW);
    assert_eq!(
        why.verdict,
        "`web` is healthy, 2 of 2 replicas serve. web-r3-1 was killed for want of memory after 9.5 s of service 65 s ago (the Docker \
         Engine saw its container run out of memory); its place served again after 1.4 s, and 0 requests were lost"
    );
    assert_eq!(why.advice.len(), 1);
    assert!(why.advice[0].contains("mem_limit"), "{:?}", why.advice);
}

#[test]
fn deaths_after_the_same_time_look_like_a_leak() {
    let after = |minutes| incident("exited", Some("code 1"), Some(minutes * MINUTE_MS));
    let regular = why(&service(ServiceState::Healthy, 2), vec![after(60), after(66), after(61)], NOW);
    assert!(regular.advice.iter().any(|text| text.contains("a leak")), "{:?}", regular.advice);
    let irregular = why(&service(ServiceState::Healthy, 2), vec![after(60), after(6), after(61)], NOW);
    assert!(!irregular.advice.iter().any(|text| text.contains("a leak")), "{:?}", irregular.advice);
}

#[test]
fn a_request_that_was_with_two_dead_replicas_is_named() {
    let mut dead = incident("exited", Some("code 1"), Some(5_000));
    dead.evidence.suspect_request = Some("POST /pay (request 4f)".to_owned());
    let why = why(&service(ServiceState::Healthy, 2), vec![dead], NOW);
    assert!(why.advice[0].starts_with("POST /pay (request 4f) was with two replicas"), "{:?}", why.advice);
}

#[test]
fn a_long_line_is_cut_between_two_characters() {
    let long = "가".repeat(QUOTE_CHARS_MAX + 1);
    assert_eq!(quoted(&long), format!("{}…", "가".repeat(QUOTE_CHARS_MAX)));
}

#[test]
fn evidence_of_an_earlier_version_is_read_with_what_it_has() {
    let old = r#"{"exit":"exit 1","last_probe":"passing","last_lines":["a"],"suspect_request":null}"#;
    let evidence: Evidence = serde_json::from_str(old).unwrap();
    assert_eq!((evidence.exit.as_str(), evidence.last_lines.len(), evidence.probes.len()), ("exit 1", 1, 0));
}

#[test]
fn what_is_found_out_without_an_incident_is_told_too() {
    let finding = Some("it fails while `redis`, which it needs, doesn't serve".to_owned());
    let left_alone = ServiceView { reason: finding.clone(), finding, ..service(ServiceState::Down, 0) };
    let verdict = why(&left_alone, Vec::new(), NOW).verdict;
    assert_eq!(verdict.matches("it fails while `redis`").count(), 1, "{verdict}");
    let incident =
        Incident { replica: "web-r3-1.5".to_owned(), cause: "killed".to_owned(), ..Incident::default() };
    let verdict = why(&left_alone, vec![incident], NOW).verdict;
    assert!(verdict.ends_with(". Now it fails while `redis`, which it needs, doesn't serve"), "{verdict}");
}

#[test]
fn nobody_is_told_what_to_look_at_after_a_drill() {
    let mut wanted = incident("hung", None, Some(4_000));
    assert!(!why(&service(ServiceState::Healthy, 2), vec![wanted.clone()], NOW).advice.is_empty());
    wanted.evidence.asked_by = Some("a drill (`hang`)".to_owned());
    assert_eq!(why(&service(ServiceState::Healthy, 2), vec![wanted], NOW).advice, Vec::<String>::new());
}
