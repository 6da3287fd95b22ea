//! The load: quick requests and slow ones, told apart, and what may have become of them.

use std::{net::SocketAddr, time::Duration};

use bulsa::load::{Config, Load, LoadHandle, Mark, Method, Report, Shot};
use tokio::time::Instant;

use super::slow;
use crate::traffic::{answers, only_posts_failed};

/// Clients, nine tenths of whose requests are quick.
pub(super) struct Clients {
    pub(super) load: LoadHandle,
}

/// What became of their requests.
pub(super) struct Account {
    pub(super) fast: Report,
    pub(super) slow: Report,
    /// The longest time without a good answer, while requests were sent.
    pub(super) longest_gap: Duration,
}

impl Clients {
    /// So many requests a second; a client that has waited for longer than its patience has failed. The first have been
    /// answered when this returns.
    pub(super) async fn start(target: SocketAddr, rate: u32, patience: Duration) -> Self {
        let shot = |weight, method, path: &str| Shot { weight, method, path: path.to_owned() };
        let [slow_get, slow_post] =
            ["/slow", "/echo"].map(|path| format!("{path}?ms={}", slow().as_millis()));
        let mix = vec![
            shot(72, Method::Get, "/"),
            shot(18, Method::Post, "/echo"),
            shot(8, Method::Get, &slow_get),
            shot(2, Method::Post, &slow_post),
        ];
        let config = Config { rate, mix, fresh: 1.0, timeout: patience, ..Config::to(target) };
        let this = Self { load: Load::start(config).unwrap() };
        this.answered(30).await;
        this
    }

    /// Waits until so many more requests have ended.
    pub(super) async fn answered(&self, count: u64) {
        answers(&self.load, count).await;
    }

    /// The load's time from one moment to another.
    pub(super) fn span(&self, from: Instant, to: Instant) -> (Mark, Mark) {
        (self.load.at(from.into_std()), self.load.at(to.into_std()))
    }

    /// Sends nothing new, and waits for the last answers.
    pub(super) async fn stop(self) -> Account {
        let longest_gap = self.load.window(Mark::START, self.load.mark()).longest_gap;
        let (slow, fast) = self.load.stop_apart(|path| path.contains("ms=")).await;
        Account { fast, slow, longest_gap }
    }
}

impl Account {
    /// Nothing failed.
    #[track_caller]
    pub(super) fn is_perfect(&self) {
        self.only_posts_failed(&[]);
        assert_eq!(self.failed(), 0);
    }

    /// Nothing failed but POSTs that were under way in one of these times.
    #[track_caller]
    pub(super) fn only_posts_failed(&self, times: &[(Mark, Mark)]) {
        only_posts_failed(&self.fast, times);
        assert!(self.slow.requests > 2, "{} slow requests prove nothing", self.slow.requests);
        // The other one wants more requests than there are slow ones.
        only_posts_failed(&Report { requests: self.slow.requests.max(100), ..self.slow.clone() }, times);
    }

    pub(super) fn failed(&self) -> u64 {
        self.fast.failed + self.slow.failed
    }

    /// `failed N of M (quick ones: F)`.
    pub(super) fn figures(&self) -> String {
        let requests = self.fast.requests + self.slow.requests;
        format!("failed {} of {requests} (quick ones: {})", self.failed(), self.fast.failed)
    }
}
