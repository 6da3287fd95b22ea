//! `xtask bench-backend`: the WebSocket backend that stands behind every candidate.
//!
//! Owns: one thread that takes WebSockets on `PORT` and sends every message back, and
//! that answers probes. Never: is measured itself, or ends
//! before it is told to.

use std::net::Ipv4Addr;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_tungstenite::{accept_async_with_config, tungstenite::protocol::WebSocketConfig};

use super::limits;
use crate::measure::Error;

/// What is read at once, in bytes: thousands of idle sockets need little.
const BUFFER_BYTES: usize = 1024;

/// An answer to a probe.
const NOTHING: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// Serves until it is ended.
pub(crate) fn serve() -> Result<(), Error> {
    limits::raise_files();
    let port =
        std::env::var("PORT").map_err(|_| "PORT says where to listen; it isn't set")?.parse::<u16>()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(echo(stream));
        }
    })
}

async fn echo(mut stream: TcpStream) {
    let mut first = [0; BUFFER_BYTES];
    // A request is so short that it comes as a whole. Whoever goes away is gone.
    let Ok(count) = stream.peek(&mut first).await else { return };
    let text = String::from_utf8_lossy(first.get(..count).unwrap_or_default()).to_ascii_lowercase();
    if !text.contains("upgrade: websocket") {
        // A probe: it asks for a page, and anything will do. Where it has gone meanwhile nobody waits for it.
        if matches!(stream.read(&mut first).await, Ok(count) if count > 0) {
            stream.write_all(NOTHING).await.ok();
        }
        return;
    }
    let config = WebSocketConfig::default().read_buffer_size(BUFFER_BYTES).write_buffer_size(BUFFER_BYTES);
    // The client sees what became of its own.
    let Ok(mut socket) = accept_async_with_config(stream, Some(config)).await else { return };
    while let Some(Ok(message)) = socket.next().await {
        let is_data = message.is_text() || message.is_binary();
        if is_data && socket.send(message).await.is_err() {
            return;
        }
    }
}
