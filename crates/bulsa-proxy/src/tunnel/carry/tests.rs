use std::future::poll_fn;
use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::{sleep_until, timeout};

use super::*;
use crate::tunnel::Tunnels;
use crate::tunnel::frames::Follower;
use crate::tunnel::tests::tunnel;

mod times;

const TO_CLIENT: &[u8] = b"\x88\x11\x03\xf4service restart";
/// What a client answers to a Close, under a mask of zeros.
const CLIENTS_CLOSE: &[u8] = b"\x88\x82\0\0\0\0\x03\xf4";
const TARGETS_CLOSE: &[u8] = b"\x88\x02\x03\xe9";
/// Small, so that a side that does not read is soon full.
const SPACE_BYTES: usize = 256;

/// A tunnel whose two sides the test plays.
struct Open {
    client: DuplexStream,
    target: DuplexStream,
    handle: Rc<Handle>,
    begun: Instant,
    carrying: JoinHandle<Option<Whose>>,
}

impl Open {
    fn new(bounds: Bounds, has_frames: bool) -> Self {
        let tunnel = tunnel(&Rc::new(Tunnels::default()), "a");
        let ((client, for_client), (target, for_target)) = (duplex(SPACE_BYTES), duplex(SPACE_BYTES));
        let handle = Rc::clone(&tunnel.handle);
        let carrying = spawn_local(async move {
            let frames = |follower: fn() -> Follower| has_frames.then(follower);
            let up = Way::new(Bytes::new(), frames(Follower::of_client));
            let down = Way::new(Bytes::new(), frames(Follower::of_server));
            let mut carrier = Carrier::new(&tunnel.handle, bounds, (for_client, up), (for_target, down));
            poll_fn(|cx| carrier.poll(cx)).await
        });
        Self { client, target, handle, begun: Instant::now(), carrying }
    }

    fn websocket() -> Self {
        Self::new(Bounds::default(), true)
    }

    fn tell(&self) {
        self.handle.end_at(Instant::now());
    }

    /// Waits for a moment, in milliseconds since the begin.
    async fn at(&self, millis: u64) {
        sleep_until(self.begun + Duration::from_millis(millis)).await;
    }

    /// The milliseconds since the begin.
    fn millis(&self) -> u128 {
        self.begun.elapsed().as_millis()
    }

    /// Both sides answer their Close, and both connections end. No data came meanwhile.
    async fn both_answer(mut self) {
        self.client.write_all(CLIENTS_CLOSE).await.unwrap();
        self.target.write_all(TARGETS_CLOSE).await.unwrap();
        ends(&mut self.client).await;
        ends(&mut self.target).await;
        assert_eq!(self.carrying.await.unwrap(), None);
    }
}

async fn hears(side: &mut DuplexStream, bytes: &[u8]) {
    let mut heard = vec![0; bytes.len()];
    side.read_exact(&mut heard).await.unwrap();
    assert_eq!(heard, bytes);
}

/// The target hears this Close and not a byte more for now.
async fn hears_close(target: &mut DuplexStream, reason: &str) {
    let mut heard = vec![0; 2 + 4 + 2 + reason.len()];
    target.read_exact(&mut heard).await.unwrap();
    assert_eq!(heard[..2], [0x88, 0x80 | (2 + reason.len()) as u8]);
    let plain: Vec<_> = heard[6..].iter().zip(heard[2..6].iter().cycle()).map(|(b, k)| b ^ k).collect();
    assert_eq!(plain, [b"\x03\xe9", reason.as_bytes()].concat());
    hears_nothing(target).await;
}

async fn hears_nothing(side: &mut DuplexStream) {
    assert!(timeout(Duration::from_millis(1), side.read_u8()).await.is_err());
}

async fn ends(side: &mut DuplexStream) {
    let mut rest = Vec::new();
    side.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"");
}

/// A frame of a target.
fn frame(first: u8, payload: &str) -> Vec<u8> {
    [&[first, payload.len() as u8], payload.as_bytes()].concat()
}

