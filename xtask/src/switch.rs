//! `cargo xtask bench switch`: what it costs those whose service does not change when a large table is switched often.
//!
//! Owns: a proxy in this process, its target, the load at a fixed rate, the switches, and the figures. Never: shares a
//! thread between load and proxy, or counts from the moment in which a late request was sent: it counts from the one in
//! which it was due.
//!
//! Rounds with and without switches take turns, so that what else the machine does hits both alike; each pair of
//! neighbours gives one ratio. Requests go to services that keep their targets, and to those that change, whose old
//! targets live on: none of both may fail.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    num::NonZeroU64,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use bulsa_proxy::{Limits, ListenerRoutes, Options, Proxy, Route, Service, Table, Target};
use serde::Serialize;

use crate::run::{Trouble, say};

const SERVICES: usize = 1000;
const TARGETS_PER_SERVICE: usize = 5;
/// Services that a switch gives other targets.
const CHANGED: usize = SERVICES / 100;
/// The first services keep their targets; what others take turns in changing.
const KEPT: usize = SERVICES / 10;
const SWITCH_INTERVAL: Duration = Duration::from_millis(100);
const ROUND: Duration = Duration::from_secs(3);
const PAIRS: usize = 6;
const WORKERS: usize = 2;
/// Client connections, each with a thread of its own.
const CLIENTS: u32 = 8;
/// Requests per second of all.
const RATE: u32 = 2000;
/// One request in so many goes to a service that changes; its time is not counted.
const ELSEWHERE_ONE_IN: usize = 10;
/// The longest wait for an answer, and for a table to be taken over.
const PATIENCE: Duration = Duration::from_secs(5);
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// What was found.
#[derive(Debug, Serialize)]
struct Figures {
    routes: usize,
    targets: usize,
    rate: u32,
    switched: Side,
    unswitched: Side,
    /// The switched rounds' p50 by that of their neighbours: the median, the least, the most.
    ratio_p50: [f64; 3],
    /// How long the caller is busy with a switch, in milliseconds: the median, the most.
    apply_ms: [f64; 2],
    /// From the call until all workers run on the table, in milliseconds: the median, the most.
    acknowledged_ms: [f64; 2],
    switches: usize,
    failed: usize,
}

/// The medians over the rounds of one kind, in microseconds.
#[derive(Debug, Serialize)]
struct Side {
    p50_us: f64,
    p99_us: f64,
}

/// What one round has shown.
#[derive(Debug, Default)]
struct Round {
    latencies: Vec<Duration>,
    failed: usize,
    applied: Vec<Duration>,
    acknowledged: Vec<Duration>,
}

/// Measures, and prints a table, or JSON.
pub(crate) fn run(args: &[&str]) -> Result<(), Trouble> {
    let json = match args {
        [] => false,
        ["--json"] => true,
        _ => return Err(Trouble::Usage("cargo xtask bench switch [--json]".to_owned())),
    };
    if cfg!(debug_assertions) {
        say("warning: a debug build; ask for figures with `cargo run --release -p xtask -- bench switch`");
    }
    let figures = measure().map_err(Trouble::io("the benchmark could not be run"))?;
    let text = if json {
        serde_json::to_string(&figures).map_err(|error| Trouble::Other(error.to_string()))? + "\n"
    } else {
        figures.table()
    };
    io::stdout().write_all(text.as_bytes()).map_err(Trouble::io("can't print"))?;
    match figures.failed {
        0 => Ok(()),
        failed => Err(Trouble::Other(format!("{failed} requests failed"))),
    }
}

fn measure() -> io::Result<Figures> {
    let port = serve()?;
    let mut tables = Tables::new(port);
    let proxy = Proxy::start(Options { workers: WORKERS }, &tables.table)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let addr = listener.local_addr()?;
    proxy.add_listener("http", vec![listener])?;
    round(addr, None)?;
    let mut pairs = Vec::new();
    for pair in 0..PAIRS {
        // The first of a pair takes turns too.
        let mut switched = None;
        if pair % 2 == 0 {
            switched = Some(round(addr, Some((&proxy, &mut tables)))?);
        }
        let unswitched = round(addr, None)?;
        let switched = match switched {
            Some(switched) => switched,
            None => round(addr, Some((&proxy, &mut tables)))?,
        };
        pairs.push((switched, unswitched));
    }
    Ok(Figures::of(pairs))
}

/// One server for all targets, which have addresses of their own in 127.0.0.0/8. Returns its port.
fn serve() -> io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let port = listener.local_addr()?.port();
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::spawn(move || {
        runtime.block_on(async {
            let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer_all(stream));
            }
        });
    });
    Ok(port)
}

