//! Bulsa's own format, version 1: `docs/notifications.md` describes it. Fields may be added; none changes its meaning.

use serde_json::{Map, Value, json};

use super::{
    super::{
        Topic,
        batch::{Batch, Gathered},
        escape::clean,
    },
    INCIDENTS_MAX, JSON_VERSION, LINES_SENT, Letter, TEXT_MAX, content,
};
use crate::{
    time::Timestamp,
    wire::api::{Event, Incident},
};

pub(super) fn body(letter: &Letter<'_>) -> String {
    let Batch { topics, first_at_ms, last_at_ms, .. } = letter.batch;
    // A batch has at least one event, so at least one topic.
    let kind = topics.keys().next().map(ToString::to_string);
    let counts: Map<String, Value> =
        topics.iter().map(|(topic, gathered)| (topic.to_string(), count(*topic, gathered))).collect();
    let events: Vec<Value> = letter.batch.named().map(|(topic, one)| event(topic, one)).collect();
    let incidents: Vec<Value> = letter.incidents.iter().take(INCIDENTS_MAX).map(incident).collect();
    json!({
        "version": JSON_VERSION,
        "id": letter.id(),
        "project": letter.project,
        "host": letter.host,
        "kind": kind,
        "text": text(&content::of(letter).title),
        "first_at_ms": first_at_ms,
        "last_at_ms": last_at_ms,
        "sent_at_ms": letter.now.0,
        "counts": counts,
        "events": events,
        "events_left_out": letter.batch.unnamed(),
        "incidents": incidents,
    })
    .to_string()
}

pub(super) fn test_body(project: &str, host: &str, title: &str, now: Timestamp) -> String {
    json!({
        "version": JSON_VERSION,
        "id": format!("{project}-test-{}", now.0),
        "project": project,
        "host": host,
        "kind": "test",
        "text": title,
        "first_at_ms": now.0,
        "last_at_ms": now.0,
        "sent_at_ms": now.0,
        "counts": {},
        "events": [],
        "events_left_out": 0,
        "incidents": [],
    })
    .to_string()
}

fn count(topic: Topic, gathered: &Gathered) -> Value {
    let by: Vec<Value> = gathered
        .counts
        .iter()
        .map(|((service, cause), n)| {
            let service = Some(service).filter(|service| !service.is_empty());
            json!({"service": service, "cause": cause, "count": n})
        })
        .collect();
    let mut value = json!({"total": gathered.total, "by": by, "others": gathered.others});
    if let (Topic::Heal, Some(fields)) = (topic, value.as_object_mut()) {
        fields.insert("longest_ms".to_owned(), gathered.longest_ms.into());
        fields.insert("requests_lost".to_owned(), gathered.requests_lost.into());
    }
    value
}

fn event(topic: Topic, event: &Event) -> Value {
    json!({
        "id": event.id,
        "at_ms": event.at_ms,
        "topic": topic.to_string(),
        "kind": event.kind,
        "service": event.service,
        "replica": event.replica,
        "text": text(&event.text),
        "detail": event.detail,
    })
}

fn incident(incident: &Incident) -> Value {
    let (replica, cause, seen) = match &incident.again {
        Some(again) => (&again.replica, &again.cause, &again.evidence),
        None => (&incident.replica, &incident.cause, &incident.evidence),
    };
    let skipped = seen.last_lines.len().saturating_sub(LINES_SENT);
    json!({
        "id": incident.id,
        "replica": replica,
        "cause": cause,
        "detected_at_ms": incident.detected_at_ms,
        "recovered_at_ms": incident.recovered_at_ms,
        "requests_lost": incident.requests_lost,
        "deaths": 1 + incident.again.as_ref().map_or(0, |again| again.deaths),
        "exit": seen.exit,
        "out_of_memory": seen.out_of_memory.as_deref().map(text),
        "memory_peak": seen.memory_peak,
        "ready_for_ms": seen.ready_for_ms,
        "last_probe": seen.probes.last().map(|probe| text(&probe.text)),
        "suspect_request": seen.suspect_request.as_deref().map(text),
        "last_lines": seen.last_lines.iter().skip(skipped).map(|line| text(line)).collect::<Vec<_>>(),
    })
}

/// A text without control characters, of a bounded length.
fn text(text: &str) -> String {
    let mut text = clean(text);
    if let Some((end, _)) = text.char_indices().nth(TEXT_MAX) {
        text.truncate(end);
        text.push('…');
    }
    text
}
