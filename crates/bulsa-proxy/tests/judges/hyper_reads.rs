//! hyper as another reader of what the proxy accepts: both must see the same requests, and as many.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bulsa_proxy::fuzzing::{self, Read};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::corpus;
use crate::programs::is_long;

/// A request, as both tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    method: String,
    /// The path with its query, or `*`; nothing where the proxy answers itself (it has no host, say).
    target: Option<String>,
    body: Vec<u8>,
}

/// What the proxy accepts of some bytes, to the first request that ends the connection.
fn ours(bytes: &[u8]) -> Vec<Told> {
    let mut all = Vec::new();
    for read in fuzzing::requests(bytes) {
        let Read::Request(request) = read else { break };
        // hyper's library for targets refuses some signs that browsers, nginx and HAProxy let through.
        if request.target.parse::<http::Uri>().is_err() {
            break;
        }
        let fuzzing::Request { method, body, forwarded: target, is_last, .. } = request;
        // One that the proxy answers itself is of interest only if something is read behind it.
        if target.is_some() || !is_last {
            all.push(Told { method: String::from_utf8_lossy(&method).into_owned(), target, body });
        }
        if is_last {
            break;
        }
    }
    all
}

/// What hyper reads of them.
async fn hypers(bytes: &[u8]) -> Vec<Told> {
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let told = Arc::new(Mutex::new(Vec::new()));
    let telling = Arc::clone(&told);
    let service = service_fn(move |request: http::Request<Incoming>| {
        let telling = Arc::clone(&telling);
        async move {
            let (head, body) = request.into_parts();
            let status = if head.method == http::Method::CONNECT { 405 } else { 200 };
            // What ends within its body was no request.
            if let Ok(body) = body.collect().await {
                let (method, body) = (head.method.to_string(), body.to_bytes().to_vec());
                let target = head.uri.path_and_query().map(ToString::to_string);
                telling.lock().unwrap().push(Told { method, target, body });
            }
            let answer = http::Response::builder().status(status).body(Empty::<Bytes>::new());
            Ok::<_, Infallible>(answer.unwrap())
        }
    });
    let serve = http1::Builder::new().half_close(true).serve_connection(TokioIo::new(theirs), service);
    let (mut reader, mut writer) = tokio::io::split(ours);
    let write = async {
        // It may end before all is read.
        drop(writer.write_all(bytes).await);
        drop(writer.shutdown().await);
    };
    let read = async {
        let mut answers = Vec::new();
        drop(reader.read_to_end(&mut answers).await);
    };
    let (served, (), ()) = tokio::join!(serve, write, read);
    drop(served);
    told.lock().unwrap().clone()
}

/// Where hyper reads something else than the proxy, as far as the proxy reads.
fn differ(bytes: &[u8]) -> Result<usize, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (ours, hypers) = (ours(bytes), runtime.block_on(hypers(bytes)));
    for (index, our) in ours.iter().enumerate() {
        let same = hypers.get(index).is_some_and(|hyper| {
            (&hyper.method, &hyper.body) == (&our.method, &our.body)
                && (our.target.is_none() || our.target == hyper.target)
        });
        if !same {
            return Err(format!("ours: {ours:?}\nhyper's: {hypers:?}\nof: {}", bytes.escape_ascii()));
        }
    }
    Ok(ours.len())
}

/// Mostly sound streams of requests, with everything that frames them in many forms.
fn streams() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        8 => "(GET|POST|PUT|HEAD|OPTIONS|X-Y) /[a-z0-9?&=%./]{0,8} HTTP/1[.][01]",
        1 => "(GET|POST) http://[a-z]{1,3}(:[0-9]{1,2})?/[a-z]{0,3} HTTP/1[.]1",
        1 => "(GET|POST|CONNECT|OPTIONS|get) ( |[*]|a:1|/\t|/ ) ?HTTP/[0-2][.][0-9]",
    ];
    let field = prop_oneof![
        6 => "(Host|X-A|Accept): ?[a-z0-9 ,;=]{0,8}",
        4 => "[Cc]ontent-[Ll]ength: ?[0-9]{1,2}",
        3 => "[Tt]ransfer-[Ee]ncoding: ?[Cc]hunked ?",
        1 => "(Content-Length|Transfer-Encoding|Content_Length)[ \t]?:[ \t\x0b]{0,2}[-+0-9a-fx,; \"]{0,4}(chunked|gzip)?[,; ]?",
        1 => "(Connection|Upgrade|Expect|Trailer): (close|keep-alive|upgrade|h2c|100-continue|X-A)",
        1 => "[ -~\t\r\n\0]{0,12}",
    ];
    let end = prop_oneof![30 => Just("\r\n"), 1 => Just("\n"), 1 => Just("\r"), 1 => Just("\r\n ")];
    let field = (field, end.clone()).prop_map(|(field, end)| field + end);
    let chunk = prop_oneof![
        8 => prop::collection::vec(b'a'..=b'z', 1..20).prop_map(|data| {
            let text = String::from_utf8(data).unwrap();
            format!("{:x}\r\n{text}\r\n", text.len())
        }),
        1 => "0{0,3}[0-9a-fA-F]{1,2}(;[a-z=\"]{0,4})?\r?\n[a-z]{0,16}\r?\n",
    ];
    let trailer = prop_oneof![6 => Just("\r\n".to_owned()), 1 => "(X-T: [a-z]{0,3}\r\n){0,2}\r\n", 1 => "[A-Z: \r\n]{0,8}"];
    let chunks = (prop::collection::vec(chunk, 0..3), trailer);
    let body = prop_oneof![
        3 => Just(String::new()),
        3 => "[a-z0-9\r\n ]{0,20}",
        3 => chunks.prop_map(|(chunks, trailer)| format!("{}0\r\n{trailer}", chunks.concat())),
    ];
    let request =
        (line, end, prop::collection::vec(field, 0..4), body).prop_map(|(line, end, fields, body)| {
            format!("{line}{end}{}\r\n{body}", fields.concat()).into_bytes()
        });
    let sound = "(GET|POST) /[a-z]{0,4} HTTP/1[.]1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
        .prop_map(String::into_bytes);
    let requests =
        prop::collection::vec(prop_oneof![2 => request, 1 => sound], 1..4).prop_map(|all| all.concat());
    // Now and then a byte is another one.
    (requests, prop::option::weighted(0.2, (any::<prop::sample::Index>(), any::<u8>()))).prop_map(
        |(mut bytes, slip)| {
            if let Some((place, byte)) = slip {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
            bytes
        },
    )
}

#[test]
fn hyper_reads_what_the_proxy_accepts_of_all_payloads() {
    let all = corpus::all();
    let wrong: Vec<_> = all.iter().filter_map(|payload| differ(&payload.bytes).err()).collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), all.len(), wrong.join("\n\n"));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if is_long() { 500_000 } else { 5_000 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn hyper_reads_what_the_proxy_accepts(bytes in streams()) {
        if let Err(difference) = differ(&bytes) {
            return Err(TestCaseError::fail(difference));
        }
    }
}
