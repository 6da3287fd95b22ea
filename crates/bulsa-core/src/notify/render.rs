//! What a message says: one content, in the words of whoever takes it.
//!
//! Owns: the sentences, and the bodies of the formats. Never: sends them, or trusts a text that comes from elsewhere.

mod chat;
mod content;
mod json;

use std::time::Duration;

use super::{Format, batch::Batch};
use crate::{time::Timestamp, wire::api::Incident};

/// The evidence of so many incidents is shown.
pub const INCIDENTS_MAX: usize = 3;
/// So many last lines of output are shown of each in a chat.
pub const LINES_SHOWN: usize = 8;
/// So many last lines of output of each are in the JSON.
pub const LINES_SENT: usize = 20;
/// A text in the JSON is at most this long, in characters.
pub const TEXT_MAX: usize = 1000;
/// A message of Discord's is at most this long, in UTF-16 units.
pub const DISCORD_MAX: usize = 2000;
/// A section of Slack's is at most this long, in UTF-16 units.
pub const SLACK_SECTION_MAX: usize = 3000;
/// The version of the JSON.
pub const JSON_VERSION: u32 = 1;

/// What is to be told.
#[derive(Clone, Debug)]
pub struct Letter<'l> {
    /// The project's name.
    pub project: &'l str,
    /// The name of this host.
    pub host: &'l str,
    /// What happened.
    pub batch: &'l Batch,
    /// What is known of its first incidents.
    pub incidents: &'l [Incident],
    /// When it is sent.
    pub now: Timestamp,
}

impl Letter<'_> {
    /// The message's id: the same for every try, also by another agent.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}-{}", self.project, self.batch.first_id)
    }

    fn age(&self) -> Duration {
        self.now.since(Timestamp(self.batch.first_at_ms))
    }
}

/// The body of a message, JSON in each format.
#[must_use]
pub fn body(format: Format, letter: &Letter<'_>) -> String {
    match format {
        Format::Json => json::body(letter),
        Format::Slack => chat::slack(&content::of(letter)),
        Format::Discord => chat::discord(&content::of(letter)),
    }
}

/// The body of a message that only says that it arrived.
#[must_use]
pub fn test_body(format: Format, project: &str, host: &str, now: Timestamp) -> String {
    let content = content::Content {
        title: format!("{project} on {host}: a test by `bulsa notify test`"),
        lines: vec!["Messages about this project come here.".to_owned()],
        blocks: Vec::new(),
    };
    match format {
        Format::Json => json::test_body(project, host, &content.title, now),
        Format::Slack => chat::slack(&content),
        Format::Discord => chat::discord(&content),
    }
}

#[cfg(test)]
mod tests;
