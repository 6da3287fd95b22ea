//! Ctrl-C, and everything else that ends a run early.
//!
//! Owns: the mark that is set by SIGINT and SIGTERM, and the pauses that look at it. Never: ends this program: whoever
//! waits sees the mark, returns an error, and what was started is ended by its owner on the way out.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::measure::Error;

/// A pause looks at the mark this often.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Whether it was said to stop.
#[derive(Clone, Debug)]
pub(super) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// From now on the signals only set the mark.
    pub(super) fn on_signals() -> Result<Self, Error> {
        let mark = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&mark))?;
        }
        Ok(Self(mark))
    }

    /// An error where it was said to stop.
    pub(super) fn check(&self) -> Result<(), Error> {
        match self.0.load(Ordering::Relaxed) {
            true => Err("interrupted".into()),
            false => Ok(()),
        }
    }

    /// Waits, and fails at once where it was said to stop.
    pub(super) fn pause(&self, time: Duration) -> Result<(), Error> {
        let end = Instant::now() + time;
        loop {
            self.check()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(LOOK_EVERY));
        }
    }

    /// Asks again and again, for at most `limit`; the last answer's error where none is good.
    pub(super) fn until<T>(
        &self,
        limit: Duration,
        mut ask: impl FnMut() -> Result<T, Error>,
    ) -> Result<T, Error> {
        let end = Instant::now() + limit;
        loop {
            match ask() {
                Err(_) if Instant::now() < end => self.pause(LOOK_EVERY)?,
                answer => return answer,
            }
        }
    }
}
