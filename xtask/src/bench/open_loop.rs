//! A load at a fixed rate, over a fixed number of keep-alive connections.
//!
//! Owns: a client of one thread. Request `n` is due at `start + n / rate`, whatever became of the ones before it; where
//! no connection is free it waits for one. Latency counts from when it was due and not from when it was sent, so
//! whoever had to wait is counted (no coordinated omission). Never: sends a request twice, or forgets one that failed.
//!
//! It is this and not `bulsa::load` because that one is made for many kinds of failure, and takes several times the CPU
//! for a request: on a small machine the client itself would be measured.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    num::NonZeroU64,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{
    http::{Head, get},
    stop::Stop,
};
use crate::measure::Error;

/// What is still under way that long after the last one was due has failed.
const LAST_MAX: Duration = Duration::from_secs(2);
/// It is looked this often whether to stop.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How late the kernel may wake this thread, in nanoseconds; 50,000 where nothing is said.
const TIMER_SLACK: NonZeroU64 = NonZeroU64::MIN;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan<'a> {
    pub(super) target: SocketAddr,
    pub(super) path: &'a str,
    pub(super) per_second: u32,
    pub(super) connections: usize,
    pub(super) time: Duration,
}

/// What became of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    /// From due to the answer's last byte, sorted, in µs.
    pub(super) latencies: Vec<f64>,
    /// How late the client itself was, sorted, in µs; only of requests that found a free connection.
    pub(super) lateness: Vec<f64>,
    pub(super) failed: u64,
}

struct Connection {
    stream: TcpStream,
    /// When its request was due.
    due: Option<Instant>,
    bytes: Vec<u8>,
}

struct Client<'a> {
    plan: Plan<'a>,
    request: Vec<u8>,
    connections: Vec<Connection>,
    /// Free ones, the one that has waited longest first.
    free: VecDeque<usize>,
    outcome: Outcome,
}

/// Runs it to the end.
pub(super) fn run(plan: Plan<'_>, stop: &Stop) -> Result<Outcome, Error> {
    // Without it the client is a little later, for everybody.
    rustix::thread::set_current_timer_slack(Some(TIMER_SLACK)).ok();
    let connections: Vec<Connection> =
        (0..plan.connections).map(|_| Connection::open(plan.target)).collect::<Result<_, _>>()?;
    let client = Client {
        plan,
        request: get(plan.target, plan.path, ""),
        free: (0..connections.len()).collect(),
        connections,
        outcome: Outcome::default(),
    };
    client.run(stop)
}

