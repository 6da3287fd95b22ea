//! `smugglex`: a scanner for request smuggling, on the proxy in front of an ordinary backend.

use std::process::Stdio;

use tokio::time::{Duration, timeout};

use crate::programs::{built_or_skip, command};
use crate::support::*;

/// How long a scan may take.
const SCAN_TIME_MAX: Duration = Duration::from_secs(90);

#[tokio::test]
async fn a_scanner_finds_nothing_to_smuggle() {
    let Some(program) = built_or_skip("smugglex") else { return };
    let backend = Backend::saying("fine").await;
    let rig = Rig::with_workers(2, &table(1, &[backend.target("a")])).await;
    let mut scan = command(program);
    let url = format!("http://{}/", rig.addr);
    scan.args(["--json", "--timeout", "3", &url]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = timeout(SCAN_TIME_MAX, scan.output()).await.expect("an end in time").unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{said}\n{why}", output.status);
    let found: serde_json::Value =
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
    let summary = &found["summary"];
    assert!(5 < summary["total_checks"].as_u64().unwrap() && summary["vulnerable_checks"] == 0, "{summary}");
    // It has reached the backend at all.
    let checks = found["results"][0]["checks"].as_array().unwrap();
    assert!(checks.iter().all(|check| check["normal_status"] == "HTTP/1.1 200 OK"), "{checks:?}");
    rig.until(|report| report.connections == 0 && report.targets[0].in_flight == 0).await;
}
