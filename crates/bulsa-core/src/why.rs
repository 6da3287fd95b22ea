//! Why a service is as it is: one sentence, and what could be changed.
//!
//! Owns: the reading of incidents. Never: looks anything up; state and incidents are its arguments, and the evidence is
//! shown as it was kept. An exit code alone proves little, so what it may mean is advice, and the sentence says what was
//! seen.

use crate::wire::api::{Evidence, Incident, ServiceState, ServiceView, Why};

/// The longest line of output that a sentence quotes, in characters.
const QUOTE_CHARS_MAX: usize = 200;
/// How the evidence of a replica begins whose heartbeat was missed.
pub const HEARTBEAT_MISSED: &str = "no heartbeat for";
/// Incidents that are looked at for a pattern.
const PATTERN_MIN: usize = 3;
const MINUTE_MS: u64 = 60_000;

/// Makes the answer of `bulsa why`. `incidents` are the service's own, newest first.
#[must_use]
pub fn why(service: &ServiceView, incidents: Vec<Incident>, now_ms: u64) -> Why {
    let mut verdict = verdict(service, &incidents, now_ms);
    // Without an incident the reason says it already.
    if let Some(finding) = service.finding.as_ref().filter(|finding| !verdict.contains(*finding)) {
        verdict.push_str(". Now ");
        verdict.push_str(finding);
    }
    let mut advice: Vec<String> = Vec::new();
    for incident in &incidents {
        let again = incident.again.as_ref().map(|again| advice_on(&again.cause, &again.evidence));
        for text in again.into_iter().flatten().chain(advice_on(&incident.cause, &incident.evidence)) {
            if !advice.contains(&text) {
                advice.push(text);
            }
        }
    }
    advice.extend(pattern(&incidents));
    Why { service: service.name.clone(), verdict, advice, incidents }
}

fn verdict(service: &ServiceView, incidents: &[Incident], now_ms: u64) -> String {
    let name = &service.name;
    let ready = format!("{} of {} replicas serve", service.ready, service.desired);
    let Some(last) = incidents.first() else {
        let reason = service.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        return format!("`{name}` is {}{reason}; {ready}, and no incident is remembered", service.state);
    };
    let ago = span(now_ms.saturating_sub(last.detected_at_ms));
    let wanted = if last.evidence.asked_by.is_some() { " (a drill wanted it)" } else { "" };
    let told =
        format!("{} {} {ago} ago{wanted}", short(&last.replica), what_happened(&last.cause, &last.evidence));
    match (service.state, last.lasted_ms()) {
        (ServiceState::Stopped, _) => {
            let reason = service.reason.as_deref().unwrap_or("a human stopped it");
            format!("`{name}` is stopped: {reason}; before that {told}")
        }
        (ServiceState::CrashLooping, _) => {
            let next = service.next_retry_at_ms.map(|at| at.saturating_sub(now_ms));
            let next = next.map(|left| format!(", the next in {}", span(left))).unwrap_or_default();
            let deaths = 1 + last.again.as_ref().map_or(0, |again| again.deaths);
            let (happened, words) = newest(last);
            format!(
                "`{name}` is crash-looping, and tried again more and more slowly{next}: {happened} ({words}), and there \
                 were {deaths} deaths in a row"
            )
        }
        (state, None) if last.given_up_at_ms.is_some() => {
            let (happened, words) = newest(last);
            format!(
                "`{name}` is {state}, {ready}. The last to die was of a place that was given up then: {happened} {ago} ago ({words})"
            )
        }
        (state, None) if last.again.is_some() => {
            let (happened, words) = newest(last);
            format!(
                "`{name}` is {state}, {ready}: {told}, and who was to take its place did not serve: {happened} ({words})"
            )
        }
        (state, None) => {
            let words = last_words(&last.cause, &last.evidence);
            format!("`{name}` is {state}, {ready}: {told} ({words}), and its place is not filled yet")
        }
        (state, Some(lasted)) => format!(
            "`{name}` is {state}, {ready}. {told} ({}); its place served again after {}, and {} requests were lost",
            last_words(&last.cause, &last.evidence),
            span(lasted),
            last.requests_lost
        ),
    }
}

/// What happened last in an incident's place, and what was said then.
fn newest(incident: &Incident) -> (String, String) {
    let (replica, cause, evidence) = match &incident.again {
        Some(again) => (&again.replica, &again.cause, &again.evidence),
        None => (&incident.replica, &incident.cause, &incident.evidence),
    };
    (format!("{} {}", short(replica), what_happened(cause, evidence)), last_words(cause, evidence))
}

/// What happened to a replica, as one says it behind its name.
fn what_happened(cause: &str, evidence: &Evidence) -> String {
    let served = match evidence.ready_for_ms {
        Some(served) => format!(" after {} of service", span(served)),
        None => " before it was ready".to_owned(),
    };
    match (cause, number_of(evidence, "code"), number_of(evidence, "signal")) {
        ("hung", ..) => format!("hung{served} and was killed"),
        ("out of memory", ..) => format!("was killed for want of memory{served}"),
        (_, Some(0), _) => format!("ended by itself with exit 0{served}"),
        (_, Some(code), _) => format!("exited with {code}{served}"),
        (_, _, Some(9)) => format!("was killed by SIGKILL{served}"),
        (_, _, Some(signal)) => format!("was ended by {}{served}", signal_name(signal)),
        _ => format!("ended{served} and nobody saw how"),
    }
}

