//! The steps that kill: workers by SIGKILL and by a hang, the agent, the proxy, both.

use std::time::Duration;

use bulsa_core::wire::api::Snapshot;
use rustix::process::Signal;
use tokio::time::timeout;

use super::{BACK_WITHIN, CURE_LIMIT, Show, proxy, worker};
use crate::{
    demo::{
        DemoError,
        figures::{Cut, Recovery},
        injure::{Moment, Victim},
        knock::{Knocked, knock},
        table::milliseconds,
    },
    load::Mark,
};

/// How long a hang may last: the tightest home-made set-up needed 13.6 s.
const HANG_WITHIN: Duration = Duration::from_secs(10);

impl Show<'_> {
    /// kill -9 of a worker: requests go to the other one, and it is replaced.
    pub(super) async fn kill_worker(&mut self) -> Result<(), DemoError> {
        let (from, before) = self.begin("kill -9 a worker").await?;
        let (victim, attempt) = hold_worker(&before, 1)?;
        let (sent, died) = victim.kill().await.map_err(|error| DemoError::io("kill a worker", error))?;
        let ready_ms = self.replaced(1, attempt).await?;
        let cut = Cut::Posts(vec![self.span(sent, died)]);
        let mut step = self.end("kill-worker", "kill -9 a worker", from, cut).await;
        step.recovery = Some(Recovery { time: since(sent, ready_ms), cure: "replaced" });
        step.promise_no_failure();
        step.promise_no_refusal();
        let text = format!("replaced within the app's start ({}) + 100 ms", milliseconds(self.app_start));
        step.promise_recovery(text, self.app_start + BACK_WITHIN);
        self.keep(step);
        Ok(())
    }

    /// A worker hangs: it is found out, left out and replaced.
    pub(super) async fn hang_worker(&mut self) -> Result<(), DemoError> {
        let (from, before) = self.begin("hang a worker (SIGSTOP): its port still accepts").await?;
        let (victim, attempt) = hold_worker(&before, 2)?;
        let hung = Moment::now();
        victim.signal(Signal::STOP).map_err(|error| DemoError::io("stop a worker", error))?;
        let ready_ms = self.replaced(2, attempt).await?;
        let died = timeout(CURE_LIMIT, victim.death()).await;
        let cut = match &died {
            Ok(died) => Cut::Posts(vec![self.span(hung, *died)]),
            Err(_) => Cut::Nothing,
        };
        let mut step = self.end("hang-worker", "hang a worker", from, cut).await;
        step.recovery = Some(Recovery { time: since(hung, ready_ms), cure: "replaced" });
        step.promise_no_failure();
        step.promise_no_refusal();
        step.promise_recovery(format!("replaced within {HANG_WITHIN:?}"), HANG_WITHIN);
        let ended = died.is_ok();
        step.promise("the hung process is ended", ended, if ended { "dead" } else { "still there" });
        self.keep(step);
        Ok(())
    }

    /// kill -9 of the agent: nobody notices.
    pub(super) async fn kill_agent(&mut self) -> Result<(), DemoError> {
        let (from, before) = self.begin("kill -9 the agent").await?;
        let (sent, _) = kill(before.agent.pid, "agent").await?;
        let back = self.agent_back(&before).await?;
        let mut step = self.end("kill-agent", "kill -9 the agent", from, Cut::Nothing).await;
        step.recovery = Some(Recovery {
            time: back.instant.saturating_duration_since(sent.instant),
            cure: "another agent answers",
        });
        step.promise_no_failure();
        step.promise_no_refusal();
        step.promise_sockets();
        let after = self.look().await?;
        let same = proxy(&after).map(|proxy| proxy.pid) == proxy(&before).map(|proxy| proxy.pid);
        step.promise(
            "the proxy isn't touched",
            same,
            if same { "the same process" } else { "another process" },
        );
        self.keep(step);
        Ok(())
    }

    /// kill -9 of the proxy: its successor serves on the same sockets.
    pub(super) async fn kill_proxy(&mut self) -> Result<(), DemoError> {
        let (from, before) = self.begin("kill -9 the proxy").await?;
        let (sent, died) = kill(proxy_pid(&before)?, "proxy").await?;
        let knocked = knock(self.daemon.target(), CURE_LIMIT).await;
        self.proxy_dead("kill-proxy", "kill -9 the proxy", (from, sent, died), knocked).await
    }

    /// kill -9 of the proxy while no agent lives: the keeper alone brings it back.
    pub(super) async fn kill_agent_and_proxy(&mut self) -> Result<(), DemoError> {
        let (from, before) = self.begin("kill -9 the agent, and at once the proxy").await?;
        let proxy = proxy_pid(&before)?;
        kill(before.agent.pid, "agent").await?;
        let (sent, died) = kill(proxy, "proxy").await?;
        let knocked = knock(self.daemon.target(), CURE_LIMIT).await;
        self.agent_back(&before).await?;
        self.proxy_dead("kill-both", "kill -9 agent and proxy", (from, sent, died), knocked).await
    }

    /// What is measured and promised of a dead proxy.
    async fn proxy_dead(
        &mut self,
        id: &'static str,
        title: &str,
        (from, sent, died): (Mark, Moment, Moment),
        knocked: Knocked,
    ) -> Result<(), DemoError> {
        self.sockets_connected().await;
        let (kill_from, kill_to) = self.span(sent, died);
        let mut step = self.end(id, title, from, Cut::Connections(kill_from, kill_to)).await;
        step.refused += knocked.refused;
        step.recovery = knocked.answered.map(|answered| Recovery {
            time: answered.saturating_duration_since(sent.instant),
            cure: "another proxy answers",
        });
        step.promise_no_failure();
        step.promise_no_refusal();
        let found = format!("{} taken without an answer", knocked.unanswered);
        step.promise("every new connection is answered", knocked.unanswered == 0, found);
        step.promise_recovery(format!("back within {BACK_WITHIN:?}"), BACK_WITHIN);
        self.keep(step);
        Ok(())
    }

    /// Waits for a ready worker in place `ordinal` that was started after `attempt`; when it became ready.
    async fn replaced(&self, ordinal: u32, attempt: u32) -> Result<u64, DemoError> {
        let ready = |snapshot: &Snapshot| {
            let replica = worker(snapshot, ordinal)?;
            (replica.attempt > attempt && replica.state == "ready").then_some(replica.since_ms)
        };
        self.daemon.wait_until(&format!("a ready replacement of worker {ordinal}"), CURE_LIMIT, ready).await
    }

    /// Waits until an agent answers that isn't the one before.
    async fn agent_back(&mut self, before: &Snapshot) -> Result<Moment, DemoError> {
        let old = before.agent.pid;
        let other = |snapshot: &Snapshot| (snapshot.agent.pid != old).then(Moment::now);
        self.daemon.wait_until("another agent", CURE_LIMIT, other).await
    }

    /// Two moments in the load's time.
    fn span(&self, from: Moment, to: Moment) -> (Mark, Mark) {
        (self.load.at(from.instant), self.load.at(to.instant))
    }
}

