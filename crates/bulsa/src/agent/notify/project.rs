//! One project's messages: its URLs, what waits for each, and how far they are.
//!
//! Owns: the outboxes and what is remembered of them. Never: sends or stores anything itself.

use bulsa_core::{
    notify::{
        Heartbeat, Webhook,
        memory::{Memory, Settings},
        outbox::{Next, Outbox},
    },
    time::Timestamp,
    wire::api::{Event, NotifyView},
};

/// One project's.
#[derive(Debug)]
pub(super) struct Project {
    /// As it is stored.
    pub(super) memory: Memory,
    /// Its webhooks, in the file's order.
    pub(super) targets: Vec<Target>,
    pub(super) heartbeat: Option<Beat>,
    /// It is down, or its file wants nobody told: what waits still goes out, then it is forgotten.
    pub(super) is_gone: bool,
    /// What was told before this agent, or was missed, is being read.
    pub(super) catching_up: Option<CatchingUp>,
}

/// Reading the events that weren't heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CatchingUp {
    /// An event was heard meanwhile, and passed over: it comes with the next page.
    pub(super) missed: bool,
}

/// One webhook.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) webhook: Webhook,
    pub(super) outbox: Outbox,
    pub(super) view: NotifyView,
}

/// The heartbeat.
#[derive(Debug)]
pub(super) struct Beat {
    pub(super) heartbeat: Heartbeat,
    /// When it is due next.
    pub(super) at: Timestamp,
    /// It is being called.
    pub(super) is_out: bool,
    pub(super) view: NotifyView,
}

impl Project {
    /// One whose messages an agent before this one left, or a new one. It catches up first.
    pub(super) fn new(memory: Memory, now: Timestamp) -> Self {
        let mut project =
            Self { memory, targets: Vec::new(), heartbeat: None, is_gone: true, catching_up: None };
        project.make_targets(now);
        project
    }

    /// The file says this now.
    pub(super) fn set(&mut self, settings: &Settings, now: Timestamp) {
        self.is_gone = false;
        if self.memory.notify != settings.notify {
            self.remember();
            self.memory = self.memory.under(settings);
            self.make_targets(now);
        }
        let wanted = settings.notify.heartbeat.as_ref();
        if self.heartbeat.as_ref().map(|beat| &beat.heartbeat) != wanted {
            self.heartbeat = wanted.map(|heartbeat| Beat::new(heartbeat.clone(), now));
        }
    }

    /// It is down, or nobody is to be told any more.
    pub(super) fn leave(&mut self) {
        self.is_gone = true;
        self.heartbeat = None;
    }

    /// Whether it can be forgotten.
    pub(super) fn is_done(&self) -> bool {
        self.is_gone && self.catching_up.is_none() && self.waiting() == 0
    }

    fn waiting(&self) -> u64 {
        self.targets.iter().map(|target| target.outbox.waiting()).sum()
    }

    /// The webhooks as the memory has them; those that stay keep what waits for them.
    fn make_targets(&mut self, now: Timestamp) {
        let mut before = std::mem::take(&mut self.targets);
        for (webhook, cursor) in self.memory.notify.webhooks.iter().zip(&self.memory.cursors) {
            let known = before.iter().position(|target| target.webhook.url == webhook.url);
            let mut target = match known {
                Some(index) => before.swap_remove(index),
                None => Target {
                    webhook: webhook.clone(),
                    outbox: Outbox::new(webhook.on.clone(), cursor.told, now),
                    view: NotifyView {
                        sent: cursor.sent,
                        given_up: cursor.given_up,
                        ..NotifyView::default()
                    },
                },
            };
            target.outbox.set_topics(webhook.on.clone());
            target.view.kind = webhook.format.to_string();
            target.view.target = webhook.url.to_string();
            target.webhook = webhook.clone();
            self.targets.push(target);
        }
    }

    /// Brings the memory up to date; whether that changed it.
    pub(super) fn remember(&mut self) -> bool {
        let before = self.memory.clone();
        for (cursor, target) in self.memory.cursors.iter_mut().zip(&self.targets) {
            cursor.told = target.outbox.cursor();
            cursor.sent = target.view.sent;
            cursor.given_up = target.view.given_up;
        }
        self.memory != before
    }

    /// How far the webhook is that has seen least; `None` without any.
    pub(super) fn seen(&self) -> Option<u64> {
        self.targets.iter().map(|target| target.outbox.seen()).min()
    }

    /// Looks at an event; whether somebody is to be told of it.
    pub(super) fn see(&mut self, event: &Event, now: Timestamp) -> bool {
        self.targets.iter_mut().fold(false, |news, target| target.outbox.see(event, now) | news)
    }

    /// The webhook with this URL.
    pub(super) fn target(&mut self, webhook: &Webhook) -> Option<&mut Target> {
        self.targets.iter_mut().find(|target| target.webhook.url == webhook.url)
    }

    /// How it all is.
    pub(super) fn views(&self) -> Vec<NotifyView> {
        let targets = self
            .targets
            .iter()
            .map(|target| NotifyView { waiting: target.outbox.waiting(), ..target.view.clone() });
        targets.chain(self.heartbeat.iter().map(|beat| beat.view.clone())).collect()
    }
}

impl Target {
    /// What is to be done for it now.
    pub(super) fn next(&mut self, now: Timestamp) -> Next {
        let next = self.outbox.next(now);
        self.view.next_try_at_ms = match next {
            Next::Wait(at) if self.view.error.is_some() => Some(at.0),
            _ => None,
        };
        next
    }
}

impl Beat {
    fn new(heartbeat: Heartbeat, now: Timestamp) -> Self {
        let (kind, target) = ("heartbeat".to_owned(), heartbeat.url.to_string());
        let view = NotifyView { kind, target, ..NotifyView::default() };
        Self { heartbeat, at: now, is_out: false, view }
    }
}
