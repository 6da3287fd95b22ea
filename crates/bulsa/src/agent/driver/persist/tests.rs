//! What is committed comes back: through a real store that is closed and opened again.

use bulsa_core::decide::{Admission, Change as CoreChange, Request, admit::admit};
use proptest::prelude::*;

use super::*;
use crate::agent::store::{Store, Stored};

fn spec(version: u32) -> Spec {
    let text = format!(
        "name: shop\nservices:\n  web:\n    command: [\"true\"]\n    environment: {{ V: \"{version}\" }}\n    ports: [\"8080:3000\"]\n  \
         job:\n    command: [\"true\"]\n  cache:\n    image: redis\n"
    );
    let files = vec![bulsa_core::compose::SourceFile { path: "compose.yaml".to_owned(), text }];
    let mut read = |_: &str| Err(bulsa_core::compose::ReadError::NotFound);
    let loaded = bulsa_core::compose::load(bulsa_core::compose::LoadInput::new(files, "/srv", &mut read));
    loaded.spec.unwrap_or_else(|| panic!("{}", loaded.diagnostics))
}

/// Some deploys name the cache.
fn named(version: u32) -> BTreeSet<String> {
    if version.is_multiple_of(2) { BTreeSet::from(["cache".to_owned()]) } else { BTreeSet::new() }
}

/// What may happen to a project, in any order; what makes no sense is left out by the core.
#[derive(Clone, Debug)]
enum Op {
    Ask(Request),
    Step(u8),
}

fn any_op() -> impl Strategy<Value = Op> {
    let web = || "web".to_owned();
    prop_oneof![
        (1_u32..6).prop_map(|v| Op::Ask(Request::Deploy {
            spec: Arc::new(spec(v)),
            hash: format!("h{}", v / 2),
            recreate: named(v)
        })),
        Just(Op::Ask(Request::Rollback { to: None })),
        Just(Op::Ask(Request::Stop { service: web() })),
        Just(Op::Ask(Request::Start { service: web() })),
        Just(Op::Ask(Request::Restart { service: web() })),
        (1_u32..4).prop_map(move |replicas| Op::Ask(Request::Scale { service: web(), replicas })),
        any::<bool>().prop_map(move |on| Op::Ask(Request::Hold { services: [web()].into(), on })),
        Just(Op::Ask(Request::Down)),
        (0_u8..8).prop_map(Op::Step),
    ]
}

/// The changes that an operation leads to.
fn changes(desired: &Desired, op: &Op, now: Timestamp) -> Vec<CoreChange> {
    let reason = "it crashed".to_owned();
    match op {
        Op::Ask(request) => match admit(desired, request.clone(), now) {
            Ok(Admission::Accepted { changes, .. }) => changes,
            Ok(Admission::AlreadySo(_)) | Err(_) => Vec::new(),
        },
        Op::Step(_) if desired.running().is_none() => Vec::new(),
        Op::Step(6) => vec![CoreChange::Revert { reason, at: now }],
        Op::Step(0 | 1) => vec![CoreChange::Switch { at: now }],
        Op::Step(2) => vec![CoreChange::Exchange { at: now }],
        Op::Step(5) => {
            let replicas = u32::try_from(now.0 % 7).unwrap_or(1);
            vec![CoreChange::Move { service: "web".to_owned(), replicas }]
        }
        Op::Step(3) => vec![CoreChange::Undo { reason, at: now }],
        Op::Step(4) => {
            vec![CoreChange::Finish { outcome: Outcome::Deployed, reason: String::new(), at: now }]
        }
        Op::Step(_) => {
            let release = desired.live.unwrap_or(ReleaseId(1));
            vec![CoreChange::JobDone { release, service: "job".to_owned(), success: now.0.is_multiple_of(2) }]
        }
    }
}

fn restored(stored: &Stored) -> (Desired, Vec<String>) {
    let mut problems = Vec::new();
    let project = stored.projects.iter().find(|project| project.name == "shop");
    (project.map(|row| restore(row, &mut problems)).unwrap_or_default(), problems)
}

/// Positions aren't kept: they belong to a file that may have changed.
fn without_positions(mut desired: Desired) -> Desired {
    for release in desired.releases.values_mut() {
        let mut spec = (*release.spec).clone();
        for service in spec.services.values_mut() {
            service.position.clear();
        }
        release.spec = Arc::new(spec);
    }
    // A wish that was taken back leaves nothing.
    desired.wishes.retain(|_, wish| *wish != Wish::default());
    desired
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_is_committed_comes_back(ops in prop::collection::vec(any_op(), 1..30)) {
        let directory = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut desired = Desired::default();
        runtime.block_on(async {
            let (store, _) = Store::open(directory.path()).unwrap();
            // The driver knows no project before its first deploy.
            let first = Op::Ask(Request::Deploy { spec: Arc::new(spec(0)), hash: "h0".to_owned(), recreate: [].into() });
            for (i, op) in [first].iter().chain(&ops).enumerate() {
                let mut after = desired.clone();
                let now = Timestamp(1_000 + i as u64);
                for change in changes(&desired, op, now) {
                    after.apply(&change);
                }
                let about = About { sources: "[]".to_owned(), created_at_ms: now.0, notify: None };
                store.commit_all(difference("shop", &desired, &after, &about).unwrap()).await.unwrap();
                desired = after;
            }
            store.close().await.unwrap();
        });
        let (_, stored) = Store::open(directory.path()).unwrap();
        let (back, problems) = restored(&stored);
        prop_assert_eq!(problems, Vec::<String>::new());
        prop_assert_eq!(without_positions(back), without_positions(desired));
    }
}

#[test]
fn a_state_that_a_later_version_wrote_is_named_and_left_out() {
    let mut problems = Vec::new();
    let row = ProjectRow {
        name: "shop".to_owned(),
        releases: vec![ReleaseRow {
            id: 3,
            spec: serde_json::to_string(&SpecV1::from(&spec(1))).unwrap(),
            state: "hibernating".to_owned(),
            ..ReleaseRow::default()
        }],
        ..ProjectRow::default()
    };
    assert!(restore(&row, &mut problems).releases.is_empty());
    assert!(problems[0].contains("r3") && problems[0].contains("hibernating"), "{problems:?}");
}

#[test]
fn wishes_that_an_older_version_wrote_hold_no_requests() {
    let wish = |kind: &str, value: &str| WishRow {
        project: "shop".to_owned(),
        service: "web".to_owned(),
        kind: kind.to_owned(),
        value: value.to_owned(),
        at_ms: 0,
    };
    let mut wishes = vec![wish("stopped", ""), wish("scale", "3"), wish("restart", "7")];
    let back = |wishes: &[WishRow]| {
        let mut problems = Vec::new();
        let row = ProjectRow { name: "shop".to_owned(), wishes: wishes.to_vec(), ..ProjectRow::default() };
        let wish = restore(&row, &mut problems).wish("web");
        assert_eq!(problems, Vec::<String>::new());
        wish
    };
    let expected = Wish { stopped: true, replicas: Some(3), restart: Some(Timestamp(7)), held: None };
    assert_eq!(back(&wishes), expected);
    wishes.push(wish("held", "9"));
    assert_eq!(back(&wishes), Wish { held: Some(Timestamp(9)), ..expected });
}
