//! The app's HTTP answers.

use std::{cell::Cell, convert::Infallible, future::Future, pin::Pin, rc::Rc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Incoming, service::HttpService};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{Shared, socket};
use crate::load::Mark;

/// The longest body that `/echo` takes, in bytes.
pub(crate) const ECHO_MAX: usize = 1 << 20;
/// The longest delay that `?ms=` may ask for.
const SLOW_MAX_MS: u64 = 60_000;
/// What `/slow` takes where it isn't told.
const SLOW_DEFAULT_MS: u64 = 300;

/// The second life of a connection: the WebSocket that it became.
pub(crate) type Socket = Pin<Box<dyn Future<Output = ()>>>;
/// Where a connection's upgrade is left for whoever drives the connection.
pub(crate) type SocketCell = Rc<Cell<Option<Socket>>>;
type Answer = Response<Full<Bytes>>;

/// The service of one connection.
pub(crate) fn service(
    shared: Rc<Shared>,
    socket: SocketCell,
) -> impl HttpService<Incoming, ResBody = Full<Bytes>, Error = Infallible> {
    hyper::service::service_fn(move |request| {
        let (shared, socket) = (Rc::clone(&shared), Rc::clone(&socket));
        async move {
            let mut answer = answer(request, &shared, &socket).await;
            if shared.hangs() {
                std::future::pending::<()>().await;
            }
            if let Ok(version) = HeaderValue::from_str(&shared.settings.version) {
                answer.headers_mut().insert(crate::load::RELEASE_FIELD, version);
            }
            Ok::<_, Infallible>(answer)
        }
    })
}

async fn answer(request: Request<Incoming>, shared: &Rc<Shared>, socket: &SocketCell) -> Answer {
    let path = request.uri().path();
    if path == "/health" {
        return match shared.settings.broken {
            true => text(StatusCode::INTERNAL_SERVER_ERROR, "broken on purpose\n".to_owned()),
            false => text(StatusCode::OK, "ok\n".to_owned()),
        };
    }
    if path == "/load" {
        return load(shared);
    }
    shared.traffic.send_if_modified(|first| first.replace(first.unwrap_or_else(Instant::now)).is_none());
    let delay = delay(request.uri().query());
    match (request.method(), path) {
        (&Method::GET | &Method::HEAD, "/") => text(StatusCode::OK, greeting(shared)),
        (&Method::GET | &Method::HEAD, "/slow") => {
            tokio::time::sleep(delay.unwrap_or(Duration::from_millis(SLOW_DEFAULT_MS))).await;
            text(StatusCode::OK, greeting(shared))
        }
        (&Method::GET, "/block") if shared.settings.blocks => {
            // Its only thread does nothing else meanwhile: that is what is asked for.
            std::thread::sleep(delay.unwrap_or(Duration::from_millis(SLOW_DEFAULT_MS)));
            text(StatusCode::OK, greeting(shared))
        }
        (&Method::POST, "/echo") => echo(request, delay).await,
        (&Method::GET, "/ws") => upgrade(request, shared, socket),
        (_, "/" | "/slow" | "/echo" | "/ws") => {
            text(StatusCode::METHOD_NOT_ALLOWED, "wrong method\n".to_owned())
        }
        _ => text(StatusCode::NOT_FOUND, "nothing here: try /, /slow?ms=300, /health or /ws\n".to_owned()),
    }
}

/// What became of the app's own requests so far.
fn load(shared: &Shared) -> Answer {
    let Some(load) = &shared.load else {
        return text(StatusCode::NOT_FOUND, "DEMO_LOAD is not set\n".to_owned());
    };
    match serde_json::to_string(&load.window(Mark::START, load.mark())) {
        Ok(report) => text(StatusCode::OK, report),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

fn greeting(shared: &Shared) -> String {
    let settings = &shared.settings;
    format!("version {} worker {} instance {}\n", settings.version, settings.worker, settings.instance)
}

/// `?ms=N`, at most [`SLOW_MAX_MS`].
fn delay(query: Option<&str>) -> Option<Duration> {
    let ms = query?.split('&').find_map(|pair| pair.strip_prefix("ms="))?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ms.min(SLOW_MAX_MS)))
}

async fn echo(request: Request<Incoming>, delay: Option<Duration>) -> Answer {
    let Ok(body) = Limited::new(request.into_body(), ECHO_MAX).collect().await else {
        return text(StatusCode::PAYLOAD_TOO_LARGE, format!("at most {ECHO_MAX} bytes\n"));
    };
    if let Some(delay) = delay {
        tokio::time::sleep(delay).await;
    }
    Response::new(Full::new(body.to_bytes()))
}

fn upgrade(mut request: Request<Incoming>, shared: &Rc<Shared>, socket: &SocketCell) -> Answer {
    let asks = request
        .headers()
        .get(header::UPGRADE)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()));
    let (true, Some(Ok(accept))) = (asks, key.map(HeaderValue::try_from)) else {
        return text(StatusCode::UPGRADE_REQUIRED, "a WebSocket is spoken here\n".to_owned());
    };
    let shared = Rc::clone(shared);
    let upgrade = hyper::upgrade::on(&mut request);
    socket.set(Some(Box::pin(async move {
        if let Ok(upgraded) = upgrade.await {
            socket::echo(upgraded, &shared).await;
        }
    })));
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    answer
}

fn text(status: StatusCode, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}
