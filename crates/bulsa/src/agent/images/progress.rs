//! How far a pull is, for whoever waits.
//!
//! Owns: adding up the layers, and how often something is said. Never: waits for a listener that doesn't listen.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bollard::models::CreateImageInfo;
use tokio::sync::mpsc;

/// Numbers are sent at most this often for one pull: each is a line on somebody's terminal.
const EVERY: Duration = Duration::from_secs(1);
/// Bytes in a megabyte, as Docker counts them.
const MEGABYTE: u64 = 1_000_000;
/// So many layers are added up; Docker allows 127 in an image.
const LAYERS_MAX: usize = 512;
/// A note waits this long for a listener.
const NOTE_WAIT: Duration = Duration::from_secs(1);
/// How much of an id is shown, in characters.
const ID_SHOWN: usize = 12;

/// What a listener is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The service, or several with `, ` between them.
    pub service: String,
    /// One line.
    pub text: String,
    /// Bytes so far.
    pub done: Option<u64>,
    /// Bytes in all, as far as they are known yet: it may grow.
    pub total: Option<u64>,
}

/// An id's first digits.
pub(super) fn short(id: &str) -> String {
    id.strip_prefix("sha256:").unwrap_or(id).chars().take(ID_SHOWN).collect()
}

/// Says how one pull goes.
#[derive(Clone, Debug)]
pub(super) struct Teller {
    services: String,
    image: String,
    to: mpsc::Sender<Progress>,
}

impl Teller {
    pub(super) fn new(services: String, image: String, to: mpsc::Sender<Progress>) -> Self {
        Self { services, image, to }
    }

    /// A line that should be heard.
    pub(super) async fn say(&self, text: String) {
        let progress = Progress { service: self.services.clone(), text, done: None, total: None };
        // Nobody listens, or not in time: the note is in the result too.
        self.to.send_timeout(progress, NOTE_WAIT).await.ok();
    }

    /// Numbers: the next ones come soon.
    pub(super) fn count(&self, sum: Sum) {
        let text = sum.words(&self.image);
        let progress = Progress { service: self.services.clone(), text, done: sum.done, total: sum.total };
        // A listener that is behind gets the next ones.
        self.to.try_send(progress).ok();
    }
}

/// What the layers add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) done: Option<u64>,
    pub(super) total: Option<u64>,
    /// Everything is here and is being unpacked.
    pub(super) unpacking: bool,
}

impl Sum {
    fn words(&self, image: &str) -> String {
        match (self.unpacking, self.done, self.total) {
            (true, ..) => format!("unpacking {image}"),
            (false, Some(done), Some(total)) => {
                format!("pulling {image}: {} of {} MB", done / MEGABYTE, total.div_ceil(MEGABYTE))
            }
            _ => format!("pulling {image}"),
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Layer {
    done: u64,
    total: u64,
    here: bool,
}

/// Adds up the layers of one pull.
#[derive(Debug, Default)]
pub(super) struct Meter {
    layers: BTreeMap<String, Layer>,
    said: Option<(Instant, String)>,
}

impl Meter {
    /// Takes in one line of the Engine's; gives something when it is time to say so, and it is something new.
    pub(super) fn take(&mut self, line: &CreateImageInfo, now: Instant) -> Option<Sum> {
        self.note(line);
        let said = self.said.as_ref();
        if said.is_some_and(|(at, _)| now.duration_since(*at) < EVERY) {
            return None;
        }
        let sum = self.sum();
        let words = sum.words("");
        if said.is_some_and(|(_, before)| *before == words) {
            return None;
        }
        self.said = Some((now, words));
        Some(sum)
    }

    fn note(&mut self, line: &CreateImageInfo) {
        let (Some(id), Some(status)) = (&line.id, &line.status) else { return };
        // The line about the tag has an id too.
        if status.starts_with("Pulling from")
            || (self.layers.len() == LAYERS_MAX && !self.layers.contains_key(id))
        {
            return;
        }
        let layer = self.layers.entry(id.clone()).or_default();
        let number = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok());
        match status.as_str() {
            "Downloading" => {
                let detail = line.progress_detail.as_ref();
                layer.done = detail.and_then(|detail| number(detail.current)).unwrap_or(layer.done);
                layer.total = detail.and_then(|detail| number(detail.total)).unwrap_or(layer.total);
            }
            "Verifying Checksum" | "Download complete" | "Extracting" | "Pull complete"
            | "Already exists" => {
                layer.here = true;
                layer.done = layer.total;
            }
            _ => {}
        }
    }

    fn sum(&self) -> Sum {
        let add = |what: fn(&Layer) -> u64| self.layers.values().map(what).fold(0_u64, u64::saturating_add);
        let total = Some(add(|layer| layer.total)).filter(|total| *total > 0);
        Sum {
            done: total.map(|_| add(|layer| layer.done)),
            total,
            unpacking: !self.layers.is_empty() && self.layers.values().all(|layer| layer.here),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(json: &str) -> CreateImageInfo {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn layers_are_added_up() {
        let mut meter = Meter::default();
        for json in [
            r#"{"status":"Pulling from library/x","id":"1.2"}"#,
            r#"{"status":"Pulling fs layer","progressDetail":{},"id":"a"}"#,
            r#"{"status":"Already exists","progressDetail":{},"id":"b"}"#,
            r#"{"status":"Downloading","progressDetail":{"current":5,"total":20},"progress":"[=> ]","id":"a"}"#,
            r#"{"status":"Downloading","progressDetail":{"current":1,"total":10},"id":"c"}"#,
            r#"{"status":"Digest: sha256:0"}"#,
        ] {
            meter.note(&line(json));
        }
        assert_eq!(meter.sum(), Sum { done: Some(6), total: Some(30), unpacking: false });
        meter.note(&line(r#"{"status":"Download complete","progressDetail":{},"id":"a"}"#));
        meter.note(&line(r#"{"status":"Pull complete","progressDetail":{},"id":"c"}"#));
        assert_eq!(meter.sum(), Sum { done: Some(30), total: Some(30), unpacking: true });
    }

    #[test]
    fn news_is_said_with_numbers_and_not_more_often_than_the_limit() {
        let mut meter = Meter::default();
        let start = Instant::now();
        let said: Vec<String> = (0..3500_u64)
            .filter_map(|at| {
                let current = at * 10_000;
                let progress = format!(r#"{{"current":{current},"total":300000000}}"#);
                let json = format!(r#"{{"status":"Downloading","progressDetail":{progress},"id":"a"}}"#);
                meter.take(&line(&json), start + Duration::from_millis(at))
            })
            .map(|sum| sum.words("shop:1"))
            .collect();
        let all = [0, 10, 20, 30].map(|done| format!("pulling shop:1: {done} of 300 MB"));
        assert_eq!(said, all);
        let done = line(r#"{"status":"Download complete","progressDetail":{},"id":"a"}"#);
        let said: Vec<String> = (5..10)
            .filter_map(|second| meter.take(&done, start + Duration::from_secs(second)))
            .map(|sum| sum.words("shop:1"))
            .collect();
        assert_eq!(said, ["unpacking shop:1"], "the same is said once");
    }

    #[test]
    fn what_is_remembered_has_a_limit() {
        let mut meter = Meter::default();
        for at in 0..10_000 {
            meter.note(&line(&format!(r#"{{"status":"Waiting","id":"{at}"}}"#)));
        }
        assert_eq!(meter.layers.len(), LAYERS_MAX);
    }
}
