use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use bulsa_core::spec::{Accept, Check};

use super::super::{EVIDENCE_BYTES_MAX, ProbeResult, ProbeTarget, bounded, is_ours, run};

fn check(accept: Accept) -> Check {
    Check::Http { port: None, path: "/health-check?full=1".to_owned(), host: None, accept }
}

fn target(address: SocketAddr) -> ProbeTarget {
    ProbeTarget { addr: Some(address), ..ProbeTarget::default() }
}

/// A server that reads one request's head, writes `answer`, and keeps the connection until the other side closes it.
fn server(answer: &'static [u8]) -> (SocketAddr, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() > 0 {
            head.push(byte[0]);
        }
        stream.write_all(answer).unwrap();
        if !answer.is_empty() {
            // Ends when the probe closes, be it with a reset.
            drop(stream.read(&mut byte));
        }
        String::from_utf8(head).unwrap()
    });
    (address, thread)
}

async fn probe(answer: &'static [u8], accept: Accept) -> (ProbeResult, String) {
    let (address, server) = server(answer);
    let result = run(&check(accept), &target(address), Duration::from_secs(5)).await;
    (result, server.join().unwrap())
}

fn evidence(result: ProbeResult) -> String {
    let ProbeResult::Fail { evidence, .. } = result else { panic!("no failure: {result:?}") };
    assert!(evidence.len() <= EVIDENCE_BYTES_MAX);
    evidence
}

#[tokio::test]
async fn an_answer_that_is_accepted_passes() {
    for (answer, accept) in [
        (&b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"[..], Accept::Success),
        (b"HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n", Accept::Success),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", Accept::AnyAnswer),
        (b"HTTP/1.0 200 OK\r\n\r\n", Accept::Success),
        // The head is enough: this body never ends.
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", Accept::Success),
    ] {
        let (result, _) = probe(answer, accept).await;
        assert!(matches!(result, ProbeResult::Pass { .. }), "{result:?}");
    }
}

#[tokio::test]
async fn the_request_says_who_asks_for_what() {
    let (address, server) = server(b"HTTP/1.1 204 No Content\r\n\r\n");
    let mut asked = check(Accept::Success);
    run(&asked, &target(address), Duration::from_secs(5)).await;
    let head = server.join().unwrap().to_lowercase();
    assert!(head.starts_with("get /health-check?full=1 http/1.1\r\n"), "{head}");
    for field in ["user-agent: bulsa-probe\r\n", "connection: close\r\n", &format!("host: {address}\r\n")] {
        assert!(head.contains(field), "{field} isn't in {head}");
    }

    let (address, server) = self::server(b"HTTP/1.1 204 No Content\r\n\r\n");
    if let Check::Http { host, port, .. } = &mut asked {
        (*host, *port) = (Some("shop.example".to_owned()), Some(address.port()));
    }
    // The port of the check wins over the target's.
    let elsewhere = SocketAddr::new(address.ip(), 1);
    let result = run(&asked, &target(elsewhere), Duration::from_secs(5)).await;
    assert!(matches!(result, ProbeResult::Pass { .. }), "{result:?}");
    assert!(server.join().unwrap().to_lowercase().contains("host: shop.example\r\n"));
}

#[tokio::test]
async fn an_answer_that_is_not_accepted_fails_with_status_and_body() {
    let answer = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 12\r\n\r\nno\ndatabase!";
    let (result, _) = probe(answer, Accept::Success).await;
    assert_eq!(evidence(result), "HTTP 503 Service Unavailable: no database!");
    let (result, _) = probe(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", Accept::Success).await;
    assert_eq!(evidence(result), "HTTP 404 Not Found:");
    let (result, _) = probe(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", Accept::AnyAnswer).await;
    assert_eq!(evidence(result), "HTTP 500 Internal Server Error:");
}

#[tokio::test]
async fn a_failed_answers_body_that_is_late_is_not_waited_for() {
    let (result, _) = probe(b"HTTP/1.1 500 Oops\r\nContent-Length: 99\r\n\r\nhalf", Accept::Success).await;
    assert_eq!(evidence(result), "HTTP 500 Internal Server Error: half");
}

#[tokio::test]
async fn no_listener_is_a_failure_that_says_so() {
    // Bound, so that nobody else gets the port, but not listening.
    let held = tokio::net::TcpSocket::new_v4().unwrap();
    held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let unused = held.local_addr().unwrap();
    let result = run(&check(Accept::AnyAnswer), &target(unused), Duration::from_secs(5)).await;
    assert_eq!(evidence(result), format!("{unused}: connection refused: nothing listens there"));
}

#[tokio::test]
async fn a_connection_that_only_the_kernel_accepts_is_a_failure() {
    // As with a stopped process: nobody calls accept.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let result = run(&check(Accept::AnyAnswer), &target(address), Duration::from_millis(20)).await;
    assert_eq!(evidence(result), format!("{address}: connected, but no answer within 20ms"));
}

#[tokio::test]
async fn a_connection_closed_without_an_answer_is_a_failure() {
    let (result, _) = probe(b"", Accept::AnyAnswer).await;
    let text = evidence(result);
    assert!(text.contains("without an answer"), "{text}");
}

#[tokio::test]
async fn an_answer_that_is_no_http_is_a_failure() {
    let (result, _) = probe(b"220 mail.example ESMTP\r\n\r\n", Accept::AnyAnswer).await;
    let text = evidence(result);
    assert!(text.contains("isn't HTTP/1"), "{text}");
}

#[tokio::test]
async fn what_cannot_be_asked_is_not_the_services_fault() {
    let unknown = run(&check(Accept::Success), &ProbeTarget::default(), Duration::from_secs(1)).await;
    assert!(matches!(unknown, ProbeResult::CouldNotRun { .. }), "{unknown:?}");
    let odd = Check::Http { port: None, path: "no path".to_owned(), host: None, accept: Accept::Success };
    let odd = run(&odd, &target(SocketAddr::from(([127, 0, 0, 1], 1))), Duration::from_secs(1)).await;
    assert!(matches!(odd, ProbeResult::CouldNotRun { .. }), "{odd:?}");
    let up = run(&Check::Up, &ProbeTarget::default(), Duration::from_secs(1)).await;
    assert!(matches!(up, ProbeResult::CouldNotRun { .. }), "{up:?}");
}

#[test]
fn a_shortage_here_is_told_from_a_failure_there() {
    let ours = |errno: rustix::io::Errno| is_ours(&errno.into());
    assert!(ours(rustix::io::Errno::MFILE) && ours(rustix::io::Errno::ADDRNOTAVAIL));
    assert!(!ours(rustix::io::Errno::CONNREFUSED) && !ours(rustix::io::Errno::HOSTUNREACH));
    assert!(!is_ours(&std::io::Error::other("x")));
}

#[test]
fn evidence_is_one_bounded_line() {
    assert_eq!(bounded(" a\r\n\tb\0 "), "a   b");
    let long = bounded(&"é".repeat(600));
    assert_eq!(long.len(), EVIDENCE_BYTES_MAX);
}
