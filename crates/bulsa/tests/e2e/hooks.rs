//! Who is told: a server of the test's own that takes messages, or doesn't.

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use serde_json::Value;
use tokio::{
    net::TcpListener,
    sync::watch,
    time::{Instant, timeout},
};

use crate::world::LIMIT;

/// What every URL of a test has in it, and nobody may ever read.
pub(crate) const SECRET: &str = "tok_5ecret5ecret";

/// One call.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    /// The first part of its path: which URL it was.
    pub(crate) hook: String,
    pub(crate) method: Method,
    /// `Null` where there was none.
    pub(crate) body: Value,
    pub(crate) at: Instant,
}

/// A server on loopback. What it answers is in the URL's first part: `never-…` takes a call and doesn't answer,
/// `gone-…` knows nobody, `busy-…` asks the first caller to come back after a second; all others are content.
pub(crate) struct Hooks {
    port: u16,
    got: watch::Receiver<Vec<Got>>,
}

impl Hooks {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (all, got) = watch::channel(Vec::new());
        let app = Router::new().fallback(take).with_state(Arc::new(all));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { port, got }
    }

    /// A URL, by the name under which its calls are found.
    pub(crate) fn url(&self, hook: &str) -> String {
        format!("http://127.0.0.1:{}/{hook}/{SECRET}", self.port)
    }

    /// What came to a URL so far.
    pub(crate) fn to(&self, hook: &str) -> Vec<Got> {
        self.got.borrow().iter().filter(|got| got.hook == hook).cloned().collect()
    }

    /// Waits until something holds for what came to a URL.
    pub(crate) async fn until<T>(&self, hook: &str, what: &str, holds: impl Fn(&[Got]) -> Option<T>) -> T {
        let mut all = self.got.clone();
        let waiting = async {
            loop {
                let got: Vec<Got> =
                    all.borrow_and_update().iter().filter(|g| g.hook == hook).cloned().collect();
                if let Some(found) = holds(&got) {
                    return found;
                }
                all.changed().await.unwrap();
            }
        };
        let found = timeout(LIMIT, waiting).await;
        found.unwrap_or_else(|_| panic!("waited in vain for {what} at {hook}: {:#?}", self.to(hook)))
    }

    /// Waits until the messages to a URL told of `n` events of a topic, and gives them all.
    pub(crate) async fn told(&self, hook: &str, topic: &str, n: u64) -> Vec<Value> {
        self.until(hook, &format!("{n} of {topic}"), |got| {
            (total(got, topic) >= n).then(|| got.iter().map(|got| got.body.clone()).collect())
        })
        .await
    }
}

/// Of how many events of a topic messages in Bulsa's own form tell.
pub(crate) fn total(got: &[Got], topic: &str) -> u64 {
    got.iter().filter_map(|got| got.body["counts"][topic]["total"].as_u64()).sum()
}

async fn take(
    State(all): State<Arc<watch::Sender<Vec<Got>>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let hook = uri.path().split('/').nth(1).unwrap_or_default().to_owned();
    assert!(headers["user-agent"].to_str().unwrap().starts_with("bulsa/"), "{headers:?}");
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let got = Got { hook: hook.clone(), method, body, at: Instant::now() };
    let mut is_first = false;
    all.send_modify(|all| {
        is_first = all.iter().all(|got| got.hook != hook);
        all.push(got);
    });
    match hook.split('-').next() {
        Some("never") => std::future::pending().await,
        Some("gone") => (StatusCode::NOT_FOUND, format!("no hook at {}\u{7}", uri.path())).into_response(),
        Some("busy") if is_first => {
            (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "1")], "slow down").into_response()
        }
        _ => "ok".into_response(),
    }
}