impl Client<'_> {
    fn run(mut self, stop: &Stop) -> Result<Outcome, Error> {
        let start = Instant::now();
        let per_second = f64::from(self.plan.per_second);
        let total = (self.plan.time.as_secs_f64() * per_second).round() as u64;
        let due = |n: u64| start + Duration::from_secs_f64(n as f64 / per_second);
        let give_up = due(total) + LAST_MAX;
        let mut next = 0;
        let mut was_free = true;
        loop {
            let now = Instant::now();
            while next < total && due(next) <= now {
                let Some(index) = self.free.pop_front() else { break };
                if was_free {
                    self.outcome.lateness.push(micros(now - due(next)));
                }
                self.send(index, due(next))?;
                next += 1;
            }
            was_free = !self.free.is_empty();
            let under_way = self.connections.len() - self.free.len();
            if (next == total && under_way == 0) || now > give_up {
                self.outcome.failed += total - next + under_way as u64;
                break;
            }
            let wait = match next < total && was_free {
                true => due(next).saturating_duration_since(Instant::now()),
                false => LOOK_EVERY,
            };
            self.receive(wait.min(LOOK_EVERY))?;
            stop.check()?;
        }
        self.outcome.latencies.sort_by(f64::total_cmp);
        self.outcome.lateness.sort_by(f64::total_cmp);
        Ok(self.outcome)
    }

    fn send(&mut self, index: usize, due: Instant) -> Result<(), Error> {
        let connection = self.connections.get_mut(index).ok_or("there is no such connection")?;
        connection.due = Some(due);
        // A request fits into the socket's buffer, which is empty: all of it is taken, or none.
        if !matches!(connection.stream.write(&self.request), Ok(count) if count == self.request.len()) {
            self.fail(index)?;
        }
        Ok(())
    }

    /// Waits for at most that long until something comes, and takes what has come.
    fn receive(&mut self, wait: Duration) -> Result<(), Error> {
        let busy: Vec<usize> =
            (0..self.connections.len()).filter(|index| self.connections[*index].due.is_some()).collect();
        let mut polled: Vec<PollFd<'_>> =
            busy.iter().map(|index| PollFd::new(&self.connections[*index].stream, PollFlags::IN)).collect();
        let wait = Timespec::try_from(wait)?;
        match poll(&mut polled, Some(&wait)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(()),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<usize> = busy
            .iter()
            .zip(&polled)
            .filter(|(_, polled)| !polled.revents().is_empty())
            .map(|(index, _)| *index)
            .collect();
        for index in ready {
            self.take(index)?;
        }
        Ok(())
    }

    fn take(&mut self, index: usize) -> Result<(), Error> {
        let connection = self.connections.get_mut(index).ok_or("there is no such connection")?;
        let mut part = [0; 16 * 1024];
        match connection.stream.read(&mut part) {
            Ok(0) => return self.fail(index),
            Ok(count) => connection.bytes.extend_from_slice(part.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(_) => return self.fail(index),
        }
        match Head::read(&connection.bytes) {
            Ok(Some(head)) if head.status != 200 => self.fail(index),
            Ok(Some(head)) if connection.bytes.len() >= head.bytes + head.length => {
                let due = connection.due.take().ok_or("nobody has asked")?;
                self.outcome.latencies.push(micros(due.elapsed()));
                connection.bytes.clear();
                if head.close {
                    *connection = Connection::open(self.plan.target)?;
                }
                self.free.push_back(index);
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(_) => self.fail(index),
        }
    }

    /// Counts a failure; the next request gets a new connection.
    fn fail(&mut self, index: usize) -> Result<(), Error> {
        self.outcome.failed += 1;
        let new = Connection::open(self.plan.target)?;
        *self.connections.get_mut(index).ok_or("there is no such connection")? = new;
        self.free.push_back(index);
        Ok(())
    }
}

impl Connection {
    fn open(target: SocketAddr) -> Result<Self, Error> {
        let stream = TcpStream::connect_timeout(&target, LAST_MAX)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, due: None, bytes: Vec::new() })
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// The value that a share of all sorted values doesn't exceed; not a number where there are none.
pub(super) fn percentile(sorted: &[f64], share: f64) -> f64 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    #[test]
    fn a_percentile_is_a_value_that_was_measured() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!([0.5, 0.99, 1.0, 0.001].map(|share| percentile(&values, share)), [50.0, 99.0, 100.0, 1.0]);
        assert!(percentile(&[], 0.5).is_nan());
    }

    #[test]
    fn a_server_that_stalls_is_charged_for_all_who_wait() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let target = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 512];
            let mut first = true;
            while matches!(stream.read(&mut asked), Ok(count) if count > 0) {
                if std::mem::take(&mut first) {
                    thread::sleep(Duration::from_millis(200));
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
            }
        });
        let plan =
            Plan { target, path: "/", per_second: 100, connections: 1, time: Duration::from_millis(200) };
        let outcome = run(plan, &Stop::on_signals().unwrap()).unwrap();
        server.join().unwrap();
        assert_eq!((outcome.latencies.len(), outcome.failed), (20, 0));
        // The second one was due 10 ms after the first, and waited for it.
        assert!(percentile(&outcome.latencies, 0.9) > 150_000.0, "{:?}", outcome.latencies);
        assert!(percentile(&outcome.latencies, 0.5) > 50_000.0, "{:?}", outcome.latencies);
    }
}