fn hold_worker(snapshot: &Snapshot, ordinal: u32) -> Result<(Victim, u32), DemoError> {
    let missing = || DemoError::Waited {
        what: format!("worker {ordinal} of the live release"),
        limit: Duration::ZERO,
        last: "the snapshot names no process for it".to_owned(),
    };
    let replica = worker(snapshot, ordinal).ok_or_else(missing)?;
    let pid = replica.pid.ok_or_else(missing)?;
    let victim = Victim::hold(pid).map_err(|error| DemoError::io("hold a worker", error))?;
    Ok((victim, replica.attempt))
}

fn proxy_pid(snapshot: &Snapshot) -> Result<u32, DemoError> {
    proxy(snapshot).map(|proxy| proxy.pid).ok_or_else(|| DemoError::Waited {
        what: "a proxy".to_owned(),
        limit: Duration::ZERO,
        last: "the snapshot names none".to_owned(),
    })
}

async fn kill(pid: u32, what: &str) -> Result<(Moment, Moment), DemoError> {
    let error = |error| DemoError::io(&format!("kill the {what} (process {pid})"), error);
    Victim::hold(pid).map_err(error)?.kill().await.map_err(error)
}

/// From `moment` to a point in the daemon's time.
fn since(moment: Moment, epoch_ms: u64) -> Duration {
    Duration::from_millis(epoch_ms.saturating_sub(moment.epoch_ms))
}
