//! What home-made set-ups did to the same injuries: the published ways of four teams, run for real and measured on a
//! busy 2-core machine. They stand beside ours so that a number means something.
//!
//! They were measured apart from this run: at the rate that stands with them, on one new connection per request, with
//! a tenth of the requests taking 3 s in the deploys, and medians given.

/// The footnote under the table.
pub(crate) const NOTE: &str = "by hand: four published set-ups (Compose with restart: always and autoheal; a node \
cluster; blue/green scripts with nginx and with Caddy), run for real and measured earlier on a busy 2-core machine; \
medians, at the rate given. Their slow requests took 3 s in the deploys, ours take 0.3 s.";

/// The figures for one step.
pub(crate) fn of(step: &str) -> &'static str {
    match step {
        "deploy" => {
            "at 50 req/s: 0 to 16 failed in 54 to 66 s (nginx reload), 15 in 6 s (Caddy reload), 222 in 10 s (Caddy \
             restart); 20 of 20 WebSockets dropped each time"
        }
        "kill-worker" => {
            "at 50 req/s: node cluster 8 failed, back in 0.20 s; restart: always 37 failed, back in 1.1 s"
        }
        "hang-worker" => {
            "autoheal as published: back after 105 s, about 5200 failed at 50 req/s; with every check at 1 s: 13.6 s"
        }
        "broken-release" => {
            "at 30 req/s: 0 failed, but exit code 0 (nginx way); the next good deploy then recreated the live copy: \
             3 to 56 s of outage, 86 to 1680 failed"
        }
        "crashing-release" => {
            "at 30 req/s: no way back: 1307 failed in 45 s and on until somebody comes (nginx way), a crash loop with \
             521 failed in 37 s (Caddy way)"
        }
        "kill-agent" => {
            "the deploy script killed: nothing lost at once; run again, it recreated the live copy in 4 of 10 cases: 92 \
             to 490 failed at 30 req/s, 3 to 16 s of outage"
        }
        "kill-proxy" => {
            "at 50 req/s, Caddy restarted in order (no kill): connections refused for 1.1 to 1.3 s, 56 failed; with \
             slow requests under way 4.3 to 5.1 s, 222 failed"
        }
        _ => "not measured",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_that_was_measured_by_hand_has_its_figures() {
        let steps = [
            "deploy",
            "kill-worker",
            "hang-worker",
            "broken-release",
            "crashing-release",
            "kill-agent",
            "kill-proxy",
        ];
        assert!(steps.iter().all(|step| of(step) != "not measured"));
    }
}
