//! Signals as readable sockets.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;

use rustix::process::Signal;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::low_level::pipe;

/// The signals that a keeper listens to.
#[derive(Debug)]
pub(crate) struct Signals {
    /// SIGTERM and SIGINT: end. To a container's first process SIGQUIT, which images name as their `STOPSIGNAL`, too.
    pub(crate) stop: UnixStream,
    /// SIGCHLD: a child ended.
    pub(crate) child: UnixStream,
    /// SIGHUP: the terminal is gone, which is no reason to end.
    pub(crate) hangup: UnixStream,
    /// To a container's first process: what is meant for the program in it.
    pub(crate) passed_on: Vec<(Signal, UnixStream)>,
}

impl Signals {
    /// Installs the handlers. A process does this once.
    pub(crate) fn install(init: bool) -> io::Result<Self> {
        let stop: &[i32] = if init { &[SIGTERM, SIGINT, SIGQUIT] } else { &[SIGTERM, SIGINT] };
        let user: &[(Signal, i32)] =
            if init { &[(Signal::USR1, SIGUSR1), (Signal::USR2, SIGUSR2)] } else { &[] };
        let passed_on = user.iter().map(|(signal, number)| Ok((*signal, register(&[*number])?)));
        Ok(Self {
            stop: register(stop)?,
            child: register(&[SIGCHLD])?,
            hangup: register(&[SIGHUP])?,
            passed_on: passed_on.collect::<io::Result<_>>()?,
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
