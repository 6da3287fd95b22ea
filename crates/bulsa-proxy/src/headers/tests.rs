//! What passes, what is set, and what is refused.

use super::*;
use crate::h1::framing;
use crate::h1::head::Search;

fn head(line: &str, fields: &[(&str, &str)]) -> RequestHead {
    let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let text = format!("{line}\r\n{fields}\r\n");
    let mut search = Search::default();
    let end = search.end_of_head(text.as_bytes()).unwrap().unwrap();
    let mut head = RequestHead::default();
    head.read(&text.as_bytes()[..end], &search).unwrap();
    head
}

fn answer(fields: &[(&str, &str)]) -> AnswerHead {
    let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let mut head = AnswerHead::default();
    head.read(format!("HTTP/1.1 200 OK\r\n{fields}\r\n").as_bytes()).unwrap().unwrap();
    head
}

/// What a target gets of a request.
fn written(head: &RequestHead, is_trusted: bool) -> String {
    let screened = screen(head).unwrap();
    let framing = framing::of_request(head).unwrap();
    let by = Rewriting {
        screened: &screened,
        framing,
        websocket: asks_for_websocket(head, framing),
        peer: "9.9.9.9",
        is_trusted,
        id: "1",
        rules: None,
    };
    let mut out = Vec::new();
    write_request(&mut out, head, &by);
    String::from_utf8(out).unwrap()
}

