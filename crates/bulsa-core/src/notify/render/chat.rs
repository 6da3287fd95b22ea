//! Messages for people: Slack's and Discord's bodies.

use serde_json::{Value, json};

use super::{
    super::escape::{Dialect, code, length, prose},
    DISCORD_MAX, SLACK_SECTION_MAX,
    content::Content,
};

/// A title is at most this long.
const TITLE_MAX: usize = 300;
/// A sentence is at most this long.
const LINE_MAX: usize = 400;
/// A line of output is at most this long.
const CODE_LINE_MAX: usize = 300;
/// Where lines don't fit.
const MORE: &str = "…";

/// `{"text": …, "blocks": […]}`: the text is for where blocks aren't shown, as in notifications, and for receivers that take
/// Slack's form and know no blocks.
pub(super) fn slack(content: &Content) -> String {
    let title = prose(&content.title, Dialect::Slack, TITLE_MAX);
    let section = |text: &str| json!({"type": "section", "text": {"type": "mrkdwn", "text": text}});
    let mut text = Fitting::new(SLACK_SECTION_MAX);
    text.line(&format!("*{title}*"));
    for line in &content.lines {
        text.line(&format!("• {}", prose(line, Dialect::Slack, LINE_MAX)));
    }
    let first = text.done();
    let mut blocks = vec![section(&first)];
    for (head, lines) in &content.blocks {
        let mut text = Fitting::new(SLACK_SECTION_MAX);
        text.line(&prose(head, Dialect::Slack, LINE_MAX));
        text.block(lines, Dialect::Slack);
        blocks.push(section(&text.done()));
    }
    json!({"text": first, "blocks": blocks, "unfurl_links": false, "unfurl_media": false}).to_string()
}

/// `{"content": …}`, and nobody is mentioned by it, whatever it says.
pub(super) fn discord(content: &Content) -> String {
    let mut text = Fitting::new(DISCORD_MAX);
    text.line(&format!("**{}**", prose(&content.title, Dialect::Discord, TITLE_MAX)));
    for line in &content.lines {
        text.line(&format!("• {}", prose(line, Dialect::Discord, LINE_MAX)));
    }
    for (head, lines) in &content.blocks {
        if !text.line(&prose(head, Dialect::Discord, LINE_MAX)) {
            break;
        }
        text.block(lines, Dialect::Discord);
    }
    let parse: [Value; 0] = [];
    // 4: no previews of links.
    json!({"content": text.done(), "allowed_mentions": {"parse": parse}, "flags": 4}).to_string()
}

/// Lines, as long as they fit.
struct Fitting {
    text: String,
    left: usize,
    is_full: bool,
}

impl Fitting {
    fn new(max: usize) -> Self {
        Self { text: String::new(), left: max - length(MORE) - 1, is_full: false }
    }

    /// Adds a line; false where none has room any more.
    fn line(&mut self, line: &str) -> bool {
        let needed = length(line) + usize::from(!self.text.is_empty());
        if self.is_full || needed > self.left {
            self.is_full = true;
            return false;
        }
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(line);
        self.left -= needed;
        true
    }

    /// Adds lines as a code block: the last ones that fit, for those say how it ended.
    fn block(&mut self, lines: &[String], dialect: Dialect) {
        const FENCES: &str = "```\n\n```";
        let room = self.left.saturating_sub(length(FENCES) + 1);
        let mut kept: Vec<String> = Vec::new();
        let mut used = 0;
        for line in lines.iter().rev() {
            let line = code(line, dialect, CODE_LINE_MAX);
            let needed = length(&line) + usize::from(!kept.is_empty());
            if used + needed > room {
                break;
            }
            used += needed;
            kept.push(line);
        }
        if self.is_full || kept.is_empty() {
            return;
        }
        kept.reverse();
        self.line(&format!("```\n{}\n```", kept.join("\n")));
    }

    fn done(mut self) -> String {
        if self.is_full {
            self.text.push('\n');
            self.text.push_str(MORE);
        }
        self.text
    }
}
