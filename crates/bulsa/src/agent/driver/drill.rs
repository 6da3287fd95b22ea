//! Drills: a replica is hurt on purpose, and what comes of it is measured.
//!
//! Owns: the drill under way, its moments, and that whatever it did is undone. Never: heals (the next decision does, as
//! after any other injury), or judges; [`bulsa_core::drill`] does.
//!
//! ```text
//!  asked ─▶ refused | noted in the store ─▶ injured ─▶ looked at whenever anything happens ─▶ over: undone, told
//! ```
//!
//! One drill at a time, of one replica and with one injury. It runs to its end by itself: whoever asked may be gone. What
//! it did is in the store before it is done, so that an agent that is killed meanwhile leaves nothing hurt: its successor
//! takes it back.

mod facts;
mod hurt;
mod look;
mod undo;

use std::time::Duration;

use bulsa_core::{
    drill::{self, Plan, SESSION_KEPT},
    ids::ReplicaId,
    time::Timestamp,
    wire::api::{Answer, Detail, DrillKind, DrillPlan, Request},
};
use tokio::{sync::oneshot, task::AbortHandle};

pub(super) use self::undo::{KEY, Left};
use super::{Driver, Input};
use crate::agent::store::Change as StoreChange;

/// The drill under way, who may begin the next one, and what an earlier agent left.
#[derive(Debug, Default)]
pub(super) struct Drills {
    running: Option<Drill>,
    /// Who drills, and until when nobody else may begin.
    session: Option<(u64, Timestamp)>,
    /// What drills of an earlier agent did that isn't undone yet.
    left: Vec<Left>,
}

/// One drill.
#[derive(Debug)]
struct Drill {
    id: u64,
    session: u64,
    /// Whether another one follows.
    more: bool,
    project: String,
    victim: ReplicaId,
    kind: DrillKind,
    plan: Plan,
    /// Who waits for the injury.
    answer: Option<oneshot::Sender<Answer>>,
    is_routed: bool,
    /// What the proxies had answered with 502 before it.
    answered_502: u64,
    /// When the victim was hurt; `None` while that is being done.
    injured: Option<Timestamp>,
    seen: look::Moments,
    /// What goes on for as long as the drill: a connection, a helper.
    helper: Option<Helper>,
}

/// A task that ends with its drill.
#[derive(Debug)]
struct Helper(AbortHandle);

impl Drop for Helper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What becomes of a drill's work.
pub(in crate::agent) enum DrillInput {
    /// It is in the store that the drill begins, or can't be.
    Noted(u64, Result<(), String>),
    /// The injury is done, or can't be.
    Injured(u64, Result<Option<AbortHandle>, String>),
}

impl From<DrillInput> for Input {
    fn from(input: DrillInput) -> Self {
        Self::Drill(input)
    }
}

/// A drill as it was asked for.
struct Asked {
    project: String,
    service: String,
    ordinal: u32,
    kind: DrillKind,
    last: bool,
    session: u64,
    more: bool,
}

impl Driver {
    /// Says what drills would do.
    pub(super) fn plan_drills(&self, request: Request, answer: oneshot::Sender<Answer>) {
        let Request::DrillPlan { project, services, only, last } = request else { return };
        let told = match self.drill_plan(&project, &services, &only, last) {
            Ok(plan) => Answer::Drills(plan),
            Err(errors) => Answer::Refused { errors },
        };
        answer.send(told).ok();
    }

    fn drill_plan(
        &self,
        name: &str,
        services: &[String],
        only: &[DrillKind],
        last: bool,
    ) -> Result<DrillPlan, Vec<String>> {
        let mut plan = DrillPlan { project: name.to_owned(), ..DrillPlan::default() };
        for (service, ordinal) in self.drill_targets(name, services)? {
            for kind in DrillKind::ALL.into_iter().filter(|kind| only.is_empty() || only.contains(kind)) {
                let (step, refusal) = self.drill_step(name, &service, ordinal, kind, last);
                plan.steps.push(step);
                plan.refusals.extend(refusal.filter(|text| !plan.refusals.contains(text)));
            }
        }
        // Whoever drills looks at all of it first.
        if let Err(denied) = self.may_drill(name, None) {
            plan.denied = Some(denied_text(&denied));
        }
        Ok(plan)
    }

