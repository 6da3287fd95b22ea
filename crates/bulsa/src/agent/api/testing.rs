//! The API in this process, with a test in the driver's place.

use std::{os::unix::net::UnixListener, sync::Arc};

use bulsa_core::wire::api::{Event, ProjectView, Snapshot};
use tempfile::TempDir;
use tokio::{
    sync::{broadcast, mpsc, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::{Asked, DriverHandle, serve};
use crate::{
    agent::{
        driver::{AllSettings, Clock},
        notify::Tester,
        store::{Record, Store},
    },
    client::Client,
};

/// A server in this process, with the driver's side of its handle.
pub(crate) struct Daemon {
    pub(crate) dir: TempDir,
    pub(crate) client: Client,
    pub(crate) requests: mpsc::Receiver<Asked>,
    pub(crate) snapshot: watch::Sender<Arc<Snapshot>>,
    pub(crate) events: broadcast::Sender<Event>,
    pub(crate) store: Store,
    #[expect(dead_code, reason = "who is told stays so while it lives")]
    pub(crate) told: watch::Sender<AllSettings>,
    pub(crate) stop: CancellationToken,
    pub(crate) serving: JoinHandle<std::io::Result<()>>,
}

impl Daemon {
    pub(crate) async fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let socket = dir.path().join("api.sock");
        let (store, _) = Store::open(&dir.path().join("state")).unwrap();
        let (requests_tx, requests) = mpsc::channel(4);
        let (snapshot, published) = watch::channel(Arc::new(Snapshot { number: 1, ..Snapshot::default() }));
        let (events, _) = broadcast::channel(4);
        let (told, settings) = watch::channel(Arc::default());
        let driver = DriverHandle {
            requests: requests_tx,
            snapshot: published,
            events: events.clone(),
            store: store.clone(),
            clock: Clock::start(),
            tester: Tester::new(settings, "srv1".to_owned()),
            watchers: crate::agent::watchers::Watchers::default(),
        };
        let stop = CancellationToken::new();
        let listener = UnixListener::bind(&socket).unwrap();
        let serving = tokio::spawn(serve(listener, driver, stop.clone().cancelled_owned()));
        let client = Client::find(&[socket]).await.unwrap();
        Self { dir, client, requests, snapshot, events, store, told, stop, serving }
    }

    pub(crate) fn publish(&self, change: impl FnOnce(&mut ProjectView)) {
        self.snapshot.send_modify(|snapshot| {
            let next = Arc::make_mut(snapshot);
            next.number += 1;
            if next.projects.is_empty() {
                next.projects.push(ProjectView { name: "shop".to_owned(), ..ProjectView::default() });
            }
            change(&mut next.projects[0]);
        });
    }

    pub(crate) fn happen(&self, text: &str) -> Event {
        let event = Event {
            id: self.store.next_id(),
            at_ms: 7,
            project: "shop".to_owned(),
            kind: "replica.died".to_owned(),
            service: None,
            replica: None,
            text: text.to_owned(),
            detail: None,
        };
        self.store.note(Record::Event(event.clone()));
        // Nobody listening is no failure.
        drop(self.events.send(event.clone()));
        event
    }
}