/// Answers one request after the other; none has a body.
async fn answer_all(stream: tokio::net::TcpStream) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = stream;
    // What this does for a connection that is gone already does not matter.
    stream.set_nodelay(true).ok();
    let mut buffer = Vec::with_capacity(4096);
    while matches!(stream.read_buf(&mut buffer).await, Ok(1..)) {
        if buffer.ends_with(b"\r\n\r\n") {
            buffer.clear();
            if stream.write_all(ANSWER).await.is_err() {
                return;
            }
        }
    }
}

/// The tables, each with some other targets than the one before.
struct Tables {
    table: Table,
    port: u16,
    turn: usize,
    names: usize,
}

impl Tables {
    fn new(port: u16) -> Self {
        let table = Table {
            listeners: vec![ListenerRoutes::http("http", (0..SERVICES).map(Self::route).collect())],
            limits: Limits { connections_per_address: 0 },
            ..Table::empty(1)
        };
        let mut tables = Self { table, port, turn: 0, names: 0 };
        for service in 0..SERVICES {
            let targets = tables.targets();
            tables.table.services.push(Service::new(&format!("service-{service}"), targets));
        }
        tables
    }

    fn route(service: usize) -> Route {
        Route { host: Some(host(service)), ..Route::to(service) }
    }

    /// Targets that no table had before.
    fn targets(&mut self) -> Vec<Target> {
        let target = |number: usize| {
            let [_, high, middle, low] = u32::try_from(number % 0x00ff_0000 + 2).unwrap_or(2).to_be_bytes();
            let addr = SocketAddr::from(([127, high, middle, low], self.port));
            Target { release: "r1".to_owned(), ..Target::new(&format!("target-{number}"), addr) }
        };
        let targets = (self.names..self.names + TARGETS_PER_SERVICE).map(target).collect();
        self.names += TARGETS_PER_SERVICE;
        targets
    }

    fn next(&mut self) -> &Table {
        self.table.number += 1;
        for _ in 0..CHANGED {
            let service = KEPT + self.turn % (SERVICES - KEPT);
            self.turn += 1;
            self.table.services[service].targets = self.targets();
        }
        &self.table
    }
}

fn host(service: usize) -> String {
    format!("service-{service}.example")
}

/// One round of load, with switches or without.
fn round(addr: SocketAddr, switches: Option<(&Proxy, &mut Tables)>) -> io::Result<Round> {
    let begin = Instant::now() + Duration::from_millis(50);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let clients: Vec<_> =
            (0..CLIENTS).map(|client| scope.spawn(move || load(addr, client, begin))).collect();
        let switching = switches.map(|(proxy, tables)| scope.spawn(|| switch(proxy, tables, &is_over)));
        let mut round = Round::default();
        for client in clients {
            let (latencies, failed) = client.join().map_err(|_| io::Error::other("a client panicked"))?;
            round.latencies.extend(latencies);
            round.failed += failed;
        }
        is_over.store(true, Ordering::SeqCst);
        if let Some(switching) = switching {
            let switched = switching.join().map_err(|_| io::Error::other("the switching panicked"))??;
            (round.applied, round.acknowledged) = switched;
        }
        Ok(round)
    })
}

