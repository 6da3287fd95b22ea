//! Whoever watches the files of services, and puts them into their containers.
//!
//! Owns: which services are watched, and that a container of theirs starts with the files in it. Never: has or keeps a
//! file: the watcher sends what it sees, so that an agent that is killed has lost nothing.
//!
//! ```text
//!  a start: made ─▶ Starts ─▶ watcher puts its files in ─▶ filled ─▶ started ─▶ Started ─▶ watcher deletes
//!                     └── the watcher is gone, or takes too long ──────▶ started all the same
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bulsa_core::wire::api::SyncNews;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

use super::docker::Docker;

/// How long a start waits for a watcher's files.
pub const FILL_MAX: Duration = Duration::from_secs(30);
/// How long files wait for an Engine that wasn't reached yet.
const ENGINE_WAIT: Duration = Duration::from_secs(10);
/// At most so much news waits for a watcher; one that is further behind is stuck.
const NEWS_MAX: usize = 64;
/// At most so many watch at the same time.
pub const WATCHERS_MAX: usize = 16;

/// Who watches, and the Engine that has their containers; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Watchers {
    inner: Arc<Mutex<Inner>>,
    engine: watch::Sender<Option<Docker>>,
}

#[derive(Debug, Default)]
struct Inner {
    /// The last number that was given, to a watcher or a start.
    last: u64,
    watchers: BTreeMap<u64, Watcher>,
}

#[derive(Debug)]
struct Watcher {
    project: String,
    services: BTreeSet<String>,
    news: mpsc::Sender<SyncNews>,
    /// Starts that wait for it.
    waiting: BTreeMap<u64, oneshot::Sender<()>>,
}

/// One who watches, until it is dropped.
#[derive(Debug)]
pub struct Watching {
    number: u64,
    news: mpsc::Receiver<SyncNews>,
    of: Watchers,
}

impl Watching {
    /// The next news; `None` once nobody waits for this watcher any more.
    pub async fn next(&mut self) -> Option<SyncNews> {
        self.news.recv().await
    }
}

impl Drop for Watching {
    /// What waits for it goes on: the senders go with it.
    fn drop(&mut self) {
        self.of.lock().watchers.remove(&self.number);
    }
}

impl Watchers {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The Engine was reached.
    pub(super) fn reached(&self, engine: Docker) {
        self.engine.send_replace(Some(engine));
    }

    /// The Engine, once it was reached: an agent that is new needs a moment for that.
    pub(super) async fn engine(&self) -> Option<Docker> {
        let mut reached = self.engine.subscribe();
        let reached = timeout(ENGINE_WAIT, reached.wait_for(Option::is_some)).await;
        reached.ok()?.ok()?.clone()
    }

    /// Begins to watch; `None` where too many do.
    pub fn watch(&self, project: &str, services: BTreeSet<String>) -> Option<Watching> {
        let mut inner = self.lock();
        if inner.watchers.len() >= WATCHERS_MAX {
            return None;
        }
        let (news, heard) = mpsc::channel(NEWS_MAX);
        news.try_send(SyncNews::Open).ok()?;
        inner.last += 1;
        let number = inner.last;
        let watcher = Watcher { project: project.to_owned(), services, news, waiting: BTreeMap::new() };
        inner.watchers.insert(number, watcher);
        Some(Watching { number, news: heard, of: self.clone() })
    }

    /// A watcher says that its files are in. A start that nobody waits for any more is no mistake.
    pub fn filled(&self, ticket: u64) {
        let mut inner = self.lock();
        let waiting = inner.watchers.values_mut().find_map(|watcher| watcher.waiting.remove(&ticket));
        // The start may have been given up.
        waiting.map(|waiting| waiting.send(())).transpose().ok();
    }

    /// Waits until every watcher of the service has put its files into the container; what went wrong, in words.
    pub(super) async fn before_start(&self, project: &str, service: &str, container: &str) -> Option<String> {
        let tickets = self.tell_of_start(project, service, container);
        let mut late = None;
        for (watcher, filled) in tickets {
            // An error is a watcher that is gone: then nothing is to be put in.
            if timeout(FILL_MAX, filled).await.is_err() {
                self.lock().watchers.remove(&watcher);
                late = Some(format!(
                    "whoever watches the files of `{service}` did not put them in within {} s; it starts without them",
                    FILL_MAX.as_secs()
                ));
            }
        }
        late
    }

    fn tell_of_start(
        &self,
        project: &str,
        service: &str,
        container: &str,
    ) -> Vec<(u64, oneshot::Receiver<()>)> {
        let mut inner = self.lock();
        let Inner { last, watchers, .. } = &mut *inner;
        let mut tickets = Vec::new();
        watchers.retain(|number, watcher| {
            if !watcher.is_of(project, service) {
                return true;
            }
            *last += 1;
            let (service, container) = (service.to_owned(), container.to_owned());
            let news = SyncNews::Starts { ticket: *last, service, container };
            // One that hears nothing any more is none.
            if watcher.news.try_send(news).is_err() {
                return false;
            }
            let (fill, filled) = oneshot::channel();
            watcher.waiting.insert(*last, fill);
            tickets.push((*number, filled));
            true
        });
        tickets
    }

    /// A container of a service runs.
    pub(super) fn started(&self, project: &str, service: &str, container: &str) {
        self.lock().watchers.retain(|_, watcher| {
            let (service, container) = (service.to_owned(), container.to_owned());
            let is_of = watcher.is_of(project, &service);
            !is_of || watcher.news.try_send(SyncNews::Started { service, container }).is_ok()
        });
    }
}

impl Watcher {
    fn is_of(&self, project: &str, service: &str) -> bool {
        self.project == project && self.services.contains(service)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(watchers: &Watchers) -> Watching {
        watchers.watch("shop", ["web".to_owned()].into()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_waits_until_the_files_are_in() {
        let watchers = Watchers::default();
        let mut watching = watch(&watchers);
        assert_eq!(watching.next().await, Some(SyncNews::Open));
        let start = watchers.before_start("shop", "web", "c1");
        let fill = async {
            let Some(SyncNews::Starts { ticket, container, .. }) = watching.next().await else { panic!() };
            assert_eq!(container, "c1");
            watchers.filled(ticket);
        };
        let (late, ()) = tokio::join!(start, fill);
        assert_eq!(late, None);
        watchers.started("shop", "web", "c1");
        assert!(matches!(watching.next().await, Some(SyncNews::Started { .. })));
    }

    #[tokio::test(start_paused = true)]
    async fn others_don_t_wait_and_a_watcher_that_goes_or_sleeps_holds_nobody_for_good() {
        let watchers = Watchers::default();
        let watching = watch(&watchers);
        assert_eq!(watchers.before_start("shop", "db", "c1").await, None);
        assert_eq!(watchers.before_start("blog", "web", "c1").await, None);
        let (late, ()) = tokio::join!(watchers.before_start("shop", "web", "c1"), async { drop(watching) });
        assert_eq!(late, None);
        let mut asleep = watch(&watchers);
        let late = watchers.before_start("shop", "web", "c1").await.unwrap();
        assert!(late.contains("starts without them"), "{late}");
        // It isn't waited for again, and hears the end.
        assert_eq!(watchers.before_start("shop", "web", "c2").await, None);
        while asleep.next().await.is_some() {}
    }

    #[test]
    fn watchers_are_few() {
        let watchers = Watchers::default();
        let all: Vec<_> = (0..WATCHERS_MAX).map(|_| watch(&watchers)).collect();
        assert!(watchers.watch("shop", BTreeSet::new()).is_none());
        drop(all);
        drop(watch(&watchers));
    }
}
