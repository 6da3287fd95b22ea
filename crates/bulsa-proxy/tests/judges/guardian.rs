//! `http_desync_guardian` judges what the proxy forwards, and names what it should not.

use std::collections::BTreeMap;

use bulsa_proxy::Target;
use bulsa_proxy::fuzzing::{self, Read};
use http_desync_guardian::ClassificationReason as Reason;
use http_desync_guardian::RequestSafetyTier as Tier;
use http_desync_guardian::request_analyzer::HttpRequestData;

use crate::client::{BEHIND, Came, Then, send};
use crate::corpus;
use crate::recorder::Recorder;
use crate::support::{Rig, table};

/// What is forwarded although the guardian doesn't find it compliant, and why.
const JUSTIFIED: &[(Reason, &str)] = &[
    (
        Reason::UndefinedContentLengthSemantics,
        "a GET or HEAD with a body: RFC 9110 (9.3.1) allows one between those who agree on it, as clients of search \
         engines do; it is framed in one way only",
    ),
    (Reason::UndefinedTransferEncodingSemantics, "the same, in chunks"),
    (
        Reason::GetHeadZeroContentLength,
        "a GET that says that it has no body: some libraries do, and it has none",
    ),
];

fn is_justified(reason: Reason) -> bool {
    JUSTIFIED.iter().any(|(one, _)| *one == reason)
}

/// What is to be forwarded of some bytes: methods with targets, and bodies.
fn expected(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut expected = Vec::new();
    for read in fuzzing::requests(&[bytes, BEHIND.as_bytes()].concat()) {
        let Read::Request(request) = read else { break };
        let method = String::from_utf8_lossy(&request.method).into_owned();
        if let Some(target) = request.forwarded {
            expected.push((format!("{method} {target}"), request.body));
        }
        if request.is_last {
            break;
        }
    }
    expected
}

fn forwarded(came: &Came) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<_> =
        came.asked.iter().map(|asked| (asked.line().to_owned(), asked.body.clone())).collect();
    if came.open {
        all.push(("GET /behind".to_owned(), Vec::new()));
    }
    all
}

#[tokio::test]
async fn what_is_forwarded_is_what_was_read_and_the_guardian_finds_it_compliant() {
    let backend = Recorder::start().await;
    let rig = Rig::new(&table(1, &[Target::new("a", backend.addr)])).await;
    let (mut wrong, mut sums) = (Vec::new(), BTreeMap::<String, usize>::new());
    let payloads = corpus::all();
    for payload in &payloads {
        let came = send(rig.addr, &backend, &payload.bytes, Then::Waits).await;
        let mut complain = |what: String| {
            wrong.push(format!("{what}\n    {}: {}", payload.name, payload.bytes.escape_ascii()));
        };
        if !came.garbled.is_empty() {
            complain(format!("the backend got what it can't read: {:?}", came.garbled));
        }
        let (is, should) = (forwarded(&came), expected(&payload.bytes));
        if is != should {
            complain(format!("forwarded {is:?}, not {should:?}"));
        }
        for asked in &came.asked {
            let verdict = HttpRequestData::analyze_raw_request(asked.head.as_bytes());
            if verdict.tier != Tier::Compliant && !is_justified(verdict.reason) {
                complain(format!(
                    "forwarded as {:?}, {:?}: {}",
                    verdict.tier,
                    verdict.reason,
                    asked.head.escape_debug()
                ));
            }
        }
        // It takes an empty line before a request (RFC 9112, 2.2) for the request.
        let bytes = payload.bytes.trim_ascii_start();
        let verdict = HttpRequestData::analyze_raw_request(bytes);
        let passed = if came.asked.is_empty() { "refused" } else { "forwarded" };
        if Tier::Acceptable < verdict.tier && !came.asked.is_empty() && !is_justified(verdict.reason) {
            complain(format!("{:?} ({:?}), and not refused", verdict.tier, verdict.reason));
        }
        *sums.entry(format!("{:?} {passed}", verdict.tier)).or_default() += 1;
    }
    eprintln!("{} payloads, by what the guardian says of them: {sums:?}", payloads.len());
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), payloads.len(), wrong.join("\n"));
    rig.until(|report| report.connections == 0 && report.targets[0].in_flight == 0).await;
}