/// A frame of a client, under a mask of zeros.
fn masked(first: u8, payload: &str) -> Vec<u8> {
    [&[first, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload.as_bytes()].concat()
}

async fn local(test: impl Future<Output = ()>) {
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn between_two_messages_both_sides_get_a_close_at_once() {
    local(async {
        let mut open = Open::websocket();
        open.client.write_all(&masked(0x81, "ask")).await.unwrap();
        hears(&mut open.target, &masked(0x81, "ask")).await;
        // Compressed: RSV1.
        open.target.write_all(&frame(0xc2, "answer")).await.unwrap();
        hears(&mut open.client, &frame(0xc2, "answer")).await;
        open.tell();
        hears(&mut open.client, TO_CLIENT).await;
        hears_close(&mut open.target, "").await;
        // What they had still to say is not passed on.
        open.client.write_all(&masked(0x81, "late")).await.unwrap();
        open.target.write_all(&frame(0x81, "late")).await.unwrap();
        assert!(open.millis() < 10);
        open.both_answer().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_message_under_way_is_ended_before_a_close() {
    local(async {
        let mut open = Open::websocket();
        open.target.write_all(&frame(0x01, "one")).await.unwrap();
        open.client.write_all(&masked(0x81, "whole")[..7]).await.unwrap();
        open.at(100).await;
        open.tell();
        open.at(900).await;
        open.target.write_all(&frame(0x89, "ping")).await.unwrap();
        open.target.write_all(&frame(0x80, "two")).await.unwrap();
        open.target.write_all(&frame(0x81, "another")).await.unwrap();
        open.client
            .write_all(&[&masked(0x81, "whole")[7..], &masked(0x81, "another")].concat())
            .await
            .unwrap();
        for bytes in [frame(0x01, "one"), frame(0x89, "ping"), frame(0x80, "two"), TO_CLIENT.to_vec()] {
            hears(&mut open.client, &bytes).await;
        }
        hears(&mut open.target, &masked(0x81, "whole")).await;
        hears_close(&mut open.target, "").await;
        open.both_answer().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn after_a_second_a_close_comes_between_fragments() {
    local(async {
        let mut open = Open::websocket();
        open.tell_within(&frame(0x01, "one")).await;
        open.at(500).await;
        open.target.write_all(&frame(0x00, "two")).await.unwrap();
        hears(&mut open.client, &frame(0x00, "two")).await;
        hears(&mut open.client, TO_CLIENT).await;
        assert_eq!(open.millis(), 1000);
        open.target.write_all(&frame(0x80, "three")).await.unwrap();
        hears_close(&mut open.target, "").await;
        open.both_answer().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn after_a_second_a_close_comes_behind_the_frame() {
    local(async {
        let mut open = Open::websocket();
        open.tell_within(&frame(0x01, "long")[..3]).await;
        open.at(4900).await;
        open.target.write_all(&frame(0x01, "long")[3..]).await.unwrap();
        hears(&mut open.client, &frame(0x01, "long")[3..]).await;
        hears(&mut open.client, TO_CLIENT).await;
        assert_eq!(open.millis(), 4900);
        open.both_answer_but_heard().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn after_five_seconds_within_a_frame_the_connections_are_just_closed() {
    local(async {
        let mut open = Open::websocket();
        open.tell_within(&frame(0x81, "never")[..4]).await;
        hears_close(&mut open.target, "").await;
        assert!((1000..1010).contains(&open.millis()), "{}", open.millis());
        ends(&mut open.client).await;
        assert_eq!(open.millis(), 5000);
        ends(&mut open.target).await;
        assert_eq!(open.carrying.await.unwrap(), None);
    })
    .await;
}

impl Open {
    /// The target has sent these bytes when the tunnel is told to end.
    async fn tell_within(&mut self, bytes: &[u8]) {
        self.target.write_all(bytes).await.unwrap();
        hears(&mut self.client, bytes).await;
        self.tell();
    }

    /// As [`Self::both_answer`], with the target's Close not read yet.
    async fn both_answer_but_heard(mut self) {
        hears_close(&mut self.target, "").await;
        self.both_answer().await;
    }
}

#[tokio::test(start_paused = true)]
async fn of_what_waits_for_a_slow_reader_only_the_message_under_way_is_still_written() {
    local(async {
        let mut open = Open::websocket();
        let (one, two) = (frame(0x82, &"1".repeat(100)), frame(0x82, &"2".repeat(125)));
        for message in [&one, &one, &two, &one] {
            open.target.write_all(message).await.unwrap();
        }
        // The client's space ends within the third message.
        open.at(10).await;
        open.tell();
        open.at(20).await;
        for message in [&one[..], &one, &two, TO_CLIENT] {
            hears(&mut open.client, message).await;
        }
        open.both_answer_but_heard().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_side_that_does_not_read_holds_nothing_up_for_longer_than_the_time() {
    local(async {
        let mut open = Open::websocket();
        for _ in 0..8 {
            let message = frame(0x82, &"x".repeat(100));
            drop(timeout(Duration::from_millis(5), open.target.write_all(&message)).await);
        }
        open.at(1000).await;
        open.tell();
        hears_close(&mut open.target, "").await;
        assert_eq!(open.carrying.await.unwrap(), None);
        assert_eq!(open.begun.elapsed().as_millis(), 6000);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_side_that_does_not_answer_a_close_is_waited_for_for_a_second() {
    local(async {
        let mut open = Open::websocket();
        open.tell();
        hears(&mut open.client, TO_CLIENT).await;
        open.client.write_all(CLIENTS_CLOSE).await.unwrap();
        // The client need not wait for the other side.
        ends(&mut open.client).await;
        assert!(open.millis() < 10);
        hears_close(&mut open.target, "").await;
        ends(&mut open.target).await;
        assert_eq!(open.millis(), 1000);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn to_a_close_of_their_own_none_is_added() {
    local(async {
        let mut open = Open::websocket();
        open.client.write_all(CLIENTS_CLOSE).await.unwrap();
        hears(&mut open.target, CLIENTS_CLOSE).await;
        open.tell();
        open.at(300).await;
        // It may end what it was saying.
        let last = [&frame(0x81, "last"), TARGETS_CLOSE].concat();
        open.target.write_all(&last).await.unwrap();
        hears(&mut open.client, &last).await;
        ends(&mut open.client).await;
        ends(&mut open.target).await;
        assert_eq!(open.millis(), 300);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_their_own_that_never_comes_is_not_waited_for_for_ever() {
    local(async {
        let mut open = Open::websocket();
        open.target.write_all(TARGETS_CLOSE).await.unwrap();
        hears(&mut open.client, TARGETS_CLOSE).await;
        open.tell();
        ends(&mut open.target).await;
        ends(&mut open.client).await;
        assert_eq!(open.millis(), 5000);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_is_told_in_the_midst_of_a_message_answers_and_the_other_still_hears_the_word_of_the_proxy() {
    local(async {
        let mut open = Open::websocket();
        open.target.write_all(&frame(0x01, "begun")).await.unwrap();
        hears(&mut open.client, &frame(0x01, "begun")).await;
        open.tell();
        open.at(900).await;
        hears_nothing(&mut open.target).await;
        hears_close(&mut open.target, "").await;
        open.target.write_all(TARGETS_CLOSE).await.unwrap();
        hears(&mut open.client, TO_CLIENT).await;
        assert!((1000..1010).contains(&open.millis()), "{}", open.millis());
        open.client.write_all(CLIENTS_CLOSE).await.unwrap();
        ends(&mut open.client).await;
        ends(&mut open.target).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_a_side_says_while_the_other_ends_its_message_is_not_begun() {
    local(async {
        let mut open = Open::websocket();
        open.client.write_all(&masked(0x01, "begun")).await.unwrap();
        hears(&mut open.target, &masked(0x01, "begun")).await;
        open.tell();
        open.at(500).await;
        open.target.write_all(&frame(0x81, "late")).await.unwrap();
        hears_nothing(&mut open.client).await;
        open.client.write_all(&masked(0x80, "ended")).await.unwrap();
        hears(&mut open.target, &masked(0x80, "ended")).await;
        hears_close(&mut open.target, "").await;
        hears(&mut open.client, TO_CLIENT).await;
        assert!((500..510).contains(&open.millis()), "{}", open.millis());
        open.both_answer().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn half_a_close_is_passed_on_and_the_other_half_gets_a_close() {
    local(async {
        let mut open = Open::websocket();
        open.client.write_all(&masked(0x81, "last")).await.unwrap();
        open.client.shutdown().await.unwrap();
        hears(&mut open.target, &masked(0x81, "last")).await;
        ends(&mut open.target).await;
        open.target.write_all(&frame(0x81, "still")).await.unwrap();
        hears(&mut open.client, &frame(0x81, "still")).await;
        open.tell();
        hears(&mut open.client, TO_CLIENT).await;
        ends(&mut open.client).await;
        open.target.write_all(TARGETS_CLOSE).await.unwrap();
        assert_eq!(open.carrying.await.unwrap(), None);
        assert!(open.begun.elapsed().as_millis() < 10);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_has_no_frames_ends_without_a_close() {
    local(async {
        let mut open = Open::new(Bounds::default(), false);
        let bytes = vec![b'x'; SPACE_BYTES + 20];
        open.target.write_all(&bytes).await.unwrap();
        open.at(10).await;
        open.tell();
        open.at(500).await;
        hears(&mut open.client, &bytes).await;
        ends(&mut open.client).await;
        ends(&mut open.target).await;
        assert_eq!(open.millis(), 500);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn where_the_protocol_was_broken_bytes_pass_on_and_end_without_a_close() {
    local(async {
        let mut open = Open::websocket();
        // Not masked.
        open.client.write_all(&frame(0x81, "wrong")).await.unwrap();
        open.client.write_all(&masked(0x81, "right")).await.unwrap();
        hears(&mut open.target, &[frame(0x81, "wrong"), masked(0x81, "right")].concat()).await;
        open.tell();
        ends(&mut open.target).await;
        hears(&mut open.client, TO_CLIENT).await;
        ends(&mut open.client).await;
        open.target.write_all(TARGETS_CLOSE).await.unwrap();
        assert_eq!(open.carrying.await.unwrap(), None);
        assert!(open.begun.elapsed().as_millis() < 10);
    })
    .await;
}
