//! What a message says, before it is escaped for anybody.

use std::time::Duration;

use super::{INCIDENTS_MAX, LINES_SHOWN, Letter};
use crate::{
    notify::{Topic, batch::Gathered, human},
    wire::api::Incident,
};

/// So many counts of a topic are spelt out.
const COUNTS_SHOWN: usize = 6;
/// A message that comes this much later than what it tells of says so.
const LATE: Duration = Duration::from_secs(60);

/// A title, sentences, and evidence: each with a sentence above it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) title: String,
    pub(super) lines: Vec<String>,
    pub(super) blocks: Vec<(String, Vec<String>)>,
}

/// The content of a letter.
pub(super) fn of(letter: &Letter<'_>) -> Content {
    let summaries: Vec<String> =
        letter.batch.topics.iter().map(|(topic, all)| summary(*topic, all)).collect();
    let mut title = format!("{} on {}: {}", letter.project, letter.host, summaries.join(", "));
    if letter.age() >= LATE {
        title.push_str(&format!(" ({} ago)", human(letter.age())));
    }
    let mut lines = Vec::new();
    for (topic, all) in &letter.batch.topics {
        if all.total > 1 && matches!(topic, Topic::Incident | Topic::Park | Topic::Heal) {
            lines.push(counts(*topic, all));
        }
        lines.extend(all.named.iter().map(|event| event.text.clone()));
        let unnamed = all.total.saturating_sub(all.named.len() as u64);
        if unnamed > 0 {
            lines.push(format!("… and {unnamed} more; `bulsa events` has them all"));
        }
    }
    let blocks = letter.incidents.iter().take(INCIDENTS_MAX).filter_map(evidence).collect();
    Content { title, lines, blocks }
}

fn summary(topic: Topic, all: &Gathered) -> String {
    let n = all.total;
    let outcome = || {
        let counts = all.counts.iter().map(|((_, outcome), n)| match n {
            1 => outcome.clone(),
            n => format!("{outcome} {n} times"),
        });
        counts.collect::<Vec<_>>().join(" and ")
    };
    let is_deployed = || all.counts.keys().all(|(_, outcome)| outcome == "deployed");
    match topic {
        Topic::Incident if n == 1 => all
            .counts
            .keys()
            .next()
            .map_or_else(String::new, |(service, cause)| format!("{service} {}", verb(cause))),
        Topic::Incident => format!("{n} replicas died or hung"),
        Topic::Heal if n == 1 => "1 serves again".to_owned(),
        Topic::Heal => format!("{n} serve again"),
        Topic::Park if n == 1 => all
            .counts
            .keys()
            .next()
            .map_or_else(String::new, |(service, _)| format!("{service} is crash-looping")),
        Topic::Park => format!("{n} replicas are crash-looping"),
        Topic::Deploy if is_deployed() => outcome(),
        Topic::Deploy => format!("deploy {}", outcome()),
        Topic::Rollback if is_deployed() => "rolled back".to_owned(),
        Topic::Rollback => outcome(),
    }
}

fn verb(cause: &str) -> String {
    match cause {
        "killed" => "was killed".to_owned(),
        "out of memory" => "ran out of memory".to_owned(),
        other => other.to_owned(),
    }
}

/// `web: killed 12 times, hung 3 times; worker: exited 5 times`
fn counts(topic: Topic, all: &Gathered) -> String {
    let mut text = String::new();
    let mut last = None;
    for ((service, cause), n) in all.counts.iter().take(COUNTS_SHOWN) {
        let times = if *n == 1 { "once".to_owned() } else { format!("{n} times") };
        match last {
            Some(before) if before == service => text.push_str(", "),
            Some(_) => text.push_str("; "),
            None => {}
        }
        if last != Some(service) {
            text.push_str(service);
            text.push_str(": ");
        }
        last = Some(service);
        text.push_str(&match topic {
            Topic::Heal => format!("after it {} {times}", verb(cause)),
            _ => format!("{cause} {times}"),
        });
    }
    let shown: u64 = all.counts.values().take(COUNTS_SHOWN).sum();
    if all.total > shown {
        text.push_str(&format!("; {} in other ways", all.total - shown));
    }
    if topic == Topic::Heal {
        let longest = human(Duration::from_millis(all.longest_ms));
        text.push_str(&format!("; the longest took {longest}, {} requests lost in all", all.requests_lost));
    }
    text
}

/// What is known of an incident: how it ended, the last probe, the last lines; nothing where there are no lines.
fn evidence(incident: &Incident) -> Option<(String, Vec<String>)> {
    let (replica, seen) = match &incident.again {
        Some(again) => (&again.replica, &again.evidence),
        None => (&incident.replica, &incident.evidence),
    };
    let mut head = format!("{replica}: {}", seen.exit);
    if let Some(memory) = &seen.out_of_memory {
        head.push_str(&format!("; {memory}"));
    }
    if let Some(probe) = seen.probes.last().filter(|probe| probe.text != "passing") {
        head.push_str(&format!("; the last probe: {}", probe.text));
    }
    if let Some(request) = &seen.suspect_request {
        head.push_str(&format!("; it died with {request}"));
    }
    let skipped = seen.last_lines.len().saturating_sub(LINES_SHOWN);
    let lines: Vec<String> = seen.last_lines.iter().skip(skipped).cloned().collect();
    (!lines.is_empty()).then_some((head, lines))
}