    /// Begins a drill, if nothing stands against it.
    pub(super) fn begin_drill(&mut self, request: Request, answer: oneshot::Sender<Answer>) {
        let Request::Drill { project, service, ordinal, kind, last, session, more } = request else { return };
        let asked = Asked { project, service, ordinal, kind, last, session, more };
        match self.drill_of(&asked) {
            Ok(drill) => self.note_drill(Drill { answer: Some(answer), ..drill }),
            Err(told) => {
                answer.send(told).ok();
            }
        }
    }

    fn drill_of(&self, asked: &Asked) -> Result<Drill, Answer> {
        let refused = |text: String| Answer::Refused { errors: vec![text] };
        let named = [format!("{}.{}", asked.service, asked.ordinal)];
        self.drill_targets(&asked.project, &named).map_err(|errors| Answer::Refused { errors })?;
        self.may_drill(&asked.project, Some(asked.session))?;
        let (step, refusal) =
            self.drill_step(&asked.project, &asked.service, asked.ordinal, asked.kind, asked.last);
        if let Some(why) = step.not {
            return Err(refused(format!("`{}` does not apply to {}: {why}", asked.kind, step.replica)));
        }
        if let Some(why) = refusal {
            return Err(refused(why));
        }
        let victim = self.drill_victim(&asked.project, &asked.service, asked.ordinal);
        let Some((victim, service)) = victim else {
            return Err(refused(format!(
                "{} isn't healthy: there is nothing to learn from hurting it",
                step.replica
            )));
        };
        let limit = Duration::from_millis(step.limit_ms);
        Ok(Drill {
            id: self.store.next_id(),
            session: asked.session,
            more: asked.more,
            project: asked.project.clone(),
            is_routed: service.is_routed(),
            victim,
            kind: asked.kind,
            plan: Plan { injury: step.injury, expected: step.expected, limit },
            answer: None,
            answered_502: 0,
            injured: None,
            seen: look::Moments::default(),
            helper: None,
        })
    }

    /// Whether a drill may begin on a project now, for this session; without one: for anybody.
    fn may_drill(&self, name: &str, session: Option<u64>) -> Result<(), Answer> {
        let denied = |reason: String, who: Option<String>, since_ms: Option<u64>| {
            Err(Answer::Denied { reason, who, since_ms })
        };
        let now = self.clock.now();
        let is_theirs = |of: u64| session == Some(of);
        let kept = self.drills.session.filter(|(of, until)| !is_theirs(*of) && now < *until);
        if let Some(drill) = &self.drills.running {
            let what = format!("a drill runs: `{}` of {}", drill.kind, drill.victim.name());
            return denied(what, Some(format!("drill {}", drill.id)), drill.injured.map(|at| at.0));
        }
        if kept.is_some() {
            return denied("somebody else's drills are under way".to_owned(), None, None);
        }
        let Some(project) = self.projects.get(name) else { return Ok(()) };
        if let Some(deployment) = project.desired.running() {
            let who = format!("deploy {}", deployment.id);
            return denied("a deploy runs".to_owned(), Some(who), Some(deployment.started.0));
        }
        if self.shutdown.is_some() || project.desired.down || project.dormant || self.is_preparing(name) {
            return denied("the project is on its way up or down".to_owned(), None, None);
        }
        match self.not_well(project) {
            Some(text) => {
                denied(format!("`{name}` is not well: {text}; a drill would tell nothing"), None, None)
            }
            None => Ok(()),
        }
    }

    /// First it is kept that a replica will be hurt, so that nobody leaves it so.
    fn note_drill(&mut self, drill: Drill) {
        let left =
            Left { project: drill.project.clone(), replica: drill.victim.to_string(), kind: drill.kind };
        let change = StoreChange::SetValue {
            project: drill.project.clone(),
            key: KEY.to_owned(),
            value: left.leaves_traces().then(|| left.to_json()),
        };
        let (store, inbox, id) = (self.store.clone(), self.inbox.clone(), drill.id);
        self.drills.running = Some(drill);
        self.tasks.spawn(async move {
            let noted = store.commit(change).await.map_err(|error| error.to_string());
            inbox.send(DrillInput::Noted(id, noted).into()).await.ok();
        });
    }