/// Applies a table each [`SWITCH_INTERVAL`], and says how long that took and how long until all workers had it.
fn switch(
    proxy: &Proxy,
    tables: &mut Tables,
    is_over: &AtomicBool,
) -> io::Result<(Vec<Duration>, Vec<Duration>)> {
    let (mut applied, mut acknowledged) = (Vec::new(), Vec::new());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let mut due = Instant::now();
    while !is_over.load(Ordering::SeqCst) {
        let table = tables.next();
        let begun = Instant::now();
        proxy.apply(table).map_err(io::Error::other)?;
        applied.push(begun.elapsed());
        let taken = async {
            while proxy.report().table < table.number {
                proxy.changed().await;
            }
        };
        runtime
            .block_on(async { tokio::time::timeout(PATIENCE, taken).await })
            .map_err(|_| io::Error::other("a table was not taken over"))?;
        acknowledged.push(begun.elapsed());
        due += SWITCH_INTERVAL;
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    Ok((applied, acknowledged))
}

/// One client's share of the load on one connection: the times of the requests that were counted, and how many failed.
fn load(addr: SocketAddr, client: u32, begin: Instant) -> (Vec<Duration>, usize) {
    // Without it a sleep is up to 50 µs too long; where that is not given, both sides of the comparison bear it.
    rustix::thread::set_current_timer_slack(NonZeroU64::new(1)).ok();
    let interval = Duration::from_secs(1) / RATE * CLIENTS;
    let (mut latencies, mut failed, mut stream) = (Vec::new(), 0, None);
    for number in 0_usize.. {
        let due = begin + interval / CLIENTS * client + interval.saturating_mul(number as u32);
        if begin + ROUND < due {
            break;
        }
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let is_elsewhere = number % ELSEWHERE_ONE_IN == 0;
        let service = if is_elsewhere { KEPT + number * 7 % (SERVICES - KEPT) } else { number % KEPT };
        match ask(addr, &mut stream, service) {
            Ok(()) if is_elsewhere => {}
            Ok(()) => latencies.push(due.elapsed()),
            Err(error) => {
                say(&format!("a request to service {service} failed: {error}"));
                (failed, stream) = (failed + 1, None);
            }
        }
    }
    (latencies, failed)
}

fn ask(addr: SocketAddr, stream: &mut Option<TcpStream>, service: usize) -> io::Result<()> {
    let stream = match stream {
        Some(stream) => stream,
        None => {
            let new = TcpStream::connect(addr)?;
            new.set_nodelay(true)?;
            new.set_read_timeout(Some(PATIENCE))?;
            stream.insert(new)
        }
    };
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", host(service)).as_bytes())?;
    let (mut buffer, mut length) = ([0; 1024], 0);
    while !buffer[..length].ends_with(b"\r\n\r\nok") {
        match stream.read(&mut buffer[length..])? {
            0 => return Err(io::Error::other(String::from_utf8_lossy(&buffer[..length]).into_owned())),
            read => length += read,
        }
    }
    Ok(())
}

impl Figures {
    fn of(pairs: Vec<(Round, Round)>) -> Self {
        let p50 = |round: &Round| quantile(&round.latencies, 0.5);
        let mut ratios: Vec<f64> = pairs.iter().map(|(with, without)| p50(with) / p50(without)).collect();
        ratios.sort_by(f64::total_cmp);
        let side = |rounds: Vec<&Round>| {
            let at = |share: f64| median(rounds.iter().map(|round| quantile(&round.latencies, share) * 1e6));
            Side { p50_us: at(0.5), p99_us: at(0.99) }
        };
        let of_switches = |times: fn(&Round) -> &Vec<Duration>| {
            let all: Vec<_> = pairs.iter().flat_map(|(with, _)| times(with)).copied().collect();
            [quantile(&all, 0.5) * 1e3, quantile(&all, 1.0) * 1e3]
        };
        Self {
            routes: SERVICES,
            targets: SERVICES * TARGETS_PER_SERVICE,
            rate: RATE,
            switched: side(pairs.iter().map(|(with, _)| with).collect()),
            unswitched: side(pairs.iter().map(|(_, without)| without).collect()),
            ratio_p50: [
                median(ratios.iter().copied()),
                ratios.first().copied().unwrap_or(f64::NAN),
                ratios.last().copied().unwrap_or(f64::NAN),
            ],
            apply_ms: of_switches(|round| &round.applied),
            acknowledged_ms: of_switches(|round| &round.acknowledged),
            switches: pairs.iter().map(|(with, _)| with.applied.len()).sum(),
            failed: pairs.iter().map(|(with, without)| with.failed + without.failed).sum(),
        }
    }

    fn table(&self) -> String {
        let Self {
            routes, targets, rate, switched, unswitched, ratio_p50, apply_ms, acknowledged_ms, ..
        } = self;
        format!(
            "{routes} routes, {targets} targets, {rate} requests/s, {WORKERS} workers, {PAIRS} pairs of {} s\n\
             {:>26} {:>9} {:>9}\n{:>26} {:>6.0} µs {:>6.0} µs\n{:>26} {:>6.0} µs {:>6.0} µs\n\
             ratio of p50: {:.3} ({:.3} to {:.3})\n\
             {} switches: {:.1} ms for the caller (most {:.1}), {:.1} ms until all workers have it (most {:.1})\n\
             {} requests failed\n",
            ROUND.as_secs(),
            "",
            "p50",
            "p99",
            "a switch each 100 ms",
            switched.p50_us,
            switched.p99_us,
            "none",
            unswitched.p50_us,
            unswitched.p99_us,
            ratio_p50[0],
            ratio_p50[1],
            ratio_p50[2],
            self.switches,
            apply_ms[0],
            apply_ms[1],
            acknowledged_ms[0],
            acknowledged_ms[1],
            self.failed,
        )
    }
}

/// The time, in seconds, that so large a share of them does not exceed.
fn quantile(times: &[Duration], share: f64) -> f64 {
    let mut times = times.to_vec();
    times.sort_unstable();
    let last = times.len().saturating_sub(1);
    times.get((last as f64 * share).round() as usize).map_or(f64::NAN, Duration::as_secs_f64)
}

fn median(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut numbers: Vec<f64> = numbers.collect();
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}
