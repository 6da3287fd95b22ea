use proptest::{collection, option, prelude::*};
use serde_json::Value;

use super::*;
use crate::{
    notify::{Topic, escape::length},
    wire::api::{DeployKind, Detail, Event, Evidence, Outcome, ProbeSeen},
};

fn event(id: u64, text: &str, detail: Detail) -> Event {
    Event {
        id,
        at_ms: 1_000 + id,
        project: "shop".to_owned(),
        kind: "incident.opened".to_owned(),
        service: Some("web".to_owned()),
        replica: Some("web-r1-1.1".to_owned()),
        text: text.to_owned(),
        detail: Some(detail),
    }
}

fn incident(id: u64, lines: &[&str]) -> Incident {
    let probes = vec![ProbeSeen { since_ms: 1, at_ms: 2, text: "503: <down>".to_owned(), times: 3 }];
    Incident {
        id,
        replica: "web-r1-1.1".to_owned(),
        cause: "killed".to_owned(),
        evidence: Evidence {
            exit: "killed by SIGKILL".to_owned(),
            probes,
            last_lines: lines.iter().map(|line| (*line).to_owned()).collect(),
            ..Evidence::default()
        },
        ..Incident::default()
    }
}

fn batch(events: &[Event]) -> Batch {
    let topic = |event: &Event| Topic::of(event).unwrap();
    let mut batch = Batch::of(&events[0], topic(&events[0]));
    events[1..].iter().for_each(|event| batch.add(event, topic(event)));
    batch
}

fn letter<'l>(batch: &'l Batch, incidents: &'l [Incident], now: u64) -> Letter<'l> {
    Letter { project: "shop", host: "srv1", batch, incidents, now: Timestamp(now) }
}

fn night() -> Batch {
    let killed = |id| {
        let text = format!("web-r1-{id} was killed by SIGKILL after 5 s of service");
        event(id, &text, Detail::Incident { incident: Some(id), cause: "killed".to_owned() })
    };
    let mut events: Vec<Event> = (1..=20).map(killed).collect();
    events[3].service = Some("worker".to_owned());
    let heal = Detail::Heal { incident: 1, cause: "killed".to_owned(), lasted_ms: 240, requests_lost: 2 };
    events.push(event(21, "web-r1-1 serves again after 240 ms; 2 requests lost", heal));
    events.push(event(22, "web-r1-9 is crash-looping", Detail::Park { incident: Some(9), deaths: 7 }));
    let undone = Detail::Deployment {
        kind: DeployKind::Deploy,
        outcome: Outcome::RolledBack,
        deployment: Some(4),
        release: Some(3),
        serving: true,
    };
    events.push(Event { service: None, ..event(23, "rolled back: 9% of <requests> failed", undone) });
    batch(&events)
}

fn pretty(body: &str) -> String {
    serde_json::to_string_pretty(&serde_json::from_str::<Value>(body).unwrap()).unwrap()
}

#[test]
fn each_format_is_what_was_reviewed() {
    let (batch, incidents) = (night(), [incident(9, &["listening", "Error: `x` <&> ```y```", "  at z"])]);
    let letter = letter(&batch, &incidents, 200_000);
    insta::assert_snapshot!("slack", pretty(&body(Format::Slack, &letter)));
    insta::assert_snapshot!("discord", pretty(&body(Format::Discord, &letter)));
    insta::assert_snapshot!("json", pretty(&body(Format::Json, &letter)));
    insta::assert_snapshot!("test", pretty(&test_body(Format::Slack, "shop", "srv1", Timestamp(5))));
}

