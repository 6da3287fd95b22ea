//! The demo's web app: what `bulsa __demo-app` runs, as a replica that knows nothing of Bulsa but its environment.
//!
//! Owns: a small HTTP/1.1 and WebSocket server that behaves as a good citizen should (it listens on `PORT`, answers a
//! health check, ends gracefully at SIGTERM), and the ways in which the demo and the tests break it on purpose.
//! Never: talks to the daemon, keeps anything on disk, listens on anything but loopback unless `DEMO_HOST` says so.
//!
//! | path | answer |
//! |---|---|
//! | `/` | one line: version, worker, instance |
//! | `/health` | 200, or 500 for ever with `DEMO_BROKEN=1` |
//! | `/slow?ms=N` | the same line after N ms (300 where none is given) |
//! | `POST /echo` | the body, after `?ms=N` where given |
//! | `/ws` | a WebSocket that returns each message with version and worker behind it |
//! | `/load` | what became of the requests that it sends itself, as JSON; 404 where `DEMO_LOAD` isn't set |
//!
//! Every HTTP answer carries its version in the field `x-release`. One thread, so that a worker stays small: each
//! connection is a task, at most [`CONNECTIONS_MAX`] of them; more wait in the kernel's queue.

mod answers;
mod settings;
mod socket;

use std::{
    future::{Future, poll_fn},
    io::{self, Write as _},
    net::SocketAddr,
    pin::pin,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
    sync::{Semaphore, watch},
    task::{JoinSet, LocalSet},
    time::Instant,
};

pub use settings::{LoadOn, OnTerm, Settings, SettingsError};

use crate::load::{Config, Load, LoadError, LoadHandle, Shot};

/// Connections served at a time.
pub const CONNECTIONS_MAX: usize = 1024;
/// How long the app takes to finish work in flight after SIGTERM; below Compose's 10 s, so that nobody kills it first.
pub const GRACE: Duration = Duration::from_secs(8);
/// A pause after a failed accept (out of descriptors), so that it isn't tried in a tight loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);
/// How long the app calls others with `DEMO_LOAD`, at most.
const LOAD_TIME: Duration = Duration::from_secs(3600);
/// How long a client may take to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How the app ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was asked to, and finished its work, or left it as `DEMO_ON_TERM=exit` told it to (exit code 0).
    Stopped,
    /// It crashed as `DEMO_CRASH_AFTER_TRAFFIC_MS` or `DEMO_CRASH_AFTER_MS` told it to (exit code 1).
    Crashed,
}

