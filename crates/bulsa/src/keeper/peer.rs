//! The keeper's end of a link: never waits, and bounds what a slow peer may make it hold.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::link::{Link, LinkError, MAX_MESSAGE_FDS, Message, encode};

/// The most messages that wait for one peer. One that lets more pile up is stuck, and is restarted.
const MAX_QUEUED: usize = 16_384;

/// The most sockets under one name.
const MAX_SET_FDS: usize = 4096;

/// A process whose link broke is most likely ending: it gets this long to do so before it is killed.
const ENDING_GRACE: Duration = Duration::from_millis(100);

/// A set of descriptors that several holders share.
pub(crate) type SharedFds = Vec<Rc<OwnedFd>>;

/// A link with a queue of what could not be sent yet.
#[derive(Debug)]
pub(crate) struct Peer {
    link: Link,
    queue: VecDeque<(Vec<u8>, SharedFds)>,
    broken: Option<(Instant, String)>,
}

impl Peer {
    /// A peer behind a link.
    pub(crate) fn new(link: Link) -> Self {
        Self { link, queue: VecDeque::new(), broken: None }
    }

    /// Sends a message now or when the peer reads. A failure is kept in [`Peer::broken`].
    pub(crate) fn send<T: Serialize>(&mut self, body: &T, fds: SharedFds) {
        match encode(body, fds.len()) {
            Ok(bytes) if self.queue.len() < MAX_QUEUED => self.queue.push_back((bytes, fds)),
            Ok(_) => self.fail("it does not read its messages"),
            Err(error) => self.fail(&error.to_string()),
        }
        self.flush();
    }

    /// Sends a set of descriptors in as many messages as it takes; `body` makes each of them.
    pub(crate) fn send_set<T: Serialize>(&mut self, fds: &SharedFds, body: impl Fn(bool) -> T) {
        let mut chunks = fds.chunks(MAX_MESSAGE_FDS).peekable();
        while let Some(chunk) = chunks.next() {
            self.send(&body(chunks.peek().is_some()), chunk.to_vec());
        }
    }

    /// Sends what can be sent.
    pub(crate) fn flush(&mut self) {
        while self.broken.is_none() {
            let Some((bytes, fds)) = self.queue.front() else { return };
            let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(|fd| fd.as_fd()).collect();
            match self.link.send_bytes(bytes, &borrowed) {
                Ok(()) => {
                    self.queue.pop_front();
                }
                Err(error) if error.would_block() => return,
                Err(error) => self.fail(&error.to_string()),
            }
        }
    }

    /// The next message. `None` when there is none now, or never again ([`Peer::broken`] tells).
    pub(crate) fn recv<T: DeserializeOwned>(&mut self) -> Option<Message<T>> {
        match self.link.recv() {
            Ok(message) => Some(message),
            Err(error) if error.would_block() => None,
            Err(error) => {
                self.fail(&error.to_string());
                None
            }
        }
    }

    /// Why this link is of no use any more.
    pub(crate) fn broken(&self) -> Option<&str> {
        self.broken.as_ref().map(|(_, why)| why.as_str())
    }

    /// When the process behind this link is to be killed, if it still lives then.
    pub(crate) fn kill_at(&self) -> Option<Instant> {
        self.broken.as_ref().map(|(at, _)| *at + ENDING_GRACE)
    }

    /// Declares the link of no use.
    pub(crate) fn fail(&mut self, why: &str) {
        if self.broken.is_none() {
            self.broken = Some((Instant::now(), why.to_owned()));
        }
        self.queue.clear();
    }

    /// What to wait for; nothing once the link is broken.
    pub(crate) fn interest(&self) -> Option<PollFlags> {
        let writes = if self.queue.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        self.broken.is_none().then_some(PollFlags::IN | writes)
    }
}

impl AsFd for Peer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.link.as_fd()
    }
}

/// Puts the parts of a set of descriptors together.
#[derive(Debug, Default)]
pub(crate) struct PartialSet {
    name: String,
    fds: SharedFds,
}

impl PartialSet {
    /// Adds a part; the whole set when it was the last. The parts of one set come one after the other.
    ///
    /// # Errors
    /// [`LinkError::Protocol`] when another set begins before the last one ended, or for a set without sockets.
    pub(crate) fn add(
        &mut self,
        name: &str,
        fds: Vec<OwnedFd>,
        more: bool,
    ) -> Result<Option<SharedFds>, LinkError> {
        if self.fds.is_empty() {
            name.clone_into(&mut self.name);
        }
        if self.fds.len() + fds.len() > MAX_SET_FDS {
            return Err(LinkError::Protocol("a set of sockets is too large"));
        }
        if self.name != name || fds.is_empty() {
            return Err(LinkError::Protocol("the parts of a set of sockets are mixed up"));
        }
        self.fds.extend(fds.into_iter().map(Rc::new));
        Ok((!more).then(|| std::mem::take(&mut self.fds)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fds(count: usize) -> SharedFds {
        (0..count).map(|_| Rc::new(std::fs::File::open("/dev/null").unwrap().into())).collect()
    }

    #[test]
    fn a_set_of_many_descriptors_arrives_whole() {
        let (link, other) = Link::pair().unwrap();
        let (mut peer, mut other) = (Peer::new(link), Peer::new(Link::new(other).unwrap()));
        peer.send_set(&fds(250), |more| ("web", more));
        let mut partial = PartialSet::default();
        let mut sizes = Vec::new();
        while let Some(message) = other.recv::<(String, bool)>() {
            let set = partial.add(&message.body.0, message.fds, message.body.1).unwrap();
            sizes.push(set.map(|set| set.len()));
        }
        assert_eq!(sizes, [None, None, Some(250)]);
    }

    #[test]
    fn parts_of_two_sets_may_not_be_mixed() {
        let mut partial = PartialSet::default();
        let one = || vec![std::fs::File::open("/dev/null").unwrap().into()];
        assert!(partial.add("a", one(), true).unwrap().is_none());
        assert!(partial.add("b", one(), false).is_err());
        assert!(PartialSet::default().add("a", Vec::new(), false).is_err());
    }

    #[test]
    fn a_peer_that_never_reads_breaks_at_the_limit_and_not_before() {
        let (link, _other) = Link::pair().unwrap();
        let mut peer = Peer::new(link);
        for _ in 0..MAX_QUEUED {
            peer.send(&"message", Vec::new());
        }
        assert_eq!(peer.broken(), None);
        assert!(peer.interest().unwrap().contains(PollFlags::OUT));
        for _ in 0..MAX_QUEUED {
            peer.send(&"message", Vec::new());
        }
        assert_eq!(peer.broken(), Some("it does not read its messages"));
        assert_eq!(peer.interest(), None);
    }

    #[test]
    fn what_waited_is_sent_in_order_when_the_peer_reads() {
        let (link, other) = Link::pair().unwrap();
        let (mut peer, mut other) = (Peer::new(link), Peer::new(Link::new(other).unwrap()));
        for number in 0..2000 {
            peer.send(&number, Vec::new());
        }
        let mut next = 0;
        while next < 2000 {
            while let Some(message) = other.recv::<i32>() {
                assert_eq!(message.body, next);
                next += 1;
            }
            peer.flush();
        }
    }
}