/// What it said last: the last line of its output, else its probe. Of one that hung the probe says more.
fn last_words(cause: &str, evidence: &Evidence) -> String {
    if let Some(probe) = evidence.probes.last().filter(|_| cause == "hung") {
        let is_beat = probe.text.starts_with(HEARTBEAT_MISSED);
        return if is_beat { probe.text.clone() } else { format!("its last probe: {}", quoted(&probe.text)) };
    }
    if let Some(text) = evidence.out_of_memory.as_ref().filter(|_| cause == "out of memory") {
        return text.clone();
    }
    if let Some(line) = evidence.last_lines.iter().rev().find(|line| !line.trim().is_empty()) {
        return format!("its last line: `{}`", quoted(line));
    }
    match evidence.probes.last() {
        Some(probe) => format!("its last probe: {}", quoted(&probe.text)),
        None => "it said nothing".to_owned(),
    }
}

fn quoted(text: &str) -> String {
    let text = text.trim();
    match text.char_indices().nth(QUOTE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// `web-r3-1.5` as people call it: `web-r3-1`.
fn short(replica: &str) -> &str {
    replica.rsplit_once('.').map_or(replica, |(name, _)| name)
}

fn number_of(evidence: &Evidence, kind: &str) -> Option<i32> {
    evidence.status.as_deref()?.strip_prefix(kind)?.trim().parse().ok()
}

fn signal_name(signal: i32) -> String {
    let known = [
        (1, "SIGHUP"),
        (2, "SIGINT"),
        (3, "SIGQUIT"),
        (6, "SIGABRT"),
        (7, "SIGBUS"),
        (11, "SIGSEGV"),
        (15, "SIGTERM"),
    ];
    let name = known.iter().find(|(number, _)| *number == signal);
    name.map_or_else(|| format!("signal {signal}"), |(_, name)| (*name).to_owned())
}

/// What words in the output often mean, and what helps.
const SIGNS: [(&str, &str); 8] = [
    (
        "EADDRINUSE",
        "its port is taken: it listens on a fixed one; let it read the variable PORT, or give each replica its own",
    ),
    (
        "address already in use",
        "its port is taken: it listens on a fixed one; let it read the variable PORT, or give each replica its own",
    ),
    ("Cannot find module", "a module is missing: its dependencies were not installed where it runs"),
    ("ModuleNotFoundError", "a module is missing: its dependencies were not installed where it runs"),
    ("JavaScript heap out of memory", "its heap is full: raise `--max-old-space-size`, or look for a leak"),
    ("OutOfMemoryError", "its heap is full: raise its limit, or look for a leak"),
    (
        "ECONNREFUSED",
        "something that it needs refused the connection: is it started, and in `depends_on` with `condition: service_healthy`?",
    ),
    ("exec format error", "the program is made for another kind of machine (`platform`)"),
];

fn advice_on(cause: &str, evidence: &Evidence) -> Vec<String> {
    // Whoever wanted it knows why.
    if evidence.asked_by.is_some() {
        return Vec::new();
    }
    let says = |sign: &str| evidence.last_lines.iter().any(|line| line.contains(sign));
    let mut advice: Vec<String> =
        SIGNS.iter().filter(|(sign, _)| says(sign)).map(|(_, text)| (*text).to_owned()).collect();
    if let Some(request) = &evidence.suspect_request {
        advice.push(format!("{request} was with two replicas when they died: look what it does there"));
    }
    let by_status = match (cause, number_of(evidence, "code"), number_of(evidence, "signal")) {
        ("out of memory", ..) => {
            "it takes more memory than it may have: raise its limit (`deploy.resources.limits.memory`, `mem_limit`), give the host more, or look for a leak"
        }
        ("hung", ..) => {
            "it took requests and answered none, its probe included: look for an endless loop, a lock, or a call without a time limit"
        }
        (_, Some(0), _) => {
            "it ended without an error: is it meant to run for ever? a service that runs once is a job (`x-bulsa: {role: job}`)"
        }
        (_, Some(126), _) => "126 often means that the command may not be executed: look at its file's mode",
        (_, Some(127), _) => {
            "127 often means that the command was not found: look at its path, and at line ends of Windows in a script"
        }
        (_, Some(137), _) => {
            "137 is 128 + 9: a process that it waited for was killed, perhaps by the kernel for want of memory"
        }
        (_, _, Some(9)) => {
            "whoever kills with SIGKILL leaves no word: a person, another program, or the kernel for want of memory (`dmesg`)"
        }
        (_, _, Some(11)) => {
            "SIGSEGV is a fault in native code: a library, a runtime, or one made for another machine"
        }
        (_, _, Some(6)) => "SIGABRT: the program or its runtime gave up by itself; its last lines say why",
        (_, _, Some(15)) => "somebody sent SIGTERM, and it was not Bulsa",
        _ => return advice,
    };
    advice.push(by_status.to_owned());
    advice
}

/// What several incidents have in common.
fn pattern(incidents: &[Incident]) -> Option<String> {
    if incidents.len() < PATTERN_MIN {
        return None;
    }
    let served: Vec<u64> = incidents.iter().filter_map(|incident| incident.evidence.ready_for_ms).collect();
    let (least, most) = (served.iter().min()?, served.iter().max()?);
    // Deaths that come after the same time look like a leak or a limit.
    let is_regular = served.len() == incidents.len() && MINUTE_MS <= *least && *most <= least + least / 4;
    is_regular.then(|| {
        format!(
            "its replicas die after about the same time ({} to {}): a leak, or a limit that fills up",
            span(*least),
            span(*most)
        )
    })
}

/// A duration in words: `850 ms`, `12 s`, `3 min`, `2 h 5 min`, `4 d`.
fn span(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0 => format!("{ms} ms"),
        1..10 => format!("{seconds}.{} s", ms % 1000 / 100),
        10..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests;
