//! The app's own start, without Bulsa: what no supervisor can be faster than.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use tokio::process::Command;

use super::{DemoError, knock::knock, project};

/// Starts that are measured; the middle one counts.
const TIMES: usize = 5;
/// How long one start may take.
const LIMIT: Duration = Duration::from_secs(10);

/// From the start of the app's process to its first answer: the middle of five.
pub(crate) async fn measure(exe: &Path) -> Result<Duration, DemoError> {
    let mut times = Vec::with_capacity(TIMES);
    for _ in 0..TIMES {
        times.push(once(exe).await?);
    }
    times.sort_unstable();
    Ok(times.get(TIMES / 2).copied().unwrap_or_default())
}

async fn once(exe: &Path) -> Result<Duration, DemoError> {
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map_err(|error| DemoError::io("find a free port on 127.0.0.1", error))?;
    let begun = Instant::now();
    let mut app = Command::new(exe)
        .arg("__demo-app")
        .env("PORT", address.port().to_string())
        .env("DEMO_START_MS", project::APP_START.as_millis().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| DemoError::io("start the demo's app", error))?;
    let answered = knock(SocketAddr::from((Ipv4Addr::LOCALHOST, address.port())), LIMIT).await.answered;
    // An error says that it has ended already, and then it didn't answer.
    drop(app.kill().await);
    match answered {
        Some(at) => Ok(at.saturating_duration_since(begun)),
        None => Err(DemoError::Waited {
            what: "the demo's app, started alone, to answer".to_owned(),
            limit: LIMIT,
            last: "no answer".to_owned(),
        }),
    }
}
