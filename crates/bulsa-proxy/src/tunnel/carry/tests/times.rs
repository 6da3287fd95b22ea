use super::*;

const SECONDS_10: Bounds = Bounds { idle: None, life: Some(Duration::from_secs(10)) };
const IDLE_10: Bounds = Bounds { idle: Some(Duration::from_secs(10)), life: None };

#[tokio::test(start_paused = true)]
async fn one_that_carries_nothing_for_too_long_is_let_go() {
    local(async {
        let mut open = Open::new(IDLE_10, true);
        for millis in [6000, 15_000] {
            open.at(millis).await;
            open.client.write_all(&masked(0x89, "")).await.unwrap();
            hears(&mut open.target, &masked(0x89, "")).await;
        }
        open.at(24_000).await;
        open.target.write_all(&frame(0x8a, "")).await.unwrap();
        hears(&mut open.client, &frame(0x8a, "")).await;
        hears(&mut open.client, b"\x88\x06\x03\xe9idle").await;
        assert_eq!(open.millis(), 34_000);
        hears_close(&mut open.target, "idle").await;
        open.both_answer().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn bytes_that_are_not_taken_are_not_carried() {
    local(async {
        let mut open = Open::new(IDLE_10, false);
        let full = vec![b'x'; SPACE_BYTES * 3];
        let writing = async {
            open.at(1000).await;
            drop(timeout(Duration::from_secs(9), open.target.write_all(&full)).await);
        };
        writing.await;
        assert_eq!(open.carrying.await.unwrap(), None);
        assert_eq!(
            open.begun.elapsed().as_millis(),
            12_000,
            "a second after the limit that began with the last byte"
        );
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn one_that_has_lived_for_long_enough_ends_whatever_it_carries() {
    local(async {
        let mut open = Open::new(SECONDS_10, true);
        for second in 1..10 {
            open.at(second * 1000).await;
            open.client.write_all(&masked(0x89, "")).await.unwrap();
            hears(&mut open.target, &masked(0x89, "")).await;
        }
        hears(&mut open.client, b"\x88\x0c\x03\xf4time is up").await;
        assert_eq!(open.millis(), 10_000);
        hears_close(&mut open.target, "time is up").await;
        open.both_answer().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn limits_are_for_bytes_without_frames_too() {
    for bounds in [SECONDS_10, IDLE_10] {
        local(async {
            let mut open = Open::new(bounds, false);
            ends(&mut open.client).await;
            ends(&mut open.target).await;
            assert_eq!(open.millis(), 10_000);
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_beyond_all_time_is_none() {
    local(async {
        let mut open = Open::new(Bounds { idle: Some(Duration::MAX), life: Some(Duration::MAX) }, true);
        open.at(1_000_000_000).await;
        open.client.write_all(&masked(0x89, "")).await.unwrap();
        hears(&mut open.target, &masked(0x89, "")).await;
        open.carrying.abort();
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_moment_to_end_may_come_nearer() {
    local(async {
        let mut open = Open::websocket();
        open.handle.end_at(open.begun + Duration::from_secs(60));
        open.at(1000).await;
        open.handle.end_at(open.begun + Duration::from_secs(30));
        hears(&mut open.client, TO_CLIENT).await;
        assert_eq!(open.millis(), 30_000);
        hears_close(&mut open.target, "").await;
        open.both_answer().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_ends_does_not_wait_for_long() {
    local(async {
        let mut open = Open::websocket();
        open.target.write_all(&frame(0x01, "begun")).await.unwrap();
        hears(&mut open.client, &frame(0x01, "begun")).await;
        open.client.write_all(&masked(0x81, "never")[..3]).await.unwrap();
        hears(&mut open.target, &masked(0x81, "never")[..3]).await;
        open.handle.hurry(Instant::now());
        hears(&mut open.client, TO_CLIENT).await;
        assert_eq!(open.millis(), 200);
        ends(&mut open.target).await;
        assert_eq!(open.millis(), 600);
        assert_eq!(open.carrying.await.unwrap(), None);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_end_under_way_is_hurried_too() {
    local(async {
        let mut open = Open::websocket();
        open.tell();
        hears(&mut open.client, TO_CLIENT).await;
        hears_close(&mut open.target, "").await;
        open.at(100).await;
        open.handle.hurry(Instant::now());
        ends(&mut open.client).await;
        assert_eq!(open.millis(), 500);
    })
    .await;
    local(async {
        let mut open = Open::websocket();
        open.tell_within(&frame(0x01, "begun")).await;
        open.at(100).await;
        open.handle.hurry(Instant::now());
        hears(&mut open.client, TO_CLIENT).await;
        assert_eq!(open.millis(), 300);
        ends(&mut open.client).await;
        assert_eq!(open.millis(), 700);
    })
    .await;
}
