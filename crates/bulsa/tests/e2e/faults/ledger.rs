//! What the app writes down: each request when it comes, each WebSocket when it has ended.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use tokio::time::{Instant, sleep};

use crate::world::{LIMIT, LOOK_EVERY};

/// The file.
pub(super) struct Ledger(pub(super) PathBuf);

/// A request that came to the app.
pub(super) struct Asked {
    pub(super) method: String,
    pub(super) is_slow: bool,
    /// The proxy's number for it, the same however often it is sent.
    pub(super) id: String,
    /// The replica.
    pub(super) task: String,
    pub(super) process: i32,
}

/// A WebSocket that has ended, as the app saw it.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) client: u32,
    pub(super) version: String,
    pub(super) code: u16,
    /// Messages that came whole.
    pub(super) whole: u64,
    /// `-`, or what was wrong with what came.
    pub(super) broken: String,
}

impl Ledger {
    /// Its lines; one that is just being written is not there yet.
    fn text(&self) -> String {
        let text = fs::read_to_string(&self.0).unwrap_or_default();
        text.rsplit_once('\n').map(|(whole, _)| whole.to_owned()).unwrap_or_default()
    }

    /// Every request that came to the app, in the order in which they came.
    pub(super) fn asked(&self) -> Vec<Asked> {
        let text = self.text();
        let lines = text.lines().filter_map(|line| line.strip_prefix("asked "));
        let read = |line: &str| {
            let [method, ms, id, task, process] = line.split(' ').collect::<Vec<_>>()[..] else {
                panic!("not a line of the ledger: {line}")
            };
            let words = [method, id, task].map(str::to_owned);
            let [method, id, task] = words;
            Asked { method, is_slow: ms != "0", id, task, process: process.parse().unwrap() }
        };
        lines.map(read).collect()
    }

    /// Every WebSocket that has ended.
    pub(super) fn ended(&self) -> Vec<Ended> {
        let text = self.text();
        let lines = text.lines().filter_map(|line| line.strip_prefix("ended "));
        let read = |line: &str| {
            let [client, version, code, whole, broken] = line.split(' ').collect::<Vec<_>>()[..] else {
                panic!("not a line of the ledger: {line}")
            };
            let [client, whole] = [client, whole].map(|number| number.parse::<u64>().unwrap());
            Ended {
                client: u32::try_from(client).unwrap(),
                version: version.to_owned(),
                code: code.parse().unwrap(),
                whole,
                broken: broken.to_owned(),
            }
        };
        lines.map(read).collect()
    }

    /// Waits until something holds of what came.
    pub(super) async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let end = Instant::now() + LIMIT;
        while !holds(self) {
            assert!(Instant::now() < end, "waited in vain: {what}");
            sleep(LOOK_EVERY).await;
        }
    }

    /// How many requests came to two replicas; none may have come to the same one twice, to a third, or have been
    /// anything but a GET.
    #[track_caller]
    pub(super) fn moved(&self) -> usize {
        let mut visits: BTreeMap<String, Vec<Asked>> = BTreeMap::new();
        for asked in self.asked() {
            visits.entry(asked.id.clone()).or_default().push(asked);
        }
        let moved: Vec<_> = visits.into_iter().filter(|(_, visits)| visits.len() > 1).collect();
        for (id, visits) in &moved {
            let tasks: BTreeSet<&str> = visits.iter().map(|asked| asked.task.as_str()).collect();
            assert!(visits.iter().all(|asked| asked.method == "GET"), "{id} was done twice at {tasks:?}");
            assert_eq!((visits.len(), tasks.len()), (2, 2), "{id} came to {tasks:?}");
        }
        moved.len()
    }

    /// Whether a process has been asked anything.
    pub(super) fn knows(&self, process: i32) -> bool {
        self.asked().iter().any(|asked| asked.process == process)
    }
}
