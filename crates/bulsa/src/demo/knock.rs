//! Knocking: one fresh connection after the other, a request on each, to see from when on a port serves again.
//!
//! Owns: the count of refused connections and the moment of the first answer. Never: waits between two knocks longer
//! than [`EVERY`], so that the moment is known to about a millisecond.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};

/// From a knock that failed to the next.
pub(crate) const EVERY: Duration = Duration::from_millis(1);
/// How long one knock may take; a connection may have to wait in the kernel's queue meanwhile.
const KNOCK_LIMIT: Duration = Duration::from_secs(10);
/// The bytes of an answer that tell that it is one.
const GOOD: &[u8] = b"HTTP/1.1 200";

/// What came of the knocking.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Knocked {
    /// When the first answer came; `None` where none came in time.
    pub(crate) answered: Option<Instant>,
    /// Connections refused until then.
    pub(crate) refused: u64,
    /// Connections that were taken and then brought no answer.
    pub(crate) unanswered: u64,
}

/// Knocks at `target` until something answers, for at most `limit`. Begin when the old one is dead: what is answered
/// then was answered by its successor.
pub(crate) async fn knock(target: SocketAddr, limit: Duration) -> Knocked {
    let mut knocked = Knocked { answered: None, refused: 0, unanswered: 0 };
    let until = Instant::now() + limit;
    while Instant::now() < until {
        match timeout(KNOCK_LIMIT, once(target)).await {
            Ok(Ok(())) => {
                knocked.answered = Some(Instant::now());
                return knocked;
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => knocked.refused += 1,
            Ok(Err(_)) | Err(_) => knocked.unanswered += 1,
        }
        sleep(EVERY).await;
    }
    knocked
}

async fn once(target: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(target).await?;
    stream.set_nodelay(true)?;
    let request = format!("GET / HTTP/1.1\r\nhost: {target}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut start = [0; GOOD.len()];
    stream.read_exact(&mut start).await?;
    match start == GOOD {
        true => Ok(()),
        false => Err(io::Error::other("an answer that is no 200")),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;
    use crate::demo::app::tests::TestApp;

    #[tokio::test]
    async fn refusals_are_counted_until_somebody_answers() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let knocks = tokio::spawn(knock(address, Duration::from_secs(10)));
        sleep(Duration::from_millis(30)).await;
        let begun = Instant::now();
        let app = TestApp::start_on(TcpListener::bind(address).unwrap(), &[]);
        let knocked = knocks.await.unwrap();
        assert!(knocked.answered.is_some_and(|answered| answered > begun));
        assert!(knocked.refused > 0, "{knocked:?}");
        app.stop();
    }

    #[tokio::test]
    async fn a_connection_in_the_kernels_queue_is_not_refused_and_is_answered_once_somebody_takes_it() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let knocks = tokio::spawn(knock(address, Duration::from_secs(10)));
        sleep(Duration::from_millis(30)).await;
        let app = TestApp::start_on(listener, &[]);
        let knocked = knocks.await.unwrap();
        assert_eq!((knocked.refused, knocked.unanswered), (0, 0));
        assert!(knocked.answered.is_some());
        app.stop();
    }

    #[tokio::test]
    async fn it_gives_up_in_the_end() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert!(knock(address, Duration::from_millis(20)).await.answered.is_none());
    }
}