#[test]
fn a_message_about_one_thing_says_it_in_its_title() {
    let title = |events: &[Event]| content::of(&letter(&batch(events), &[], 1_500)).title;
    let death = |cause: &str| event(1, "", Detail::Incident { incident: Some(1), cause: cause.to_owned() });
    assert_eq!(title(&[death("hung")]), "shop on srv1: web hung");
    assert_eq!(title(&[death("out of memory")]), "shop on srv1: web ran out of memory");
    assert_eq!(
        title(&[event(1, "", Detail::Park { incident: None, deaths: 4 })]),
        "shop on srv1: web is crash-looping"
    );
    let ended = |kind, outcome| {
        let detail =
            Detail::Deployment { kind, outcome, deployment: Some(1), release: Some(2), serving: true };
        Event { service: None, ..event(1, "", detail) }
    };
    assert_eq!(title(&[ended(DeployKind::Deploy, Outcome::Deployed)]), "shop on srv1: deployed");
    assert_eq!(title(&[ended(DeployKind::Deploy, Outcome::Failed)]), "shop on srv1: deploy failed");
    assert_eq!(title(&[ended(DeployKind::Deploy, Outcome::RolledBack)]), "shop on srv1: rolled back");
    assert_eq!(title(&[ended(DeployKind::Rollback, Outcome::Deployed)]), "shop on srv1: rolled back");
}

fn hostile() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "[`<>&@*_~|\\\\\\[\\]()!#:/ \u{1b}\n\u{202e}a한😀]{0,600}"]
}

/// Some events with the worst of texts, and the worst of output.
fn letters() -> impl Strategy<Value = (Vec<Event>, Vec<Incident>)> {
    let one = (hostile(), option::of(hostile()), hostile(), 0_usize..4);
    let event = one.prop_map(|(text, service, cause, which)| {
        let detail = match which {
            0 => Detail::Incident { incident: Some(1), cause },
            1 => Detail::Heal { incident: 1, cause, lasted_ms: u64::MAX, requests_lost: u64::MAX },
            2 => Detail::Park { incident: Some(1), deaths: 3 },
            _ => Detail::Deployment {
                kind: DeployKind::Deploy,
                outcome: Outcome::Failed,
                deployment: None,
                release: None,
                serving: false,
            },
        };
        Event { service, ..event(1, &text, detail) }
    });
    let incident = (collection::vec(hostile(), 0..20), hostile()).prop_map(|(lines, exit)| {
        let mut incident = incident(1, &[]);
        (incident.evidence.last_lines, incident.evidence.exit) = (lines, exit);
        incident
    });
    (collection::vec(event, 1..30), collection::vec(incident, 0..5))
}

/// The parts outside of code blocks, and whether every block is closed.
fn outside(text: &str) -> (Vec<&str>, bool) {
    let parts: Vec<&str> = text.split("```").collect();
    let is_closed = parts.len() % 2 == 1;
    (parts.into_iter().step_by(2).collect(), is_closed)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_letter_breaks_its_form((events, incidents) in letters(), now in any::<u64>()) {
        let batch = batch(&events);
        let letter = letter(&batch, &incidents, now);
        let slack: Value = serde_json::from_str(&body(Format::Slack, &letter)).unwrap();
        let blocks = slack["blocks"].as_array().unwrap();
        prop_assert!(blocks.len() <= 1 + INCIDENTS_MAX);
        for block in blocks {
            let text = block["text"]["text"].as_str().unwrap();
            prop_assert!(!text.is_empty() && length(text) <= SLACK_SECTION_MAX, "{}", length(text));
            prop_assert!(!text.contains(['<', '>']) && outside(text).1, "{}", text);
        }
        let discord: Value = serde_json::from_str(&body(Format::Discord, &letter)).unwrap();
        let text = discord["content"].as_str().unwrap();
        prop_assert!(!text.is_empty() && length(text) <= DISCORD_MAX, "{}", length(text));
        let (prose, is_closed) = outside(text);
        prop_assert!(is_closed, "{}", text);
        for part in prose {
            let unescaped = part.replace("\\\\", "").replace("\\@", "").replace("\\<", "");
            prop_assert!(!unescaped.contains(['@', '<']), "{}", part);
        }
        prop_assert_eq!(&discord["allowed_mentions"]["parse"], &serde_json::json!([]));
        let json = body(Format::Json, &letter);
        prop_assert!(json.len() < 512 * 1024, "{}", json.len());
        let json: Value = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(&json["version"], &serde_json::json!(1));
        let named = json["events"].as_array().unwrap().len() as u64;
        prop_assert_eq!(named + json["events_left_out"].as_u64().unwrap(), events.len() as u64);
    }
}
