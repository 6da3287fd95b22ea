//! The pacemaker: sends each request at its due time and waits for none.

use std::{sync::Arc, time::Duration};

use tokio::task::JoinSet;

use super::{
    Shared,
    client::{Client, Due},
    sockets,
};

/// How long the WebSockets get to say goodbye at the end.
const GOODBYE: Duration = Duration::from_secs(1);

/// The whole load: until it is stopped, all requests are sent, or the time is over; then until all have ended.
pub(super) async fn run(shared: &Arc<Shared>) {
    let mut clients = JoinSet::new();
    if let Some(sockets) = &shared.config.sockets {
        for number in 0..sockets.count {
            clients.spawn(sockets::client(Arc::clone(shared), number));
        }
    }
    let mut requests = JoinSet::new();
    tokio::select! {
        () = shared.stop.cancelled() => {}
        () = tokio::time::sleep(shared.config.time) => {}
        () = send(shared, &mut requests) => {}
    }
    // Each ends by itself: a request has its timeout.
    while requests.join_next().await.is_some() {}
    shared.stop.cancel();
    let goodbye = async { while clients.join_next().await.is_some() {} };
    // What has not said goodbye by then is closed by the end of the runtime.
    drop(tokio::time::timeout(GOODBYE, goodbye).await);
}

async fn send(shared: &Arc<Shared>, requests: &mut JoinSet<()>) {
    let config = &shared.config;
    let client = Arc::new(Client::new(Arc::clone(shared)));
    for number in 0..config.requests {
        let after = Duration::from_secs_f64(number as f64 / f64::from(config.rate));
        tokio::time::sleep_until((shared.started + after).into()).await;
        while requests.try_join_next().is_some() {}
        let due = Due::draw(config, number, after);
        if requests.len() >= config.outstanding {
            client.refuse(&due);
            continue;
        }
        let client = Arc::clone(&client);
        requests.spawn(async move { client.send(due).await });
    }
    // The last answers are waited for outside, where nothing cancels that.
}
