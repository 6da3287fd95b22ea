//! What is said of requests that wait because a human wants it: to whoever asks, in events, in the snapshot.
//!
//! Owns: those words, and whether every proxy does as was asked. Never: holds a request; the proxies do, by the table.

use std::collections::BTreeSet;

use bulsa_core::{
    decide::{Change, Desired},
    ids::ReleaseId,
    wire::api::{HeldView, ProgressKind},
};

use super::{Driver, persist::human, project::Project};

impl Driver {
    /// How a service's requests are held; `None` where nobody wants that.
    pub(super) fn held_view(&self, project: &Project, service: &str) -> Option<HeldView> {
        let since = project.desired.wish(service).held?;
        let is_given_out = project.published.as_ref().is_some_and(|table| {
            // Of one without a route no request is let through either.
            table.routes.get(service).is_none_or(|route| route.held)
        });
        let mut reports = self.proxies.values().map(|proxy| proxy.report.as_ref());
        let is_taken = reports.all(|report| report.is_some_and(|report| report.table >= self.routes.number));
        let named = format!("{}/{service}", project.name);
        let waiting = self.proxies.values().filter_map(|proxy| proxy.report.as_ref());
        let waiting = waiting.flat_map(|report| &report.held).filter(|held| is_of(&held.service, &named));
        let replicas = project.observed.replicas().filter(|(id, _)| id.service == service);
        Some(HeldView {
            since_ms: since.0,
            in_force: is_given_out && is_taken,
            waiting: waiting.map(|held| held.requests).sum(),
            in_flight: replicas.map(|(id, _)| project.observed.load(id).in_flight).sum(),
        })
    }

    pub(super) fn narrate_hold(&self, name: &str, service: &str, on: bool) {
        let (kind, text) = if on {
            let text = format!(
                "a human wants the requests for `{service}` to wait; `bulsa hold off {service}` lets them out"
            );
            ("hold.begun", text)
        } else {
            ("hold.ended", format!("a human lets the requests for `{service}` out"))
        };
        self.tell(name, kind, None, text);
    }

    /// Whoever deploys hears that users wait on, whatever becomes of the deploy.
    pub(super) fn narrate_held(&mut self, name: &str, candidate: ReleaseId) {
        let project = self.projects.get(name);
        if let Some(text) = project.and_then(|project| still(&project.desired, candidate)) {
            self.progress(name, ProgressKind::Line, text);
        }
    }
}

/// Whose requests are held in `release`, for whoever deploys; `None` where nobody's are.
pub(super) fn still(desired: &Desired, release: ReleaseId) -> Option<String> {
    let held = desired.wishes.iter().filter(|(_, wish)| wish.held.is_some());
    let held = held.filter(|(service, _)| desired.service(release, service).is_some());
    let names: BTreeSet<String> = held.map(|(service, _)| service.clone()).collect();
    (!names.is_empty())
        .then(|| format!("{} stay held, as a human asked; `bulsa hold off` lets them out", requests(&names)))
}

/// What a request to hold does.
pub(super) fn doing(services: &BTreeSet<String>, on: bool) -> String {
    if on { format!("holding {}", requests(services)) } else { format!("letting {} out", requests(services)) }
}

fn requests(services: &BTreeSet<String>) -> String {
    if services.is_empty() {
        return "all requests".to_owned();
    }
    let names: Vec<String> = services.iter().map(|name| format!("`{name}`")).collect();
    format!("the requests for {}", names.join(", "))
}

/// What whoever holds requests should know: how long they wait, and how many, by the file.
pub(super) fn notes(desired: &Desired, changes: &[Change]) -> Vec<String> {
    let held = changes.iter().filter_map(|change| match change {
        Change::Hold { service, since: Some(_) } => Some(service),
        _ => None,
    });
    let note = |name: &String| {
        let hold = &desired.service(desired.live?, name)?.hold;
        Some(if desired.wish(name).stopped {
            format!(
                "`{name}` is stopped: its requests are answered with an error at once, until `bulsa start {name}`"
            )
        } else if hold.time.is_zero() || hold.requests == 0 {
            format!(
                "`{name}` holds nothing, as its file says (`x-bulsa.hold`): its requests are answered with 503 at once"
            )
        } else {
            let (time, most) = (human(hold.time), hold.requests);
            format!(
                "`{name}`: each waits up to {time}, {most} at most; the others are answered with 503 (`x-bulsa.hold`)"
            )
        })
    };
    held.filter_map(note).collect()
}

/// Whether a service of the route table is this one, at whichever port.
fn is_of(in_table: &str, named: &str) -> bool {
    in_table.strip_prefix(named).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_of_the_table_is_known_at_each_of_its_ports_and_no_other_is() {
        for (in_table, expected) in
            [("shop/web", true), ("shop/web:3000", true), ("shop/webb", false), ("shop/we", false)]
        {
            assert_eq!(is_of(in_table, "shop/web"), expected, "{in_table}");
        }
    }

    #[test]
    fn what_is_done_is_said_of_those_that_are_named() {
        let named = BTreeSet::from(["api".to_owned(), "web".to_owned()]);
        assert_eq!(doing(&named, true), "holding the requests for `api`, `web`");
        assert_eq!(doing(&named, false), "letting the requests for `api`, `web` out");
        assert_eq!(doing(&BTreeSet::new(), false), "letting all requests out");
    }
}