    /// The drill's work goes on.
    pub(super) async fn drill_says(&mut self, input: DrillInput) {
        let is_current = |id: u64| self.drills.running.as_ref().is_some_and(|drill| drill.id == id);
        match input {
            DrillInput::Noted(id, Ok(())) if is_current(id) => self.hurt().await,
            DrillInput::Noted(id, Err(error)) if is_current(id) => {
                self.give_up_drill(format!("nothing was hurt: it can't be kept that a drill runs: {error}"));
            }
            DrillInput::Injured(id, Ok(helper)) if is_current(id) => self.injured(helper),
            DrillInput::Injured(id, Err(error)) if is_current(id) => {
                self.undo_drill().await;
                self.give_up_drill(format!("the injury can't be done: {error}"));
            }
            DrillInput::Noted(..) => {}
            // Of a drill that is over: its task is ended, too.
            DrillInput::Injured(_, helper) => drop(helper.ok().flatten().map(Helper)),
        }
    }

    /// The victim is hurt: from now on it is looked at.
    fn injured(&mut self, helper: Option<AbortHandle>) {
        let (now, answered_502) = (self.clock.now(), self.bad_gateways());
        let Some(drill) = &mut self.drills.running else { return };
        drill.helper = helper.map(Helper);
        (drill.injured, drill.answered_502) = (Some(now), answered_502);
        let (project, victim) = (drill.project.clone(), drill.victim.clone());
        let text = format!("a drill (`{}`) of {}: {}", drill.kind, victim.name(), drill.plan.injury);
        if let Some(answer) = drill.answer.take() {
            answer.send(Answer::Drilling { id: drill.id }).ok();
        }
        self.tell(&project, "drill.begun", Some(&victim), text);
    }

    /// Nothing was hurt, or not as it should have been: whoever asked hears why.
    fn give_up_drill(&mut self, why: String) {
        let Some(drill) = self.drills.running.take() else { return };
        self.forget_note(&drill.project);
        let text = format!("the drill `{}` of {}: {why}", drill.kind, drill.victim.name());
        self.tell(&drill.project, "drill.failed", Some(&drill.victim), text);
        if let Some(answer) = drill.answer {
            answer.send(Answer::Refused { errors: vec![why] }).ok();
        }
    }

    /// When a drill is to be looked at again, if nothing happens before.
    pub(super) fn drill_wake(&self) -> Option<Timestamp> {
        let drill = self.drills.running.as_ref()?;
        Some(drill.injured? + drill.plan.limit)
    }

    /// Who wanted what happened to a replica; `None`: nobody that is known.
    pub(super) fn asked_by(&self, name: &str, id: &ReplicaId) -> Option<String> {
        let drill = self.drills.running.as_ref().filter(|drill| drill.project == name)?;
        let at = drill.injured?;
        let is_meant =
            drill.victim == *id || drill.kind == DrillKind::CrashLoop && drill.victim.slot() == id.slot();
        is_meant.then(|| {
            format!("a drill (`{}`), {} ms before", drill.kind, self.clock.now().since(at).as_millis())
        })
    }

    /// The drill is over: what it did is taken back, and what was seen is told.
    async fn end_drill(&mut self) {
        self.undo_drill().await;
        let now = self.clock.now();
        let Some(drill) = self.drills.running.take() else { return };
        self.drills.session = drill.more.then_some((drill.session, now + SESSION_KEPT));
        self.forget_note(&drill.project);
        let report = drill.report(self.bad_gateways());
        let text = format!("the drill `{}` of {}: {}", drill.kind, drill.victim.name(), report.text);
        self.tell_with(
            &drill.project,
            "drill.over",
            Some(&drill.victim),
            text,
            Some(Detail::Drill { report: Box::new(report) }),
        );
    }
}

/// Why a denied request was denied.
fn denied_text(answer: &Answer) -> String {
    match answer {
        Answer::Denied { reason, .. } => reason.clone(),
        _ => String::new(),
    }
}

/// The verdict's inputs, as the core has them.
impl Drill {
    fn report(&self, answered_502: u64) -> bulsa_core::wire::api::DrillReport {
        let injured = self.injured.unwrap_or_default();
        let seen = self.seen.seen(injured, self.is_routed);
        let (passed, text) = drill::verdict(self.kind, &seen, self.plan.limit);
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        bulsa_core::wire::api::DrillReport {
            id: self.id,
            kind: self.kind,
            service: self.victim.service.clone(),
            replica: self.victim.to_string(),
            injured_at_ms: injured.0,
            detected_ms: seen.detected.map(ms),
            unrouted_ms: seen.unrouted.map(ms),
            recovered_ms: seen.recovered.map(ms),
            limit_ms: ms(self.plan.limit),
            deaths: seen.deaths.into(),
            bad_gateways: answered_502.saturating_sub(self.answered_502),
            passed,
            text,
        }
    }
}
