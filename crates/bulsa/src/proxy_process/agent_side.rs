//! One link to an agent: reports go out, tables and pings come in.
//!
//! An agent that does not read makes only its own task wait. Reports are not queued: while one waits to be sent,
//! later changes make it say more, not become more.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use bulsa_proxy::Report;
use tokio::time::Instant;

use super::served::Served;
use crate::link::async_link::AsyncLink;
use crate::link::messages::{AgentToProxy, PROTOCOL, ProxyToAgent};
use crate::link::{LinkError, MAX_MESSAGE_BYTES, Message, memfd};

/// The shortest time between two reports that nobody asked for.
const REPORT_INTERVAL: Duration = Duration::from_millis(20);
/// The most answers that wait for an agent that does not read; then its link is dropped.
const MAX_WAITING: usize = 1024;

type Answer = ProxyToAgent<Report>;

/// Serves an agent until its link ends; says why it did.
pub(super) async fn serve(link: AsyncLink, generation: u64, served: Rc<RefCell<Served>>) -> LinkError {
    let proxy = served.borrow().proxy();
    let hello = Answer::Hello { protocol: PROTOCOL, generation, report: Some(proxy.report()) };
    let mut waiting = VecDeque::from([hello]);
    let mut changed = false;
    let mut next_report = Instant::now() + REPORT_INTERVAL;
    loop {
        if waiting.len() > MAX_WAITING {
            return LinkError::Protocol("it does not read its answers");
        }
        tokio::select! {
            sent = send_first(&link, &waiting) => {
                if let Err(error) = sent {
                    return error;
                }
                waiting.pop_front();
            }
            message = link.recv() => match message {
                Ok(message) => waiting.extend(obey(&served, message)),
                Err(error) => return error,
            },
            () = proxy.changed(), if !changed => changed = true,
            () = tokio::time::sleep_until(next_report), if changed && waiting.is_empty() => {
                changed = false;
                next_report = Instant::now() + REPORT_INTERVAL;
                waiting.push_back(Answer::Report { report: Some(proxy.report()) });
            }
        }
    }
}

/// Does what the agent says; the answer, if there is one.
fn obey(served: &RefCell<Served>, message: Message<AgentToProxy>) -> Option<Answer> {
    let Message { body, fds } = message;
    match body {
        AgentToProxy::Ping { nonce } => {
            Some(Answer::Pong { nonce, report: Some(served.borrow().proxy().report()) })
        }
        AgentToProxy::Table { number } => {
            let table = Message::<()>::one_fd(fds).map_err(|error| error.to_string());
            let applied = table.and_then(|table| served.borrow_mut().apply(number, table));
            applied.err().map(|error| Answer::TableRefused { number, error })
        }
        AgentToProxy::AccessLog { bytes_max } => {
            let file = Message::<()>::one_fd(fds).map_err(|error| error.to_string());
            let write_to = |fd| {
                let file = Box::new(std::fs::File::from(fd));
                served.borrow().proxy().write_access_log(file, bytes_max).map_err(|error| error.to_string())
            };
            if let Err(error) = file.and_then(write_to) {
                tracing::error!("the access log cannot be written: {error}");
            }
            None
        }
    }
}

/// Sends the first answer that waits; waits for ever when there is none. Cancel safe.
async fn send_first(link: &AsyncLink, waiting: &VecDeque<Answer>) -> Result<(), LinkError> {
    let Some(answer) = waiting.front() else { return std::future::pending().await };
    match encoded_size(answer)? {
        bytes if bytes <= MAX_MESSAGE_BYTES => link.send(answer, &[]).await,
        _ => {
            let (short, long) = split(answer)?;
            let fds: Vec<BorrowedFd<'_>> = long.iter().map(AsFd::as_fd).collect();
            link.send(&short, &fds).await
        }
    }
}

fn encoded_size(answer: &Answer) -> Result<usize, LinkError> {
    Ok(serde_json::to_vec(answer)?.len())
}

/// Moves the report of an answer into a memfd.
fn split(answer: &Answer) -> Result<(Answer, Option<OwnedFd>), LinkError> {
    let mut answer = answer.clone();
    let report = match &mut answer {
        Answer::Hello { report, .. } | Answer::Report { report } | Answer::Pong { report, .. } => {
            report.take()
        }
        Answer::TableRefused { error, .. } => {
            let mut end = error.len().min(MAX_MESSAGE_BYTES / 8);
            while !error.is_char_boundary(end) {
                end -= 1;
            }
            error.truncate(end);
            None
        }
    };
    let memfd = report
        .map(|report| -> Result<OwnedFd, LinkError> {
            Ok(memfd::sealed("bulsa-report", &serde_json::to_vec(&report)?)?)
        })
        .transpose()?;
    Ok((answer, memfd))
}
