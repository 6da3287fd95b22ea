//! `x-bulsa.notify` and `x-bulsa.heartbeat`: who is told what happens. A URL is a secret: no message repeats it.

use std::collections::BTreeSet;

use super::super::{
    diagnostic::{Diagnostic, Diagnostics},
    duration, keys, read,
    tree::{Kind, Node},
};
use crate::notify::{Format, HEARTBEAT_INTERVAL, Heartbeat, SecretUrl, Topic, WEBHOOKS_MAX, Webhook};

pub(super) fn webhooks(node: &Node, path: &str, diags: &mut Diagnostics) -> Vec<Webhook> {
    let Kind::Sequence(items) = &node.kind else {
        diags.push(
            read::wrong(node, path, "a list of webhooks").hint("begin each with a dash: - url: https://…"),
        );
        return Vec::new();
    };
    if items.len() > WEBHOOKS_MAX {
        diags.push(
            Diagnostic::error(&node.pos, format!("{path} has {} webhooks", items.len()))
                .expected(format!("at most {WEBHOOKS_MAX}")),
        );
        return Vec::new();
    }
    let mut webhooks: Vec<Webhook> = Vec::new();
    for (i, item) in items.iter().enumerate() {
        let path = format!("{path}[{i}]");
        let Some(webhook) = webhook(item, &path, diags) else { continue };
        if webhooks.iter().any(|known| known.url == webhook.url) {
            diags.push(
                Diagnostic::error(&item.pos, format!("{path}.url stands in this list already"))
                    .hint("name every topic that it is to be told of in one entry"),
            );
            continue;
        }
        webhooks.push(webhook);
    }
    webhooks
}

fn webhook(node: &Node, path: &str, diags: &mut Diagnostics) -> Option<Webhook> {
    let (mut address, mut format, mut on) = (None, None, None);
    read::keys(node, path, &keys::BULSA_NOTIFY, diags, |entry, path, diags| {
        let node = &entry.value;
        match entry.key.as_str() {
            "url" => address = url(node, path, diags),
            "format" => format = read::choice(node, path, Format::NAMES, &[], diags),
            _ => on = topics(node, path, diags),
        }
    });
    needs_url(node, path, diags);
    let url = address?;
    let format = format.unwrap_or_else(|| Format::of_host(&url.host()));
    Some(Webhook { url, format, on: on.unwrap_or_else(Topic::all) })
}

pub(super) fn heartbeat(node: &Node, path: &str, diags: &mut Diagnostics) -> Option<Heartbeat> {
    let (mut address, mut interval) = (None, HEARTBEAT_INTERVAL);
    read::keys(node, path, &keys::BULSA_HEARTBEAT, diags, |entry, path, diags| match entry.key.as_str() {
        "url" => address = url(&entry.value, path, diags),
        _ => super::set(&mut interval, read::duration(&entry.value, path, duration::BEAT, diags)),
    });
    needs_url(node, path, diags);
    let interval_ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
    address.map(|url| Heartbeat { url, interval_ms })
}

fn needs_url(node: &Node, path: &str, diags: &mut Diagnostics) {
    if matches!(node.kind, Kind::Mapping(_)) && node.get("url").is_none() {
        diags.push(Diagnostic::error(&node.pos, format!("{path} has no `url`")).expected("url: https://…"));
    }
}

fn topics(node: &Node, path: &str, diags: &mut Diagnostics) -> Option<BTreeSet<Topic>> {
    let Kind::Sequence(items) = &node.kind else {
        diags.push(read::wrong(node, path, "a list such as [incident, park]"));
        return None;
    };
    if items.is_empty() {
        diags.push(
            Diagnostic::error(&node.pos, format!("{path} is empty"))
                .hint("leave it out to be told of everything"),
        );
        return None;
    }
    let read = items
        .iter()
        .enumerate()
        .map(|(i, item)| read::choice(item, &format!("{path}[{i}]"), Topic::NAMES, &[], diags));
    // All of them are looked at before the first mistake counts.
    let read: Vec<_> = read.collect();
    read.into_iter().collect()
}

/// A URL; what stands there instead is in no message, for it may be one that is almost right.
fn url(node: &Node, path: &str, diags: &mut Diagnostics) -> Option<SecretUrl> {
    let text = match node.scalar() {
        Some(scalar) => scalar.value.as_str(),
        None => {
            diags.push(read::wrong(node, path, "a URL"));
            return None;
        }
    };
    match SecretUrl::parse(text) {
        Ok(url) => Some(url),
        Err(error) => {
            let mistake = Diagnostic::error(&node.pos, format!("{path} {error}"));
            diags.push(
                mistake.expected("a URL such as https://hooks.example.com/…").hint(
                    "where it comes from a variable, look at its value in the environment or in `.env`",
                ),
            );
            None
        }
    }
}
