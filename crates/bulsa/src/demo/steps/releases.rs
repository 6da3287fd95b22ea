//! The steps that deploy: a good release, one that never gets healthy, one that crashes once users come.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use super::{Show, V2, V3, V4};
use crate::{
    demo::{
        DemoError,
        daemon::Daemon,
        figures::{Cut, Step},
        injure::{Moment, Victim},
        project::{self, Version},
    },
    load::Mark,
};

/// From one look for new workers to the next.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Sockets are closed, and answers to what hung on them sent, up to so long before a death is seen from outside.
const DEATH_SLACK: Duration = Duration::from_millis(50);
/// Workers watched at most; a release that crashes has a few dozen before it is rolled back.
const WORKERS_MAX: usize = 1000;

impl Show<'_> {
    /// Version 2 takes over; nobody notices.
    pub(super) async fn deploy_good(&mut self) -> Result<(), DemoError> {
        let (from, _) = self.begin("deploy v2: a good release").await?;
        let exit_code = self.deploy(&V2).await?;
        let mut step = self.end("deploy", "deploy v2", from, Cut::Nothing).await;
        step.exit_code = exit_code;
        step.promise_exit("the deploy ends with exit code 0", 0);
        step.promise_no_failure();
        step.promise_no_refusal();
        step.promise_sockets();
        let served = step.load.releases.get(V2.name).copied().unwrap_or(0);
        step.promise("v2 serves", served > 0, format!("{served} answers by v2"));
        self.keep(step);
        Ok(())
    }

    /// Version 3 never gets healthy: no user ever sees it.
    pub(super) async fn deploy_broken(&mut self) -> Result<(), DemoError> {
        let (from, _) = self.begin("deploy v3: a release that never gets healthy").await?;
        let exit_code = self.deploy(&V3).await?;
        let mut step = self.end("broken-release", "deploy a broken v3", from, Cut::Nothing).await;
        step.exit_code = exit_code;
        bad_release(&mut step);
        let seen = step.load.releases.get(V3.name).copied().unwrap_or(0);
        step.promise("no user sees v3", seen == 0, format!("{seen} answers by v3"));
        self.keep(step);
        Ok(())
    }

    /// Version 4 gets healthy and crashes under users: v2 takes back over by itself.
    pub(super) async fn deploy_crashing(&mut self) -> Result<(), DemoError> {
        let (from, before) = self.begin("deploy v4: a release that crashes once users come").await?;
        let live = before.project(project::NAME).and_then(|project| project.live).unwrap_or(0);
        let deaths = Arc::default();
        let exit_code = tokio::select! {
            exit_code = self.deploy(&V4) => exit_code?,
            () = watch_deaths(self.daemon, live, &deaths) => None,
        };
        let at = |moment: &Moment| {
            let died = self.load.at(moment.instant);
            (Mark::START.plus(died.since(Mark::START.plus(DEATH_SLACK))), died)
        };
        let cut = Cut::Posts(deaths.lock().unwrap_or_else(PoisonError::into_inner).iter().map(at).collect());
        let mut step = self.end("crashing-release", "deploy a crashing v4", from, cut).await;
        step.exit_code = exit_code;
        bad_release(&mut step);
        let seen = step.load.releases.get(V4.name).copied().unwrap_or(0);
        let after = self.look().await?.project(project::NAME).and_then(|project| project.live);
        let found = format!("v4 gave {seen} answers; release {} is live", after.unwrap_or(0));
        step.promise("v4 had its users, and v2 has them back", seen > 0 && after == Some(live), found);
        self.keep(step);
        Ok(())
    }

    async fn deploy(&self, version: &Version) -> Result<Option<i32>, DemoError> {
        let outcome = self.daemon.deploy(version, |line| (self.say)(&format!("    {line}"))).await?;
        let code = outcome.exit_code.map_or("a signal".to_owned(), |code| format!("exit code {code}"));
        (self.say)(&format!("    the deploy of {} ended with {code}", version.name));
        Ok(outcome.exit_code)
    }
}

/// What holds for both bad releases.
fn bad_release(step: &mut Step) {
    step.promise_exit("the deploy fails with exit code 3", 3);
    step.promise_no_failure();
    step.promise_no_refusal();
}

/// Notes the death of every worker of a release after `live`, for ever.
async fn watch_deaths(daemon: &Daemon, live: u32, deaths: &Arc<Mutex<Vec<Moment>>>) {
    let mut tick = interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = BTreeSet::new();
    let mut watches = JoinSet::new();
    while seen.len() < WORKERS_MAX {
        tick.tick().await;
        let Ok(snapshot) = daemon.snapshot().await else { continue };
        let service = snapshot.project(project::NAME).and_then(|project| project.service(project::SERVICE));
        let replicas = service.into_iter().flat_map(|service| &service.replicas);
        let pids = replicas.filter(|replica| replica.release > live).filter_map(|replica| replica.pid);
        for victim in pids.filter(|pid| seen.insert(*pid)).filter_map(|pid| Victim::hold(pid).ok()) {
            let deaths = Arc::clone(deaths);
            watches.spawn(async move {
                let died = victim.death().await;
                deaths.lock().unwrap_or_else(PoisonError::into_inner).push(died);
            });
        }
    }
    while watches.join_next().await.is_some() {}
    std::future::pending::<()>().await;
}
