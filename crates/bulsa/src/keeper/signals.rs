//! Signals as readable sockets.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;

use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

/// The signals that a keeper listens to.
#[derive(Debug)]
pub(crate) struct Signals {
    /// SIGTERM and SIGINT: end.
    pub(crate) stop: UnixStream,
    /// SIGCHLD: a child ended.
    pub(crate) child: UnixStream,
    /// SIGHUP: the terminal is gone, which is no reason to end.
    pub(crate) hangup: UnixStream,
}

impl Signals {
    /// Installs the handlers. A process does this once.
    pub(crate) fn install() -> io::Result<Self> {
        Ok(Self {
            stop: register(&[SIGTERM, SIGINT])?,
            child: register(&[SIGCHLD])?,
            hangup: register(&[SIGHUP])?,
        })
    }
}

fn register(signals: &[i32]) -> io::Result<UnixStream> {
    let (reader, writer) = UnixStream::pair()?;
    reader.set_nonblocking(true)?;
    for signal in signals {
        pipe::register(*signal, writer.try_clone()?)?;
    }
    Ok(reader)
}

/// Reads all that has arrived, and says how often.
pub(crate) fn take(mut stream: &UnixStream) -> usize {
    let mut buffer = [0; 256];
    let mut total = 0;
    while let Ok(count) = stream.read(&mut buffer) {
        total += count;
        if count < buffer.len() {
            break;
        }
    }
    total
}
