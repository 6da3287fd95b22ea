//! The load that runs while a drill does: who of the users would have noticed.
//!
//! Owns: where it goes, and that it is answered before anything is hurt. Never: goes beyond this host.

use std::{
    net::{SocketAddr, ToSocketAddrs},
    time::Duration,
};

use bulsa_core::wire::api::{DrillStep, DrillUrl};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::{
    load::{Config, Load, LoadHandle, REQUESTS_MAX, Report, Shot},
    report::CommandError,
};

/// So many requests must be answered well before anything is hurt, and after it is over,
const ANSWERS: u64 = 5;
/// within so long.
const ANSWERS_MAX: Duration = Duration::from_secs(10);
/// How often they are counted.
const COUNT_EVERY: Duration = Duration::from_millis(20);
/// A load runs at most so much longer than its drill.
const LONGER: Duration = Duration::from_secs(120);

/// What is sent while drills run.
#[derive(Debug)]
pub(super) struct Traffic {
    url: Option<DrillUrl>,
    rate: u32,
}

/// A load that runs.
pub(super) struct Running {
    load: LoadHandle,
    url: String,
    rate: u32,
}

/// What became of the requests of one drill.
#[derive(Debug, Serialize)]
pub(super) struct Requests {
    /// Where they went.
    url: String,
    /// So many a second, each due at its time whatever became of the others.
    rate: u32,
    /// All of them, with every failure.
    #[serde(flatten)]
    report: Report,
}

impl Requests {
    /// `2 of 140`
    pub(super) fn told(&self) -> String {
        format!("{} of {}", self.report.failed, self.report.requests)
    }
}

impl Traffic {
    /// As the command line says.
    pub(super) fn of(url: Option<&str>, rate: u32) -> Result<Self, CommandError> {
        Ok(Self { url: url.map(parse).transpose()?, rate })
    }

    /// Starts the load for a drill, and waits until it is answered; `None` where there is nowhere to send it.
    pub(super) async fn start(&self, step: &DrillStep) -> Result<Option<Running>, CommandError> {
        let Some(url) = self.url.as_ref().or(step.url.as_ref()).filter(|_| self.rate > 0) else {
            return Ok(None);
        };
        let wrong =
            |error: String| CommandError::user(format!("no requests can be sent to {url}")).cause(error);
        let target: SocketAddr =
            url.address.parse().map_err(|_| wrong(format!("{} is no address", url.address)))?;
        let time = Duration::from_millis(step.limit_ms) + LONGER;
        let config = Config {
            host: url.host.clone(),
            rate: self.rate,
            mix: Shot::only_get(&url.path),
            requests: (u64::from(self.rate) * (time.as_secs() + 1)).min(REQUESTS_MAX),
            time,
            ..Config::to(target)
        };
        let load = Load::start(config).map_err(|error| wrong(error.to_string()))?;
        let running = Running { load, url: url.to_string(), rate: self.rate };
        let report = running.answered().await;
        match report.failures.first() {
            Some(failure) => Err(CommandError::user(format!("{url} does not answer well: {}", failure.kind))
                .cause(&failure.detail)
                .hint(
                    "nothing was hurt; `--url` names another place for the requests, `--rate 0` sends none",
                )),
            None => Ok(Some(running)),
        }
    }
}

impl Running {
    /// Waits for so many more answers as prove something, or the first failure.
    async fn answered(&self) -> Report {
        let (from, until) = (self.load.mark(), Instant::now() + ANSWERS_MAX);
        loop {
            let report = self.load.window(from, self.load.mark());
            if report.requests >= ANSWERS || report.failed > 0 || Instant::now() >= until {
                return report;
            }
            sleep(COUNT_EVERY).await;
        }
    }

    /// Lets those finish that are under way; what became of all.
    pub(super) async fn finish(self) -> Requests {
        self.answered().await;
        Requests { url: self.url, rate: self.rate, report: self.load.stop().await }
    }
}

/// `http://localhost:8080/path`, on this host.
fn parse(text: &str) -> Result<DrillUrl, CommandError> {
    let wrong = |why: &str| {
        CommandError::user(format!("`--url {text}`: {why}"))
            .hint("expected a URL of this host, such as http://localhost:8080/health")
    };
    let uri: http::Uri = text.parse().map_err(|_| wrong("it is no URL"))?;
    if uri.scheme_str() != Some("http") {
        return Err(wrong("requests are sent over plain HTTP"));
    }
    let authority = uri.authority().ok_or_else(|| wrong("it has no host"))?;
    let name = authority.host().trim_matches(['[', ']']);
    let port = authority.port_u16().unwrap_or(80);
    let addresses = (name, port).to_socket_addrs().map_err(|error| wrong(&error.to_string()))?;
    let near: Vec<SocketAddr> = addresses.filter(|address| address.ip().is_loopback()).collect();
    // Most publish on IPv4.
    let address = near.iter().find(|address| address.is_ipv4()).or(near.first());
    let address = address.ok_or_else(|| wrong("that is not this host, and a load goes nowhere else"))?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Ok(DrillUrl { address: address.to_string(), host: authority.as_str().to_owned(), path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_of_this_host_is_taken_and_no_other() {
        let url = parse("http://localhost:8080/health?full=1").unwrap();
        assert_eq!((url.address.as_str(), url.host.as_str()), ("127.0.0.1:8080", "localhost:8080"));
        assert_eq!(url.path, "/health?full=1");
        assert_eq!(parse("http://127.0.0.1").unwrap().address, "127.0.0.1:80");
        assert_eq!(parse("http://127.0.0.1").unwrap().path, "/");
        assert_eq!(parse("http://[::1]:81/").unwrap().address, "[::1]:81");
        for bad in ["https://localhost/", "localhost:80", "http://192.0.2.1/", "x y", "http:///"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
