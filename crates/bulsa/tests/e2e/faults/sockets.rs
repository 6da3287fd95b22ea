//! WebSockets over a deploy: kept on their release until the cap, then closed with 1012, spread over the window. (The
//! home-made set-ups: all dropped together, with 1001 or none, at the reload or when the old container is stopped.)

use std::{collections::BTreeMap, time::Duration};

use super::{
    app::App,
    clients::Clients,
    long_or, seconds,
    webs::{Back, Closed, Webs, Word},
};

const CLIENTS: u32 = 20;
/// A Close comes at most so much later than it is due: it waits for the end of a message, and for this machine.
const LATE_MAX: Duration = Duration::from_secs(6);

/// What the clients saw of a deploy.
struct Seen {
    app: App,
    closed: Vec<Closed>,
    back: Vec<Back>,
    switched_ms: u64,
}

/// How long the old release keeps its WebSockets.
fn cap() -> Duration {
    Duration::from_secs(long_or(3, 15))
}

/// The time over which it closes them then.
fn window() -> Duration {
    Duration::from_secs(long_or(5, 20))
}

/// Deploys under clients of these kinds, until each has been closed once and is back.
async fn deploy(hows: &str) -> Option<Seen> {
    let [cap, window] = [cap(), window()].map(|time| format!("{}s", time.as_secs()));
    let mut app = App::up(&[("CAP", &cap), ("WINDOW", &window), ("ON_TERM", "exit")]).await?;
    let clients = Clients::start(app.world.target(), 20, Duration::from_secs(10)).await;
    let mut webs = Webs::connect(app.world.target(), CLIENTS, hows).await;
    let before = app.world.last_event().await;
    app.world.set("VERSION", "v2");
    app.world.run(&["deploy"]).await.exits(0);
    let switched_ms = app.event(before, "deploy.switched").await.at_ms;
    let (mut closed, mut back) = (Vec::new(), Vec::new());
    while back.len() < CLIENTS as usize {
        match webs.next().await {
            Some(Word::Closed(one)) => closed.push(one),
            Some(Word::Back(one)) => back.push(one),
            other => panic!("{other:?}; closed so far: {closed:#?}"),
        }
    }
    app.world.alone("faults").await;
    clients.answered(20).await;
    let (kept, others) = webs.leave().await;
    assert_eq!((kept, others.len()), (CLIENTS, 0), "they stay where they are: {others:#?}");
    clients.stop().await.is_perfect();
    Some(Seen { app, closed, back, switched_ms })
}

impl Seen {
    /// Each client heard 1012, once, and is with the new release now.
    fn everybody_is_told_once(&self) {
        let wrong: Vec<_> =
            self.closed.iter().filter(|one| one.code != 1012 || one.error.is_some()).collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert!(self.closed.iter().all(|one| one.reason == "service restart"));
        let mut told: Vec<_> = self.closed.iter().map(|one| one.client).collect();
        told.sort_unstable();
        assert_eq!(told, (0..CLIENTS).collect::<Vec<_>>());
        assert_eq!(self.closed.iter().filter(|one| one.deflate).count() as u32, CLIENTS / 2);
    }

    /// Not before the cap, and not together.
    fn they_are_spread(&self) {
        let after: Vec<_> = self.closed.iter().map(|one| self.since_switch(one.at_ms)).collect();
        let (first, last) = (after.iter().min().unwrap(), after.iter().max().unwrap());
        assert!(*first >= cap(), "closed {first:?} after the switch");
        assert!(*last <= cap() + window() + LATE_MAX, "closed {last:?} after the switch");
        assert!(*last - *first >= window() / 3, "all between {first:?} and {last:?}");
        let most = self.most_in_a_tenth();
        assert!(most * 3 < after.len() * 2, "{most} of {} in a tenth of the window: {after:?}", after.len());
    }

    fn most_in_a_tenth(&self) -> usize {
        let at = |one: &Closed| self.since_switch(one.at_ms);
        let near = |from: &Closed| {
            self.closed
                .iter()
                .filter(|one| at(one) >= at(from) && at(one) - at(from) <= window() / 10)
                .count()
        };
        self.closed.iter().map(near).max().unwrap_or_default()
    }

    fn since_switch(&self, at_ms: u64) -> Duration {
        Duration::from_millis(at_ms.saturating_sub(self.switched_ms))
    }

    /// What one side had sent whole before the Close, the other side has got whole, in order, and once.
    fn nothing_is_lost(&self) {
        let ended = self.app.ledger.ended();
        let ended: BTreeMap<u32, _> =
            ended.iter().filter(|one| one.version == "v1").map(|one| (one.client, one)).collect();
        assert_eq!(ended.len(), CLIENTS as usize, "each ended once at the old release: {ended:#?}");
        for one in &self.closed {
            let there = ended[&one.client];
            assert!([1001, 1012].contains(&there.code) && there.broken == "-", "{there:?}");
            assert_eq!(one.version.as_deref(), Some("v1"), "{one:?}");
            // The client sends the next when the last is back: what is under way at the end is one message.
            let whole = one.echoed..=one.sent;
            assert!(one.sent - one.echoed <= 1 && whole.contains(&there.whole), "{one:?} {there:?}");
        }
        assert!(self.back.iter().all(|one| one.version.as_deref() == Some("v2")), "{:#?}", self.back);
    }

    fn tell(&self, what: &str) {
        let closed =
            |client: u32| self.closed.iter().find(|one| one.client == client).map_or(0, |one| one.at_ms);
        let away = self.back.iter().map(|one| one.at_ms.saturating_sub(closed(one.client))).max();
        let after: Vec<_> = self.closed.iter().map(|one| self.since_switch(one.at_ms)).collect();
        eprintln!(
            "{CLIENTS} WebSockets, {what}: closed with 1012 {}, otherwise 0, from {} to {} after the switch (cap {} s, \
             window {} s), at most {} within a tenth of it, each back after at most {}",
            self.closed.iter().filter(|one| one.code == 1012).count(),
            seconds(after.iter().min().copied().unwrap_or_default()),
            seconds(after.iter().max().copied().unwrap_or_default()),
            cap().as_secs(),
            window().as_secs(),
            self.most_in_a_tenth(),
            seconds(Duration::from_millis(away.unwrap_or_default())),
        );
    }
}

#[tokio::test]
async fn websockets_are_kept_up_to_the_cap_and_told_that_the_service_restarts_one_after_the_other() {
    let Some(seen) = deploy("quiet,fragments").await else { return };
    seen.everybody_is_told_once();
    seen.they_are_spread();
    seen.nothing_is_lost();
    assert_eq!(seen.closed.iter().filter(|one| one.how == "fragments").count() as u32, CLIENTS / 2);
    seen.tell("half of them in fragments, half of both compressed");
}

#[tokio::test]
async fn websockets_in_the_midst_of_a_message_of_the_servers_are_told_the_same() {
    let Some(seen) = deploy("drip").await else { return };
    seen.everybody_is_told_once();
    seen.they_are_spread();
    seen.tell("each in the midst of a message that never ends");
}
