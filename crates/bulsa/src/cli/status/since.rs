//! `bulsa status --since`: how much of the last time each service was served.

use std::time::Duration;

use bulsa_core::{
    compose::duration,
    wire::api::{ServiceSince, SinceView},
};

use crate::output::{Cell, Clock, Table, Tone};

/// The shortest stretch that can be looked at.
const WINDOW_MIN: Duration = Duration::from_secs(60);
/// The longest: what is older is not kept.
const WINDOW_MAX: Duration = Duration::from_secs(400 * 24 * 3600);

/// Reads `1h`, `30d`, `2w`.
pub(super) fn window(text: &str) -> Result<Duration, String> {
    let window =
        duration::parse(text).map_err(|error| format!("{error}; write one such as 1h, 30d or 2w"))?;
    if (WINDOW_MIN..=WINDOW_MAX).contains(&window) {
        return Ok(window);
    }
    Err("it must be from 1m to 400d: what is older is not kept".to_owned())
}

/// A table of a project's services, and what the figures don't say.
pub(super) fn since_text(view: &SinceView, clock: &Clock) -> String {
    let title = format!("{} since {}", view.project, clock.local_time(view.from_ms));
    let mut text = format!("{}\n", Tone::Strong.paint(&title));
    let mut table = Table::new(&[
        "SERVICE",
        "SERVED",
        "LONGEST GAP",
        "GAPS",
        "INCIDENTS",
        "REQUESTS LOST",
        "NOT WATCHED",
    ]);
    for service in &view.services {
        let time = &service.time;
        table.row([
            Cell::from(&service.service),
            Cell::toned(share(service.served_share), tone(service)),
            Cell::from(if time.gaps == 0 { "none".to_owned() } else { length(time.longest_gap_ms) }),
            Cell::from(time.gaps),
            Cell::from(service.incidents),
            Cell::from(service.requests_lost),
            Cell::from(if time.unwatched_ms == 0 { "0".to_owned() } else { length(time.unwatched_ms) }),
        ]);
    }
    text += &table.render();
    let first = view.services.iter().filter_map(|service| service.recorded_since_ms).min();
    text += &match first {
        Some(first) if first > view.from_ms => {
            format!(
                "there are records since {} only; what was before is not watched\n",
                clock.local_time(first)
            )
        }
        Some(first) => format!("there are records since {}\n", clock.local_time(first)),
        None => "there is no record yet\n".to_owned(),
    };
    text + "\n"
}

/// A share, rounded down to thousandths of a percent: only what was always served is 100 %.
fn share(share: Option<f64>) -> String {
    let Some(share) = share else { return "unknown".to_owned() };
    let thousandths = (share * 100_000.0).floor() / 1000.0;
    if share >= 1.0 { "100 %".to_owned() } else { format!("{thousandths:.3} %") }
}

fn tone(service: &ServiceSince) -> Tone {
    match service.served_share {
        Some(share) if share >= 0.999 => Tone::Good,
        Some(share) if share >= 0.99 => Tone::Warn,
        Some(_) => Tone::Bad,
        None => Tone::Dim,
    }
}

/// `340 ms`, `12.5 s`, `3 min 20 s`, `5 h 12 min`, `3 d 4 h`.
fn length(ms: u64) -> String {
    let seconds = ms / 1000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0 => format!("{ms} ms"),
        1..60 => format!("{}.{} s", seconds, ms % 1000 / 100),
        60..3600 => format!("{minutes} min {} s", seconds % 60),
        3600..86_400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use bulsa_core::availability::Availability;

    use super::*;

    #[test]
    fn windows_are_what_people_write() {
        assert_eq!(window("1h"), Ok(Duration::from_secs(3600)));
        assert_eq!(window("30d"), Ok(Duration::from_secs(30 * 86_400)));
        assert_eq!(window("2w"), Ok(Duration::from_secs(14 * 86_400)));
        for wrong in ["", "30", "1s", "2y", "500d", "-1h"] {
            assert!(window(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_share_is_never_rounded_up_to_all() {
        assert_eq!((share(Some(1.0)), share(Some(0.999_999_9))), ("100 %".to_owned(), "99.999 %".to_owned()));
        assert_eq!((share(Some(0.5)), share(None)), ("50.000 %".to_owned(), "unknown".to_owned()));
    }

    #[test]
    fn the_table_is_what_was_reviewed() {
        const DAY_MS: u64 = 86_400_000;
        let now = 1_767_259_800_000;
        let time = Availability {
            served_ms: 20 * DAY_MS,
            unserved_ms: 200_300,
            unwatched_ms: 10 * DAY_MS - 200_300,
            longest_gap_ms: 200_000,
            gaps: 2,
            ..Availability::default()
        };
        let web = ServiceSince {
            service: "web".to_owned(),
            served_share: time.share(),
            time,
            incidents: 3,
            requests_lost: 7,
            recorded_since_ms: Some(now - 20 * DAY_MS),
        };
        let idle = ServiceSince { service: "idle".to_owned(), ..ServiceSince::default() };
        let view = SinceView {
            project: "shop".to_owned(),
            from_ms: now - 30 * DAY_MS,
            now_ms: now,
            services: vec![web, idle],
        };
        let text = since_text(&view, &Clock::fixed(now));
        insta::assert_snapshot!(anstream::adapter::strip_str(&text).to_string());
    }
}