/// The values of a field in a written head.
fn value(text: &str, name: &str) -> String {
    let fields = text.lines().filter_map(|line| line.split_once(": "));
    fields
        .filter(|(one, _)| one.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
        .collect::<Vec<_>>()
        .join("|")
}

const HOST: (&str, &str) = ("Host", "a");

#[test]
fn the_authority_of_the_target_wins_over_the_host_field() {
    let head = head("GET http://real.example:81/a?b HTTP/1.1", &[("Host", "other")]);
    let screened = screen(&head).unwrap();
    assert_eq!((screened.host.as_ref(), screened.target.as_ref()), ("real.example:81", "/a?b"));
    let text = written(&head, false);
    assert!(text.starts_with("GET /a?b HTTP/1.1\r\nHost: real.example:81\r\n"), "{text}");
}

#[test]
fn an_absolute_target_without_a_path_gets_one() {
    let bare = head("GET http://a HTTP/1.1", &[HOST]);
    assert_eq!(screen(&bare).unwrap().target, "/");
    let query = head("GET http://a?x=1 HTTP/1.1", &[HOST]);
    assert_eq!(screen(&query).unwrap().target, "/?x=1");
}

#[test]
fn a_target_is_a_path_or_an_address_of_this_protocol() {
    for target in ["a/b", "http:/a", "ftp://a/", "/a#b", "http://u@h/", "*"] {
        assert!(screen(&head(&format!("GET {target} HTTP/1.1"), &[HOST])).is_err(), "{target}");
    }
    assert!(screen(&head("OPTIONS * HTTP/1.1", &[HOST])).is_ok());
}

#[test]
fn a_request_needs_exactly_one_valid_host() {
    for fields in [&[][..], &[HOST, ("host", "b")], &[("host", "a b")], &[("host", "u@h")]] {
        assert_eq!(screen(&head("GET / HTTP/1.1", fields)), Err(Unfit::Host), "{fields:?}");
    }
    assert_eq!(screen(&head("GET / HTTP/1.0", &[])).unwrap().host, "");
}

#[test]
fn connect_and_unknown_expectations_are_unfit() {
    assert_eq!(screen(&head("CONNECT a:1 HTTP/1.1", &[HOST])), Err(Unfit::Connect));
    let expecting = |what| head("GET / HTTP/1.1", &[HOST, ("expect", what)]);
    assert_eq!(screen(&expecting("tea")), Err(Unfit::Expectation));
    assert!(screen(&expecting("100-Continue")).unwrap().expects_leave);
}

#[test]
fn only_a_websocket_request_asks_for_a_tunnel() {
    let fields = [
        HOST,
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Version", "13"),
    ];
    let asks = |line: &str, fields: &[(&str, &str)]| {
        let head = head(line, fields);
        asks_for_websocket(&head, framing::of_request(&head).unwrap())
    };
    assert!(asks("GET / HTTP/1.1", &fields));
    for missing in 1..fields.len() {
        let rest: Vec<_> =
            fields.iter().enumerate().filter(|(i, _)| *i != missing).map(|(_, f)| *f).collect();
        assert!(!asks("GET / HTTP/1.1", &rest), "without {}", fields[missing].0);
    }
    let with = |name, value| {
        let mut all = fields.to_vec();
        all.push((name, value));
        all
    };
    assert!(!asks("GET / HTTP/1.1", &with("content-length", "5")));
    assert!(!asks("GET / HTTP/1.1", &with("Sec-WebSocket-Version", "8")));
    assert!(!asks("POST / HTTP/1.1", &fields));
    assert!(!asks("GET / HTTP/1.0", &fields));
}

#[test]
fn hop_by_hop_and_nominated_fields_go_but_not_the_vital_ones() {
    let head = head(
        "POST / HTTP/1.1",
        &[
            ("connection", "close, x-once, Host, cookie, x-forwarded-for, content-length, authorization"),
            ("x-once", "1"),
            HOST,
            ("cookie", "c"),
            ("x-forwarded-for", "1.1.1.1"),
            ("content-length", "3"),
            ("authorization", "b"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("http2-settings", "x"),
            ("proxy-connection", "close"),
            ("X-KEPT", "yes"),
        ],
    );
    let text = written(&head, true);
    let names: Vec<_> =
        text.lines().skip(1).filter_map(|line| line.split_once(": ")).map(|(n, _)| n).collect();
    let expected = [
        "Host",
        "cookie",
        "authorization",
        "X-KEPT",
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Forwarded-Host",
        "X-Request-Id",
        "Content-Length",
    ];
    assert_eq!(names, expected);
}

#[test]
fn a_strangers_claims_are_replaced() {
    let head = head(
        "GET / HTTP/1.1",
        &[
            ("Host", "shop"),
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil"),
            ("x-forwarded-prefix", "/evil"),
            ("x_forwarded_for", "6.6.6.6"),
            ("x-real-ip", "6.6.6.6"),
            ("forwarded", "for=6.6.6.6"),
            ("expect", "100-continue"),
        ],
    );
    let text = written(&head, false);
    assert!(!text.contains("6.6.6.6") && !text.contains("evil") && !text.contains("expect"), "{text}");
    assert_eq!(value(&text, "x-forwarded-for"), "9.9.9.9");
    assert_eq!(value(&text, "x-forwarded-proto"), "http");
    assert_eq!(value(&text, "x-forwarded-host"), "shop");
}

#[test]
fn a_trusted_peer_is_appended_and_believed() {
    let fields = [
        HOST,
        ("x-forwarded-for", "1.1.1.1"),
        ("x-forwarded-for", "2.2.2.2"),
        ("x-forwarded-proto", "https"),
    ];
    let text = written(&head("GET / HTTP/1.1", &fields), true);
    assert_eq!(value(&text, "x-forwarded-for"), "1.1.1.1, 2.2.2.2, 9.9.9.9");
    assert_eq!(value(&text, "x-forwarded-proto"), "https");
    assert_eq!(value(&text, "x-forwarded-host"), "a");
}

#[test]
fn the_client_behind_trusted_peers_is_the_last_that_is_none() {
    let of = |list: &str| {
        let head = head("GET / HTTP/1.1", &[("x-forwarded-for", list)]);
        let trusted = |address: &IpAddr| address.to_string().starts_with("10.");
        client_behind(&head, "10.0.0.1".parse().unwrap(), trusted).to_string()
    };
    assert_eq!(of("6.6.6.6, 1.1.1.1, 10.0.0.2"), "1.1.1.1");
    assert_eq!(of("1.1.1.1:4711"), "1.1.1.1");
    assert_eq!(of("[2001:db8::1]:80, 10.0.0.2"), "2001:db8::1");
    assert_eq!(of("10.0.0.3, 10.0.0.2"), "10.0.0.3");
    assert_eq!(of("unknown, 10.0.0.2"), "10.0.0.2");
    assert_eq!(of(""), "10.0.0.1");
}

fn written_answer(head: &AnswerHead, framing: Framing, keep: bool, minor: u8) -> String {
    let by = Answering { framing, keep, minor, cookie: None, rules: None, date: "now" };
    let mut out = Vec::new();
    write_answer(&mut out, head, &by);
    String::from_utf8(out).unwrap()
}

#[test]
fn an_answer_is_framed_anew_and_keeps_the_rest() {
    let fields =
        [("Server", "x"), ("CONTENT-Type", "a"), ("Transfer-Encoding", "chunked"), ("Content-Length", "3")];
    let head = answer(&fields);
    let text = written_answer(&head, Framing::Chunked, true, 1);
    let expected =
        "HTTP/1.1 200 OK\r\nServer: x\r\nCONTENT-Type: a\r\nDate: now\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(text, expected);
    let text = written_answer(&answer(&[("Content-Length", "3"), ("Date", "then")]), Framing::None, false, 1);
    assert_eq!(
        (value(&text, "content-length"), value(&text, "date")),
        ("3".into(), "then".into()),
        "to HEAD"
    );
    assert_eq!(value(&text, "connection"), "close");
    let text = written_answer(&answer(&[]), Framing::Length(0), true, 0);
    assert_eq!(value(&text, "connection"), "keep-alive");
}

#[test]
fn the_keep_alive_timeout_is_read() {
    let stated = |value: &str| keep_alive_timeout(&answer(&[("keep-alive", value)]));
    assert_eq!(stated("max=100, Timeout=5"), Some(Duration::from_secs(5)));
    assert_eq!(stated("max=1"), None);
}

#[test]
fn a_connection_is_kept_as_the_version_and_the_fields_say() {
    let keeps = |line: &str, value| client_keeps(&head(line, &[("connection", value)]));
    assert!(keeps("GET / HTTP/1.1", "x"));
    assert!(!keeps("GET / HTTP/1.1", "x, Close"));
    assert!(!keeps("GET / HTTP/1.0", "x"));
    assert!(keeps("GET / HTTP/1.0", "Keep-Alive"));
    assert!(!keeps("GET / HTTP/1.0", "keep-alive, close"));
}

#[test]
fn numbers_are_written_in_digits() {
    let written = |n| {
        let mut out = Vec::new();
        number(&mut out, n);
        String::from_utf8(out).unwrap()
    };
    assert_eq!(
        [0, 7, 10, 65_536, u64::MAX].map(written),
        [0, 7, 10, 65_536, u64::MAX].map(|n| n.to_string())
    );
}

#[test]
fn streams_of_events_are_known_by_their_type() {
    assert!(is_stream(&answer(&[("content-type", "text/event-stream; charset=utf-8")])));
    assert!(!is_stream(&answer(&[("content-type", "text/html")])));
    assert!(!is_stream(&answer(&[])));
}
