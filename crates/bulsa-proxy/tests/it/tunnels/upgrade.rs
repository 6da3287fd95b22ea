use tokio::time::timeout;

use super::{ANSWER, ASK, echo, open};
use crate::support::*;

#[tokio::test]
async fn bytes_behind_the_request_wait_for_the_answer_and_are_not_lost() {
    let backend = Backend::serving(|mut wire, seen| async move {
        seen.next(&mut wire).await;
        assert_eq!(wire.rest, b"");
        let early = timeout(std::time::Duration::from_millis(100), wire.bytes(1)).await;
        assert!(early.is_err(), "bytes before the answer: {early:?}");
        wire.write(ANSWER).await;
        assert_eq!(wire.bytes(5).await.unwrap(), b"early");
        wire.write("late").await;
    })
    .await;
    let rig = Rig::new(&table(1, &[backend.target("a")])).await;
    let mut client = Wire::connect(rig.addr).await;
    client.write(&format!("{ASK}early")).await;
    patient(client.head()).await.unwrap();
    assert_eq!(patient(client.bytes(4)).await.unwrap(), b"late");
}

#[tokio::test]
async fn an_upgrade_that_the_target_declines_is_an_ordinary_answer() {
    for answer in ["426 Upgrade Required", "403 Forbidden", "200 OK"] {
        let backend = Backend::serving(move |mut wire, seen| async move {
            while seen.next(&mut wire).await.is_some() {
                wire.write(&format!("HTTP/1.1 {answer}\r\nContent-Length: 2\r\n\r\nno")).await;
            }
        })
        .await;
        let rig = Rig::new(&table(1, &[backend.target("a")])).await;
        let mut client = Wire::connect(rig.addr).await;
        // What comes right behind is a request then.
        client.write(&format!("{ASK}{}", get("/next"))).await;
        for line in ["GET /ws HTTP/1.1", "GET /next HTTP/1.1"] {
            let heard = patient(client.message()).await.unwrap();
            assert_eq!((heard.line(), heard.text().as_str()), (format!("HTTP/1.1 {answer}").as_str(), "no"));
            assert_eq!(backend.seen.all().last().unwrap().line(), line);
        }
        assert_eq!(rig.target("a").tunnels, 0);
    }
}

#[tokio::test]
async fn an_answer_to_another_question_is_no_tunnel() {
    let answers = [
        ANSWER.replace("Upgrade: WebSocket", "Upgrade: h2c"),
        ANSWER.replace("Upgrade: WebSocket", "Upgrade: websocket, h2c"),
        ANSWER.replace("Upgrade: WebSocket\r\n", ""),
        ANSWER.replace("s3pP", "S3pP"),
        ANSWER.replace("Sec-WebSocket-Accept", "X-Accept"),
    ];
    for answer in answers {
        let sent = answer.clone();
        let backend = Backend::serving(move |mut wire, seen| {
            let sent = sent.clone();
            async move {
                seen.next(&mut wire).await;
                wire.write(&sent).await;
                wire.rest_to_end().await;
            }
        })
        .await;
        let rig = Rig::new(&table(1, &[backend.target("a")])).await;
        assert_eq!(ask(rig.addr, ASK).await.status(), 502, "{answer}");
        let target = rig.target("a");
        assert_eq!((target.tunnels, target.broken), (0, 1), "{answer}");
    }
}

#[tokio::test]
async fn what_asks_for_no_websocket_is_passed_on_as_a_request() {
    let asks = [
        ASK.replace("Upgrade: websocket", "Upgrade: h2c"),
        ASK.replace("keep-alive, Upgrade", "keep-alive"),
        ASK.replace("Version: 13", "Version: 8"),
        ASK.replace("Key: dGhl", "Key: dGh"),
        ASK.replace("Sec-WebSocket-Key", "X-Key"),
        ASK.replace("GET /ws", "POST /ws").replace("Host: a", "Host: a\r\nContent-Length: 0"),
    ];
    let backend = Backend::saying("page").await;
    let rig = Rig::new(&table(1, &[backend.target("a")])).await;
    for request in asks {
        assert_eq!(ask(rig.addr, &request).await.text(), "page", "{request}");
        let seen = backend.seen.all().pop().unwrap();
        assert_eq!((seen.field("upgrade"), seen.field("connection")), Default::default(), "{request}");
    }
}

#[tokio::test]
async fn an_answer_nobody_asked_for_is_none() {
    let backend = echo("").await;
    let rig = Rig::new(&table(1, &[backend.target("a")])).await;
    assert_eq!(rig.get("/").await.status(), 502);
}

#[tokio::test]
async fn of_several_protocols_only_the_websocket_is_asked_for() {
    let backend = echo("").await;
    let rig = Rig::new(&table(1, &[backend.target("a")])).await;
    let mut client = Wire::connect(rig.addr).await;
    client.write(&ASK.replace("Upgrade: websocket", "Upgrade: h2c, WebSocket")).await;
    let head = patient(client.head()).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    let seen = &backend.seen.all()[0];
    assert_eq!((seen.field("upgrade").as_str(), seen.field("connection").as_str()), ("websocket", "upgrade"));
}

#[tokio::test]
async fn the_length_of_nothing_is_no_part_of_the_answer() {
    let backend = Backend::serving(|mut wire, seen| async move {
        seen.next(&mut wire).await;
        wire.write(&ANSWER.replace("\r\n\r\n", "\r\nContent-Length: 0\r\n\r\nhello")).await;
        wire.rest_to_end().await;
    })
    .await;
    let rig = Rig::new(&table(1, &[backend.target("a")])).await;
    let mut client = open(&rig).await;
    assert_eq!(patient(client.bytes(5)).await.unwrap(), b"hello");
}
