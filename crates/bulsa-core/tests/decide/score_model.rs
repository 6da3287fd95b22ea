//! The failure score against a model that keeps every death, and deaths against a model that keeps every name.

use std::{collections::BTreeSet, time::Duration};

use bulsa_core::{
    backoff::{BASE, CAP, FREE_SCORE, HALF_LIFE, Score},
    decide::{Event, ExitStatus, Observed},
    ids::{ReplicaId, Slot},
    time::Timestamp,
};
use proptest::prelude::*;

use crate::world::id;

/// A death: so much after the one before, and how long the replica had been ready.
fn any_death() -> impl Strategy<Value = (u64, Option<u64>)> {
    let gap = prop_oneof![5 => 0_u64..5_000, 2 => 0_u64..600_000, 1 => 0_u64..20_000_000];
    let ready = prop_oneof![2 => Just(None), 1 => (0_u64..5_000).prop_map(Some), 1 => (0_u64..10_000_000).prop_map(Some)];
    (gap, ready)
}

/// The sum over all deaths ever of what each still weighs.
fn weight_now(deaths: &[(f64, u64)], now: u64) -> f64 {
    let halved = |since: u64| 0.5_f64.powf((now - since) as f64 / HALF_LIFE.as_millis() as f64);
    deaths.iter().map(|(weight, at)| weight * halved(*at)).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_score_is_the_sum_of_what_every_death_still_weighs(
        deaths in prop::collection::vec(any_death(), 1..40), later in 0_u64..10_000_000,
    ) {
        let (mut score, mut now, mut all) = (Score::default(), 0, Vec::new());
        let slot = Slot { release: bulsa_core::ids::ReleaseId(1), service: "web".to_owned(), ordinal: 1 };
        for (attempt, (gap, ready)) in deaths.into_iter().enumerate() {
            now += gap;
            score.add_death(ready.map(Duration::from_millis), Timestamp(now));
            all.push((ready.map_or(1.0, |ms| 0.25 / (1.0 + ms as f64 / 1000.0)), now));

            let points = weight_now(&all, now);
            prop_assert!((score.at(Timestamp(now)) - points).abs() < 1e-6);
            let over = points - FREE_SCORE;
            let ceiling = if over <= 0.0 { 0.0 } else { (BASE.as_secs_f64() * over.exp2()).min(CAP.as_secs_f64()) };
            if over.abs() > 1e-6 {
                prop_assert!((score.ceiling().as_secs_f64() - ceiling).abs() < 1e-3, "{over}");
            }
            let wait = score.next_start(&slot, attempt as u32).since(Timestamp(now)).as_secs_f64();
            prop_assert!(wait <= ceiling + 0.002 && wait + 0.002 >= ceiling / 4.0, "{} of {}", wait, ceiling);
            prop_assert_eq!(score.is_crash_looping(), score.ceiling() > Duration::ZERO);
        }
        let then = Timestamp(now + later);
        prop_assert!((score.at(then) - weight_now(&all, then.0)).abs() < 1e-6);
    }
}

#[derive(Clone, Debug)]
enum News {
    Sent,
    Started(u32),
    Exited(u32),
    Asked(u32),
}

fn any_news() -> impl Strategy<Value = News> {
    let attempt = || 1_u32..6;
    prop_oneof![
        3 => Just(News::Sent),
        2 => attempt().prop_map(News::Started),
        4 => attempt().prop_map(News::Exited),
        1 => attempt().prop_map(News::Asked),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever is doubled or late: a death counts once, and one that we asked for not at all.
    #[test]
    fn every_death_counts_once(news in prop::collection::vec(any_news(), 1..60)) {
        let name = |attempt: u32| -> ReplicaId { id(&format!("web-r1-1.{attempt}")) };
        let mut observed = Observed::new(0, 0);
        let (mut alive, mut asked) = (BTreeSet::new(), BTreeSet::new());
        let (mut deaths, mut buried, mut next) = (0, 0, 1);
        for (i, news) in news.into_iter().enumerate() {
            let now = Timestamp(i as u64);
            match news {
                // The shell never uses a name twice.
                News::Sent => {
                    alive.insert(next);
                    observed.apply(Event::StartSent(name(next)), now);
                    next += 1;
                }
                News::Started(n) if n < next => {
                    if n > buried {
                        alive.insert(n);
                    }
                    let origin = bulsa_core::decide::Origin::Ours;
                    observed.apply(Event::Started { id: name(n), at: now, origin }, now);
                }
                News::Asked(n) => {
                    if alive.contains(&n) {
                        asked.insert(n);
                    }
                    observed.apply(Event::StopSent { id: name(n), kill: false }, now);
                }
                News::Exited(n) if n < next => {
                    if alive.remove(&n) {
                        deaths += u32::from(!asked.contains(&n));
                        buried = buried.max(n);
                    }
                    observed.apply(Event::Exited { id: name(n), status: ExitStatus::Code(1) }, now);
                }
                News::Started(_) | News::Exited(_) => {}
            }
            let history = observed.slot(&name(1).slot());
            prop_assert_eq!(history.map_or(0, |history| history.deaths), deaths);
            let running: BTreeSet<u32> = observed.replicas().map(|(id, _)| id.attempt).collect();
            prop_assert_eq!(&running, &alive);
        }
    }
}