/// Why the app could not run.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The environment is not what it needs.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The port cannot be had.
    #[error("demo app: cannot listen on {0}: {1}")]
    Listen(SocketAddr, #[source] io::Error),
    /// The load that it is to send can't be sent.
    #[error("demo app: {0}")]
    Load(#[from] LoadError),
    /// The runtime or the signal handler could not be made.
    #[error("demo app: cannot start: {0}")]
    Start(#[source] io::Error),
}

/// Runs the app in this thread, with a runtime of its own, until SIGTERM or its crash.
///
/// # Errors
/// Where the environment is incomplete or the port is taken; nothing was served then.
pub fn main() -> Result<End, AppError> {
    let settings = Settings::from_env(|name| std::env::var(name).ok())?;
    let ignores = settings.on_term == OnTerm::Ignore;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(AppError::Start)?;
    let end = LocalSet::new().block_on(&runtime, async {
        let mut term = signal(SignalKind::terminate()).map_err(AppError::Start)?;
        let mut int = signal(SignalKind::interrupt()).map_err(AppError::Start)?;
        let stop = async move {
            loop {
                tokio::select! {
                    _ = term.recv() => {}
                    _ = int.recv() => {}
                }
                if !ignores {
                    return;
                }
                log("asked to stop, and goes on, as it was told to");
            }
        };
        run(settings, stop).await
    });
    // A connection's blocking part, if there ever is one, must not delay an exit.
    runtime.shutdown_background();
    end
}

/// Waits out the start delay, listens, and serves until `stop` is done or the crash is due.
///
/// Must run in a [`LocalSet`].
///
/// # Errors
/// Where the port cannot be had, or the load that it is to send not be started.
pub async fn run(settings: Settings, stop: impl Future<Output = ()>) -> Result<End, AppError> {
    let mut stop = pin!(stop);
    tokio::select! {
        () = tokio::time::sleep(settings.start) => {}
        () = &mut stop => return Ok(End::Stopped),
    }
    let address = SocketAddr::from((settings.host, settings.port));
    let listener = TcpListener::bind(address).await.map_err(|error| AppError::Listen(address, error))?;
    log(&format!("{} listens on {address}", settings.identity()));
    let load = settings.load.as_ref().map(start_load).transpose()?;
    Ok(serve(listener, settings, load, stop).await)
}

/// Calls another service by its name, a tenth of the requests slow ones, for as long as a load may run.
fn start_load(on: &LoadOn) -> Result<LoadHandle, LoadError> {
    let shot = |weight, path: &str| Shot { weight, method: crate::load::Method::Get, path: path.to_owned() };
    let mix = vec![shot(9, "/"), shot(1, "/slow?ms=300")];
    let requests = u64::from(on.rate).saturating_mul(LOAD_TIME.as_secs());
    Load::start(Config {
        rate: on.rate,
        mix,
        time: LOAD_TIME,
        requests: requests.min(crate::load::REQUESTS_MAX),
        ..Config::to_name(&on.target)
    })
}

/// What the connections share.
pub(crate) struct Shared {
    settings: Settings,
    /// The load that the app sends itself.
    load: Option<LoadHandle>,
    /// When the first request came that is no health check.
    traffic: watch::Sender<Option<Instant>>,
    /// True from the SIGTERM on.
    stopping: watch::Receiver<bool>,
}

impl Shared {
    /// Whether it is past the moment from which on it answers nothing, as `DEMO_HANG_AFTER_TRAFFIC_MS` told it.
    pub(crate) fn hangs(&self) -> bool {
        let first = *self.traffic.borrow();
        let due = first.zip(self.settings.hang_after_traffic).map(|(first, after)| first + after);
        due.is_some_and(|due| due <= Instant::now())
    }
}

async fn serve(
    listener: TcpListener,
    settings: Settings,
    load: Option<LoadHandle>,
    stop: impl Future<Output = ()>,
) -> End {
    let (stopping, stopping_seen) = watch::channel(false);
    let (crash_after, on_term) = (settings.crash_after(), settings.on_term);
    let crash_at = settings.crash_after_start.map(|after| Instant::now() + after);
    let traffic = watch::Sender::new(None);
    let shared = Rc::new(Shared { settings, load, traffic, stopping: stopping_seen });
    let mut connections = JoinSet::new();
    let end = tokio::select! {
        () = accept(listener, &shared, &mut connections) => End::Stopped,
        () = after_traffic(&shared, crash_after) => End::Crashed,
        () = at(crash_at) => End::Crashed,
        () = stop => End::Stopped,
    };
    if end == End::Stopped && on_term == OnTerm::Exit {
        log(&format!("{} exits at once, as it was told to", shared.settings.identity()));
        return end;
    }
    if end == End::Crashed {
        log(&format!("{} crashes, as it was told to", shared.settings.identity()));
        return end;
    }
    // The listener is closed by now. Whoever is being served is served to the end.
    stopping.send_replace(true);
    let finished = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, finished).await.is_err() {
        log(&format!("{} gives up on requests still running after {GRACE:?}", shared.settings.identity()));
    }
    end
}

/// Takes connections for ever, [`CONNECTIONS_MAX`] at a time.
async fn accept(listener: TcpListener, shared: &Rc<Shared>, connections: &mut JoinSet<()>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = Rc::clone(shared);
                connections.spawn_local(async move {
                    let socket = connection(stream, shared).await;
                    if let Some(socket) = socket {
                        socket.await;
                    }
                    drop(place);
                });
            }
            Err(error) => {
                log(&format!("accept: {error}"));
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one connection to its end; gives back the WebSocket where it became one.
async fn connection(stream: TcpStream, shared: Rc<Shared>) -> Option<answers::Socket> {
    if let Err(error) = stream.set_nodelay(true) {
        log(&format!("set TCP_NODELAY: {error}"));
    }
    let socket = Rc::default();
    let service = answers::service(Rc::clone(&shared), Rc::clone(&socket));
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service).with_upgrades());
    let mut stopping = shared.stopping.clone();
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stopped(&mut stopping) => {
            connection.as_mut().graceful_shutdown();
            poll_fn(|cx| connection.as_mut().poll(cx)).await
        }
    };
    // A client that goes away in the middle is its own affair.
    drop(ended);
    socket.take()
}

/// Done once the app is asked to stop.
pub(crate) async fn stopped(stopping: &mut watch::Receiver<bool>) {
    if stopping.wait_for(|stopping| *stopping).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Done `after` the first request, never where there is no such time.
async fn after_traffic(shared: &Shared, after: Option<Duration>) {
    let Some(after) = after else { return std::future::pending().await };
    let mut traffic = shared.traffic.subscribe();
    let first = traffic.wait_for(Option::is_some).await.ok().and_then(|first| *first);
    at(first.map(|first| first + after)).await;
}

/// Done at that moment, never where there is none.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Writes a line to the replica's log. A full disk or a closed pipe is no reason to stop serving.
fn log(line: &str) {
    drop(writeln!(io::stderr(), "{line}"));
}

#[cfg(test)]
pub(crate) mod tests;
