use std::{fs, os::unix::fs::MetadataExt};

use bulsa_core::wire::api::{Again, Evidence, Incident};
use tempfile::TempDir;

use super::*;

fn release(id: u32) -> ReleaseRow {
    ReleaseRow {
        project: "shop".to_owned(),
        id,
        spec: format!("{{\"n\":{id}}}"),
        content_hash: format!("hash{id}"),
        sources: "[]".to_owned(),
        created_at_ms: 1_000 + u64::from(id),
        state: "live".to_owned(),
    }
}

fn deployment(id: u32, outcome: Option<&str>) -> DeploymentRow {
    DeploymentRow {
        project: "shop".to_owned(),
        id,
        kind: "deploy".to_owned(),
        candidate: id,
        previous: id.checked_sub(1),
        phase: "gate".to_owned(),
        started_at_ms: 5,
        outcome: outcome.map(str::to_owned),
        ..DeploymentRow::default()
    }
}

fn event(id: u64) -> Record {
    let event = Event {
        id,
        at_ms: id * 10,
        project: "shop".to_owned(),
        kind: "replica.died".to_owned(),
        service: Some("web".to_owned()),
        replica: None,
        text: format!("event {id}"),
        detail: None,
    };
    Record::Event(event)
}

fn wish(kind: &str, value: &str) -> Change {
    Change::SetWish(WishRow {
        project: "shop".to_owned(),
        service: "web".to_owned(),
        kind: kind.to_owned(),
        value: value.to_owned(),
        at_ms: 9,
    })
}

/// The files as a machine that lost power right now would have them.
fn copy_files(from: &Path) -> TempDir {
    let copy = TempDir::new().unwrap();
    for name in [FILE_NAME, "bulsa.db-wal"] {
        fs::copy(from.join(name), copy.path().join(name)).unwrap();
    }
    copy
}

#[test]
fn the_directory_and_the_files_are_for_their_owner_only() {
    let dir = TempDir::new().unwrap();
    let state = dir.path().join("a/b");
    let (_store, stored) = Store::open(&state).unwrap();
    assert_eq!(stored, Stored { next_id: 1, ..Stored::default() });
    assert_eq!(fs::metadata(&state).unwrap().mode() & 0o777, 0o700);
    for name in [FILE_NAME, "bulsa.db-wal", "bulsa.db-shm"] {
        assert_eq!(fs::metadata(state.join(name)).unwrap().mode() & 0o777, 0o600, "{name}");
    }
}

#[test]
fn the_connection_syncs_every_commit() {
    let dir = TempDir::new().unwrap();
    let connection = open_connection(dir.path()).unwrap();
    let synchronous: u8 = connection.pragma_query_value(None, "synchronous", |row| row.get(0)).unwrap();
    let journal: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
    assert_eq!((synchronous, journal.as_str()), (2, "wal"));
}

#[tokio::test]
async fn a_commit_that_returned_is_found_by_a_successor_that_only_has_the_files() {
    let dir = TempDir::new().unwrap();
    let (store, _) = Store::open(dir.path()).unwrap();
    store
        .commit_all(vec![
            Change::SaveRelease(release(1)),
            Change::SetLive { project: "shop".to_owned(), release: Some(1) },
            Change::SaveDeployment(deployment(1, None)),
            wish("scale", "3"),
            Change::SetValue {
                project: "shop".to_owned(),
                key: "color".to_owned(),
                value: Some("blue".to_owned()),
            },
            Change::SetValue {
                project: String::new(),
                key: "snapshot".to_owned(),
                value: Some("7".to_owned()),
            },
        ])
        .await
        .unwrap();

    let copy = copy_files(dir.path());
    let (_successor, stored) = Store::open(copy.path()).unwrap();
    let shop = &stored.projects[0];
    assert_eq!((shop.name.as_str(), shop.live), ("shop", Some(1)));
    assert_eq!(shop.releases, [release(1)]);
    assert_eq!(shop.deployments, [deployment(1, None)]);
    assert_eq!(
        shop.wishes.iter().map(|w| (w.kind.as_str(), w.value.as_str())).collect::<Vec<_>>(),
        [("scale", "3")]
    );
    assert_eq!(shop.values, [("color".to_owned(), "blue".to_owned())]);
    assert_eq!(stored.values, [("snapshot".to_owned(), "7".to_owned())]);
}

