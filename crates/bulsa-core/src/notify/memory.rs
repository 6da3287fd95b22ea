//! What is remembered of a project's URLs over the deaths of agents, and over changes of its file.
//!
//! Owns: [`Memory`], the stored form, and what becomes of it when the file names other URLs. Never: stores it.

use serde::{Deserialize, Serialize};

use super::{Notify, SecretUrl};

/// What a file said last, and since when.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// The first event that may be told: those before it happened when nobody wanted to know.
    pub since: u64,
    /// Who is told what.
    pub notify: Notify,
}

/// How far a project's URLs were told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// Who was told last, also where the project is gone since.
    pub notify: Notify,
    /// How far, for each webhook.
    pub cursors: Vec<Cursor>,
}

/// How far one URL was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Which.
    pub url: SecretUrl,
    /// The last event that needs no telling any more.
    pub told: u64,
    /// Messages that were taken.
    #[serde(default)]
    pub sent: u64,
    /// Messages that were given up.
    #[serde(default)]
    pub given_up: u64,
}

impl Memory {
    /// The same for a file that says this now. A URL that stays goes on where it was. A URL that is new begins with the
    /// file; where others went, it takes over what they weren't told yet: a file with a wrong URL is mended, and the
    /// message about the night before comes after all.
    #[must_use]
    pub fn under(&self, settings: &Settings) -> Self {
        let webhooks = &settings.notify.webhooks;
        let is_gone = |cursor: &&Cursor| webhooks.iter().all(|webhook| webhook.url != cursor.url);
        let left_over = self.cursors.iter().filter(is_gone).map(|cursor| cursor.told).min();
        let begin = settings.since.saturating_sub(1);
        let cursors = webhooks.iter().map(|webhook| {
            let known = self.cursors.iter().find(|cursor| cursor.url == webhook.url);
            known.cloned().unwrap_or_else(|| Cursor {
                url: webhook.url.clone(),
                told: left_over.map_or(begin, |told| told.min(begin)),
                sent: 0,
                given_up: 0,
            })
        });
        Self { cursors: cursors.collect(), notify: settings.notify.clone() }
    }

    /// How far the URL that was told least was told; `None` without any.
    #[must_use]
    pub fn least(&self) -> Option<u64> {
        self.cursors.iter().map(|cursor| cursor.told).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::{Format, Topic, Webhook};

    fn url(name: &str) -> SecretUrl {
        SecretUrl::parse(&format!("https://example.com/{name}")).unwrap()
    }

    fn settings(since: u64, names: &[&str]) -> Settings {
        let webhooks = names
            .iter()
            .map(|name| Webhook { url: url(name), format: Format::Json, on: Topic::all() })
            .collect();
        Settings { since, notify: Notify { webhooks, heartbeat: None } }
    }

    fn cursors(memory: &Memory) -> Vec<(String, u64)> {
        memory
            .cursors
            .iter()
            .map(|c| (c.url.expose().rsplit('/').next().unwrap().to_owned(), c.told))
            .collect()
    }

    fn told(mut memory: Memory, to: &[u64]) -> Memory {
        for (cursor, told) in memory.cursors.iter_mut().zip(to) {
            cursor.told = *told;
        }
        memory
    }

    fn of(pairs: &[(&str, u64)]) -> Vec<(String, u64)> {
        pairs.iter().map(|(name, told)| ((*name).to_owned(), *told)).collect()
    }

    #[test]
    fn nobody_is_told_what_was_before_they_wanted_to_know() {
        let first = Memory::default().under(&settings(40, &["a", "b"]));
        assert_eq!(cursors(&first), of(&[("a", 39), ("b", 39)]));
        // An agent later, and a deploy later, it goes on where it was.
        let later = told(first, &[50, 60]).under(&settings(70, &["b", "a"]));
        assert_eq!(cursors(&later), of(&[("b", 60), ("a", 50)]));
    }

    #[test]
    fn a_url_that_is_added_begins_with_the_file_and_one_that_replaces_another_takes_over() {
        let before = told(Memory::default().under(&settings(40, &["a", "b"])), &[50, 60]);
        let added = before.under(&settings(70, &["a", "b", "c"]));
        assert_eq!(cursors(&added), of(&[("a", 50), ("b", 60), ("c", 69)]));
        let replaced = before.under(&settings(70, &["c", "b"]));
        assert_eq!(cursors(&replaced), of(&[("c", 50), ("b", 60)]));
        // All that was to be told was told: the new one isn't told it again.
        let done = told(before, &[80, 80]).under(&settings(70, &["c"]));
        assert_eq!(cursors(&done), of(&[("c", 69)]));
    }

    #[test]
    fn it_survives_the_store() {
        let memory = told(Memory::default().under(&settings(4, &["a"])), &[9]);
        let text = serde_json::to_string(&memory).unwrap();
        assert_eq!(serde_json::from_str::<Memory>(&text).unwrap(), memory);
        assert!(!format!("{memory:?}").contains("/a"), "{memory:?}");
    }
}
