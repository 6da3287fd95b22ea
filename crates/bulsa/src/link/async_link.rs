//! A [`Link`] on the tokio runtime, for agent and proxy.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram as StdDatagram;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::net::UnixDatagram;

use super::{Link, LinkError, Message};

/// One end of a link; sending and receiving take `&self`, so that one task may do both.
///
/// Tokio knows no sequenced packets; its datagram socket is used for readiness only, the reading and writing
/// is that of [`Link`].
#[derive(Debug)]
pub struct AsyncLink {
    socket: UnixDatagram,
}

impl AsyncLink {
    /// Registers the link with the current runtime.
    ///
    /// # Errors
    /// When the descriptor cannot be polled.
    ///
    /// # Panics
    /// Outside a runtime with I/O.
    pub fn new(link: Link) -> io::Result<Self> {
        Ok(Self { socket: UnixDatagram::from_std(StdDatagram::from(link.fd))? })
    }

    /// As [`AsyncLink::new`], from a plain descriptor.
    ///
    /// # Errors
    /// As [`AsyncLink::new`].
    ///
    /// # Panics
    /// As [`AsyncLink::new`].
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        Self::new(Link::new(fd)?)
    }

    /// Sends one message; waits while the peer is behind. Cancelling it sends the message or not, never half.
    ///
    /// # Errors
    /// [`LinkError::Closed`] when the peer is gone, [`LinkError::TooLarge`].
    pub async fn send<T: Serialize>(&self, body: &T, fds: &[BorrowedFd<'_>]) -> Result<(), LinkError> {
        let bytes = super::encode(body, fds.len())?;
        loop {
            self.socket.writable().await?;
            let sent = self.attempt(Interest::WRITABLE, |socket| super::send_on(socket, &bytes, fds));
            if let Some(done) = sent {
                return done;
            }
        }
    }

    /// Receives one message. Cancelling it loses nothing.
    ///
    /// # Errors
    /// [`LinkError::Closed`] at the end; the others when the peer broke the protocol.
    pub async fn recv<T: DeserializeOwned>(&self) -> Result<Message<T>, LinkError> {
        loop {
            self.socket.readable().await?;
            if let Some(done) = self.attempt(Interest::READABLE, super::recv_on) {
                return done;
            }
        }
    }

    /// Tries once; `None` when the socket was not ready after all, which the runtime then knows.
    fn attempt<T>(
        &self,
        interest: Interest,
        io: impl FnOnce(BorrowedFd<'_>) -> Result<T, LinkError>,
    ) -> Option<Result<T, LinkError>> {
        let mut outcome = None;
        let tried = self.socket.try_io(interest, || match io(self.socket.as_fd()) {
            Err(error) if error.would_block() => Err(io::ErrorKind::WouldBlock.into()),
            done => {
                outcome = Some(done);
                Ok(())
            }
        });
        match tried {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Some(Err(error.into())),
            _ => outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_wait_for_a_slow_reader_and_arrive_in_order() {
        let (a, b) = Link::pair().unwrap();
        let (a, b) = (AsyncLink::new(a).unwrap(), AsyncLink::from_fd(b).unwrap());
        const COUNT: u32 = 5000;
        let writer = async {
            for number in 0..COUNT {
                a.send(&number, &[]).await.unwrap();
            }
        };
        let reader = async {
            for number in 0..COUNT {
                assert_eq!(b.recv::<u32>().await.unwrap().body, number);
            }
        };
        tokio::join!(writer, reader);
        drop(a);
        assert!(matches!(b.recv::<u32>().await, Err(LinkError::Closed)));
    }
}