#[tokio::test]
async fn changes_that_fail_together_leave_nothing_behind() {
    let dir = TempDir::new().unwrap();
    let (store, _) = Store::open(dir.path()).unwrap();
    store.commit(Change::SaveRelease(release(1))).await.unwrap();
    Connection::open(dir.path().join(FILE_NAME))
        .unwrap()
        .execute_batch(
            "CREATE TRIGGER full BEFORE INSERT ON wishes BEGIN SELECT raise(ABORT, 'no room for wishes'); END",
        )
        .unwrap();
    let both = vec![Change::SaveRelease(release(2)), wish("stopped", "")];
    let error = store.commit_all(both).await.unwrap_err().to_string();
    assert!(error.contains("no room for wishes") && error.contains("intact"), "{error}");
    assert_eq!(store.releases("shop".to_owned()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn rows_are_replaced_and_taken_back() {
    let dir = TempDir::new().unwrap();
    let (store, _) = Store::open(dir.path()).unwrap();
    let project = || "shop".to_owned();
    for change in [
        Change::SaveProject { project: project() },
        Change::SaveRelease(release(1)),
        Change::SaveRelease(release(2)),
        Change::SetReleaseState { project: project(), release: 1, state: "retired".to_owned() },
        Change::DeleteRelease { project: project(), release: 2 },
        Change::SaveDeployment(deployment(1, None)),
        Change::SaveDeployment(deployment(1, Some("deployed"))),
        wish("scale", "3"),
        wish("scale", "4"),
        wish("stopped", ""),
        Change::ClearWish { project: project(), service: "web".to_owned(), kind: "stopped".to_owned() },
        Change::SetValue { project: project(), key: "k".to_owned(), value: Some("v".to_owned()) },
        Change::SetValue { project: project(), key: "k".to_owned(), value: None },
    ] {
        store.commit(change).await.unwrap();
    }
    assert_eq!(store.deployment(project(), 1).await.unwrap(), Some(deployment(1, Some("deployed"))));
    assert_eq!(store.deployment(project(), 2).await.unwrap(), None);
    store.close().await.unwrap();

    let (store, stored) = Store::open(dir.path()).unwrap();
    let shop = &stored.projects[0];
    assert_eq!(shop.releases.iter().map(|r| (r.id, r.state.as_str())).collect::<Vec<_>>(), [(1, "retired")]);
    assert_eq!(shop.wishes.iter().map(|w| w.value.as_str()).collect::<Vec<_>>(), ["4"]);
    assert!(shop.values.is_empty());

    store.commit(Change::DeleteProject { project: project() }).await.unwrap();
    assert!(store.releases(project()).await.unwrap().is_empty());
    store.close().await.unwrap();
    assert!(Store::open(dir.path()).unwrap().1.projects.is_empty());
}

#[tokio::test]
async fn a_store_of_an_older_version_keeps_its_wishes_and_takes_further_ones() {
    for version in 1..=schema::MIGRATIONS.len() {
        let dir = TempDir::new().unwrap();
        let mut older = Connection::open(dir.path().join(FILE_NAME)).unwrap();
        schema::migrate(&mut older, &schema::MIGRATIONS[..version]).unwrap();
        older
            .execute_batch(
                "INSERT INTO projects (name) VALUES ('shop');
                 INSERT INTO wishes (project, service, kind, value, at_ms) VALUES ('shop', 'web', 'stopped', '', 0);",
            )
            .unwrap();
        drop(older);
        let (store, _) = Store::open(dir.path()).unwrap();
        store.commit(wish("held", "5")).await.unwrap();
        store.close().await.unwrap();
        let (_, stored) = Store::open(dir.path()).unwrap();
        let mut kinds: Vec<&str> = stored.projects[0].wishes.iter().map(|wish| wish.kind.as_str()).collect();
        kinds.sort_unstable();
        assert_eq!(kinds, ["held", "stopped"], "version {version}");
    }
}

#[tokio::test]
async fn a_read_sees_every_note_before_it_and_ids_go_on_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let (store, _) = Store::open(dir.path()).unwrap();
    for _ in 0..5 {
        store.note(event(store.next_id()));
    }
    let death = LedgerRow {
        id: store.next_id(),
        at_ms: 77,
        project: "shop".to_owned(),
        service: "web".to_owned(),
        release: 1,
        ordinal: 2,
        attempt: 3,
        cause: "killed".to_owned(),
        exit: Some("SIGKILL".to_owned()),
        status: Some("signal 9".to_owned()),
        ready_for_ms: None,
    };
    store.note(Record::Death(death.clone()));
    let evidence = Evidence { last_lines: vec!["bye".to_owned()], ..Evidence::default() };
    let mut incident = Incident { id: store.next_id(), detected_at_ms: 77, evidence, ..Incident::default() };
    let row = |incident: &Incident| IncidentRow::of("shop", "web", incident);
    store.note(Record::Incident(row(&incident)));
    incident.again = Some(Again { deaths: 2, ..Again::default() });
    incident.recovered_at_ms = Some(99);
    store.note(Record::Incident(row(&incident)));
    let open = Incident { id: store.next_id(), ..incident.clone() };
    let open = Incident { recovered_at_ms: None, ..open };
    store.note(Record::Incident(IncidentRow::of("shop", "api", &open)));

    let ids = |events: Vec<Event>| events.into_iter().map(|e| e.id).collect::<Vec<_>>();
    assert_eq!(ids(store.events(None, 2, 2).await.unwrap()), [3, 4]);
    assert_eq!(ids(store.last_events(Some("shop".to_owned()), 2).await.unwrap()), [4, 5]);
    assert!(store.events(Some("other".to_owned()), 0, 9).await.unwrap().is_empty());
    let all = store.incidents("shop".to_owned(), None, 9).await.unwrap();
    assert_eq!(all.iter().map(Incident::from).collect::<Vec<_>>(), [incident, open.clone()]);
    let of_api = store.incidents("shop".to_owned(), Some("api".to_owned()), 9).await.unwrap();
    assert_eq!(of_api.iter().map(Incident::from).collect::<Vec<_>>(), [open]);
    assert_eq!(store.ledger("shop".to_owned(), 9).await.unwrap(), std::slice::from_ref(&death));
    store.close().await.unwrap();

    let (_, stored) = Store::open(dir.path()).unwrap();
    assert_eq!((stored.next_id, stored.ledger), (9, vec![death]));
    assert_eq!(stored.open_incidents.iter().map(|row| row.service.as_str()).collect::<Vec<_>>(), ["api"]);
}

#[tokio::test]
async fn notes_reach_the_disk_within_the_group_time_by_themselves() {
    let dir = TempDir::new().unwrap();
    let (store, _) = Store::open(dir.path()).unwrap();
    store.note(event(1));
    let reader = Connection::open(dir.path().join(FILE_NAME)).unwrap();
    let seen = || reader.query_row("SELECT count(*) FROM events", [], |row| row.get::<_, u32>(0)).unwrap();
    let deadline = tokio::time::Instant::now() + GROUP_WITHIN * 5;
    // The event waited for is another process's view of the file, which has no better signal than looking.
    while seen() == 0 {
        assert!(tokio::time::Instant::now() < deadline, "the note never came");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn old_rows_go_and_their_ids_are_not_given_again() {
    let dir = TempDir::new().unwrap();
    let (store, _) = Store::open(dir.path()).unwrap();
    let (extra, slack) = (3_000, 256 + 1024);
    for _ in 0..(EVENTS_KEPT_MAX + extra) {
        store.note(event(store.next_id()));
        if store.notes.capacity() == 0 {
            // A read empties the queue, so that none is dropped here.
            store.last_events(None, 1).await.unwrap();
        }
    }
    let first = store.events(None, 0, 1).await.unwrap()[0].id;
    assert_eq!(store.dropped(), 0);
    assert!((extra - slack..=extra + 1).contains(&first), "{first}");
    let newest = store.last_events(None, 1).await.unwrap()[0].id;
    assert_eq!(newest, EVENTS_KEPT_MAX + extra);
    store.close().await.unwrap();
    Connection::open(dir.path().join(FILE_NAME)).unwrap().execute("DELETE FROM events", []).unwrap();
    assert_eq!(Store::open(dir.path()).unwrap().1.next_id, newest + 1);
}

#[tokio::test]
async fn old_releases_go_but_never_the_live_one_nor_the_rollback_target() {
    let dir = TempDir::new().unwrap();
    let (store, _) = Store::open(dir.path()).unwrap();
    let mut changes = vec![
        Change::SaveRelease(release(1)),
        Change::SaveRelease(release(2)),
        Change::SaveRelease(release(3)),
        Change::SetLive { project: "shop".to_owned(), release: Some(1) },
        Change::SaveDeployment(DeploymentRow {
            candidate: 1,
            previous: Some(3),
            ..deployment(1, Some("deployed"))
        }),
    ];
    let newest = u32::try_from(RELEASES_KEPT_MAX).unwrap() + 3;
    changes.extend((4..=newest).map(|id| Change::SaveRelease(release(id))));
    store.commit_all(changes).await.unwrap();
    let kept: Vec<u32> = store.releases("shop".to_owned()).await.unwrap().iter().map(|r| r.id).collect();
    let expected: Vec<u32> = [1, 3].into_iter().chain(4..=newest).collect();
    assert_eq!(kept, expected);
}

#[tokio::test]
async fn notes_never_block_and_are_counted_when_there_is_no_room() {
    let dir = TempDir::new().unwrap();
    let (store, _) = Store::open(dir.path()).unwrap();
    // A lock held from outside is a disk that doesn't answer.
    let blocker = Connection::open(dir.path().join(FILE_NAME)).unwrap();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    for id in 1..=(NOTE_QUEUE_MAX as u64 * 2) {
        store.note(event(id));
    }
    assert!(store.dropped() > 0);
    blocker.execute_batch("COMMIT").unwrap();
    assert!(!store.last_events(None, 1).await.unwrap().is_empty(), "it goes on once the disk answers");
    assert_eq!(store.trouble(), None);
}

#[tokio::test]
async fn a_disk_that_refuses_is_an_error_value_and_passes() {
    let dir = TempDir::new().unwrap();
    let (store, _) = Store::open(dir.path()).unwrap();
    store.read(|on| on.pragma_update(None, "query_only", true)).await.unwrap();
    store.note(event(1));
    let error = store.commit(Change::SaveRelease(release(1))).await.unwrap_err();
    assert!(matches!(error, StoreError::Sqlite(_)), "{error}");
    assert!(store.last_events(None, 9).await.unwrap().is_empty(), "reads go on");
    assert!(store.trouble().is_some());
    store.read(|on| on.pragma_update(None, "query_only", false)).await.unwrap();
    store.commit(Change::SaveRelease(release(1))).await.unwrap();
    assert_eq!(store.last_events(None, 9).await.unwrap().len(), 1, "the note waited");
    assert_eq!((store.trouble(), store.dropped()), (None, 0));
}

#[test]
fn what_cannot_be_opened_says_which_file() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Store::open(&file).unwrap_err().to_string();
    assert!(error.contains(&file.display().to_string()), "{error}");

    let state = dir.path().join("state");
    fs::create_dir(&state).unwrap();
    fs::write(state.join(FILE_NAME), "this is no database, it is a letter to nobody in particular").unwrap();
    let error = Store::open(&state).unwrap_err();
    assert!(matches!(error, StoreError::Unusable { .. }), "{error}");
    assert!(error.to_string().contains(FILE_NAME), "{error}");
}

#[tokio::test]
async fn what_is_too_old_goes_however_little_there_is() {
    let dir = TempDir::new().unwrap();
    let (store, _) = Store::open(dir.path()).unwrap();
    let now = u64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
    let age = u64::try_from(KEPT_FOR.as_millis()).unwrap();
    let incident = |id: u64, detected_at_ms: u64| {
        let incident = Incident { id, detected_at_ms, ..Incident::default() };
        Record::Incident(IncidentRow::of("shop", "web", &incident))
    };
    // A clock that ran ahead for a while makes nothing older than the right one says.
    let times = [now - age - 60_000, now - age + 60_000, now, now + 2 * age];
    for at in times {
        store.note(incident(store.next_id(), at));
    }
    let kept = store.incidents("shop".to_owned(), None, 9).await.unwrap();
    assert_eq!(kept.iter().map(|row| row.detected_at_ms).collect::<Vec<_>>(), times[1..]);
}

#[tokio::test]
async fn the_record_of_service_is_kept_within_bounds_and_never_loses_what_a_service_was() {
    let dir = TempDir::new().unwrap();
    let (store, _) = Store::open(dir.path()).unwrap();
    let watch = WatchRow { id: store.next_id(), from_ms: 1_000, until_ms: 2_000 };
    store.note(Record::Watch(watch));
    let row = |id: u64, service: &str, state: &str| {
        let (project, service, state) = ("shop".to_owned(), service.to_owned(), state.to_owned());
        ServiceRow { id, watch: watch.id, at_ms: 1_000 + id, project, service, state }
    };
    let calm = row(store.next_id(), "calm", "served");
    store.note(Record::Service(calm.clone()));
    for n in 0..(SERVICE_CHANGES_KEPT_MAX + 3_000) {
        let state = if n.is_multiple_of(2) { "served" } else { "unserved" };
        store.note(Record::Service(row(store.next_id(), "busy", state)));
        if store.notes.capacity() == 0 {
            store.flush().await.unwrap();
        }
    }
    let found = store.served("shop".to_owned(), 0).await.unwrap();
    assert_eq!((store.dropped(), &found.watches[..]), (0, &[watch][..]));
    assert_eq!(found.changes[0], calm, "its last change is older than all that is kept");
    let most = SERVICE_CHANGES_KEPT_MAX as usize + 2 + 1024 + 256;
    assert!(found.changes.len() <= most, "{}", found.changes.len());
    assert_eq!(
        found.recorded_since_ms.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        ["busy", "calm"]
    );
    assert_eq!(store.served("other".to_owned(), 0).await.unwrap().changes, []);
    // The living agent's row counts though its last sign of life is long ago.
    assert_eq!(store.served("shop".to_owned(), 5_000_000).await.unwrap().watches, [watch]);
}

#[tokio::test]
async fn what_programs_need_of_an_event_and_an_incidents_evidence_are_found_again() {
    let dir = TempDir::new().unwrap();
    let (store, _) = Store::open(dir.path()).unwrap();
    let detail = bulsa_core::wire::api::Detail::Park { incident: Some(7), deaths: 4 };
    let Record::Event(plain) = event(1) else { panic!("an event") };
    let parked = Event { id: 2, detail: Some(detail), ..plain.clone() };
    store.note(Record::Event(plain.clone()));
    store.note(Record::Event(parked.clone()));
    assert_eq!(store.events(None, 0, 9).await.unwrap(), [plain, parked]);
    let incident = Incident { id: 7, cause: "hung".to_owned(), ..Incident::default() };
    store.note(Record::Incident(IncidentRow::of("shop", "web", &incident)));
    let found = store.incidents_by_id(vec![9, 7]).await.unwrap();
    assert_eq!(found.iter().map(Incident::from).collect::<Vec<_>>(), [incident]);
}
