//! Version 1 of what crosses the local API: requests, their answers, the published snapshot and the streams.
//!
//! Owns: the shapes that the command line, the dashboard and scripts exchange with the agent. Never: decides anything,
//! or shows an internal type; the driver fills these in from its own state.
//!
//! Two kinds of things pass. A [`Request`] asks the one driver of a project for a change and gets exactly one
//! [`Answer`]: accepted, already so, denied (something else is going on) or refused (the request itself is wrong).
//! Everything else is looking: the numbered [`Snapshot`], replaced as a whole whenever anything in it changes, and
//! streams of one JSON object per line ([`ProgressV1`], [`Event`], [`LogLine`]).
//!
//! Field names end in their unit. `*_at_ms` and `since_ms` are points in time, in milliseconds since the Unix epoch.
//! A reader ignores fields that it doesn't know; a field that may be missing has a default. A change that an old
//! reader would misread gets a new version, and a new path.

mod drill;
mod incident;
mod notify;
mod request;
mod sync;
mod view;

use serde::{Deserialize, Serialize};

pub use self::{drill::*, incident::*, notify::*, request::*, sync::*, view::*};

/// The version of everything in this module, the first part of every path (`/v1/…`).
pub const API_VERSION: u32 = 1;

/// At most this many deployments are in a snapshot, the running one included; older ones are in the store.
pub const DEPLOYMENTS_SHOWN_MAX: usize = 4;

/// At most this many progress lines of a deployment are kept; the oldest go first.
pub const PROGRESS_LINES_MAX: usize = 500;

/// One line of a deployment's progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgressV1 {
    /// Counted from 1 within the deployment, so that a reader who lost the connection can go on behind it.
    pub n: u32,
    /// When it was said.
    pub at_ms: u64,
    /// What kind of line it is.
    pub kind: ProgressKind,
    /// The line.
    pub text: String,
    /// With [`ProgressKind::Done`]: how it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// With [`ProgressKind::Done`]: the exit code of a command that waited for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u8>,
}

/// What kind of line a [`ProgressV1`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProgressKind {
    /// A new step of the pipeline began.
    Step,
    /// A detail of the step: a probe's answer, a log line of a replica that failed.
    Line,
    /// The last line.
    Done,
}

/// Something that happened, as it is kept in the store and shown by `bulsa events`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Rises with time, with gaps.
    pub id: u64,
    /// When.
    pub at_ms: u64,
    /// The project; empty for the daemon itself.
    #[serde(default)]
    pub project: String,
    /// A dotted word that scripts can match: `replica.died`, `deploy.switched`.
    pub kind: String,
    /// The service that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The replica that it is about: `web-r3-1.5`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica: Option<String>,
    /// What happened, one sentence.
    pub text: String,
    /// What programs need to know of it beside the sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Detail>,
}

/// What programs need to know of an [`Event`]; those without one are for people only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "of", rename_all = "snake_case")]
pub enum Detail {
    /// `replica.died`, where it is the first death in its place since that served.
    Incident {
        /// The [`Incident`]; none where nobody watched.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        incident: Option<u64>,
        /// Its cause, or `unwatched`.
        cause: String,
    },
    /// `incident.over`: its place serves again.
    Heal {
        /// The [`Incident`].
        incident: u64,
        /// Its cause.
        cause: String,
        /// How long its place did not serve.
        lasted_ms: u64,
        /// Requests that were answered with 502 meanwhile.
        requests_lost: u64,
    },
    /// `replica.parked`: its place is retried slowly from now on.
    Park {
        /// The [`Incident`], where one is open.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        incident: Option<u64>,
        /// How many died there in a row before they were ready.
        deaths: u32,
    },
    /// `deploy.finished`, `deploy.failed`, `deploy.abandoned`: a deployment ended, or failed before it was one.
    Deployment {
        /// What was asked.
        kind: DeployKind,
        /// How it ended.
        outcome: Outcome,
        /// The deployment, where it was one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deployment: Option<u32>,
        /// The release that it was to bring live.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        release: Option<u32>,
        /// Whether users are served now.
        serving: bool,
    },
    /// `drill.over`: what came of a drill.
    Drill {
        /// All of it.
        report: Box<DrillReport>,
    },
    /// Something that a later version tells of.
    #[serde(other)]
    Unknown,
}

/// One line that a replica wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// The replica: `web-r3-1.5`.
    pub replica: String,
    /// Its service.
    pub service: String,
    /// The line, without its end; what isn't UTF-8 is replaced.
    pub text: String,
}

/// A deployment as the store remembers it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentRow {
    /// The project's name.
    pub project: String,
    /// Counted from 1 within the project.
    pub id: u32,
    /// `deploy` or `rollback`.
    pub kind: String,
    /// The release that it brought, or tried to bring, live.
    pub candidate: u32,
    /// The release that was live before.
    pub previous: Option<u32>,
    /// The last phase that it reached.
    pub phase: String,
    /// When it began.
    pub started_at_ms: u64,
    /// When traffic moved.
    pub switched_at_ms: Option<u64>,
    /// When it ended.
    pub finished_at_ms: Option<u64>,
    /// How: an [`Outcome`] in its printed form.
    pub outcome: Option<String>,
    /// The exit code of a command that waited for it.
    pub exit_code: Option<u8>,
    /// Why.
    pub reason: Option<String>,
}

/// The body of every answer whose HTTP status isn't 200.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// What failed, one sentence.
    pub error: String,
    /// What to do about it.
    #[serde(default)]
    pub hint: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_deploy_exits_3_while_a_release_serves_and_7_when_none_does() {
        for outcome in [Outcome::RolledBack, Outcome::Failed] {
            assert_eq!((outcome.exit_code(true), outcome.exit_code(false)), (3, 7), "{outcome}");
        }
        assert_eq!((Outcome::Deployed.exit_code(true), Outcome::Refused.exit_code(true)), (0, 1));
    }

    #[test]
    fn outcomes_survive_the_store() {
        for outcome in [Outcome::Deployed, Outcome::RolledBack, Outcome::Failed, Outcome::Refused] {
            assert_eq!(Outcome::from_text(&outcome.to_string()), Some(outcome));
        }
        assert_eq!(Outcome::from_text("undone"), None);
    }

    #[test]
    fn a_reader_ignores_fields_of_a_later_writer_and_fills_in_missing_ones() {
        let old = r#"{"request":"rollback","project":"shop","colour":"red"}"#;
        let request: Request = serde_json::from_str(old).unwrap();
        assert_eq!(request, Request::Rollback { project: "shop".to_owned(), release: None });
        assert_eq!(request.project(), Some("shop"));
    }

    #[test]
    fn requests_and_answers_keep_their_shape_on_the_wire() {
        let scale = Request::Scale { project: "shop".to_owned(), service: "web".to_owned(), replicas: 3 };
        assert_eq!(
            serde_json::to_string(&scale).unwrap(),
            r#"{"request":"scale","project":"shop","service":"web","replicas":3}"#
        );
        assert_eq!(serde_json::to_string(&Request::Shutdown).unwrap(), r#"{"request":"shutdown"}"#);
        let denied =
            Answer::Denied { reason: "busy".to_owned(), who: Some("deploy 7".to_owned()), since_ms: Some(5) };
        let text = serde_json::to_string(&denied).unwrap();
        assert_eq!(text, r#"{"answer":"denied","reason":"busy","who":"deploy 7","since_ms":5}"#);
        assert_eq!(serde_json::from_str::<Answer>(&text).unwrap(), denied);
    }
}
