//! The app's WebSocket: returns each message with version and worker behind it.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

use super::{Shared, stopped};

/// The longest message taken, in bytes.
const MESSAGE_MAX: usize = 64 * 1024;
/// How long the peer may take to answer our Close at the end.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

/// Echoes until the peer leaves or the app stops, which is said with Close 1001 (going away).
pub(crate) async fn echo(upgraded: Upgraded, shared: &Shared) {
    let config =
        WebSocketConfig::default().max_message_size(Some(MESSAGE_MAX)).max_frame_size(Some(MESSAGE_MAX));
    let mut socket =
        WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
    let identity = shared.settings.identity();
    let mut stopping = shared.stopping.clone();
    loop {
        let message = tokio::select! {
            message = socket.next() => message,
            () = stopped(&mut stopping) => break,
        };
        let answer = match message {
            Some(Ok(Message::Text(text))) => Message::text(format!("{text} {identity}")),
            Some(Ok(Message::Binary(bytes))) => Message::Binary(bytes),
            // Pings and Closes are answered by the library when it is read on.
            Some(Ok(_)) => continue,
            Some(Err(_)) | None => return,
        };
        if socket.send(answer).await.is_err() {
            return;
        }
    }
    let close = CloseFrame { code: CloseCode::Away, reason: "the app stops".into() };
    if socket.close(Some(close)).await.is_ok() {
        let answered = async { while let Some(Ok(_)) = socket.next().await {} };
        // A peer that never answers the Close is left: the connection is closed by the drop.
        drop(tokio::time::timeout(CLOSE_WAIT, answered).await);
    }
}
