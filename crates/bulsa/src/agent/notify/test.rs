//! `bulsa notify test`: a message to every URL of a project at once, and what came of it.
//!
//! Owns: the one try of each. Never: groups, limits or tries again: whoever asked wants to see what happens.

use bulsa_core::{
    notify::{Format, Heartbeat, Notify, SecretUrl, Webhook, render},
    time::Timestamp,
    wire::api::NotifyTested,
};
use tokio::{sync::watch, task::JoinSet};

use super::{
    super::driver::AllSettings,
    http::{Call, Trouble, call},
};

/// What the API tries it with.
#[derive(Clone, Debug)]
pub struct Tester {
    settings: watch::Receiver<AllSettings>,
    host: String,
}

impl Tester {
    /// One for these settings, on a host of this name.
    #[must_use]
    pub(in crate::agent) const fn new(settings: watch::Receiver<AllSettings>, host: String) -> Self {
        Self { settings, host }
    }

    /// Tries all URLs of a project, each once and all at the same time: webhooks in the file's order, the heartbeat last.
    pub async fn test(&self, project: &str, now: Timestamp) -> Vec<NotifyTested> {
        let notify = self.settings.borrow().get(project).map(|settings| settings.notify.clone());
        self.try_all(project, notify.unwrap_or_default(), now).await
    }

    /// Tries one URL, as a webhook.
    pub async fn test_url(
        &self,
        project: &str,
        url: SecretUrl,
        format: Option<Format>,
        now: Timestamp,
    ) -> Vec<NotifyTested> {
        let format = format.unwrap_or_else(|| Format::of_host(&url.host()));
        let webhook = Webhook { url, format, on: Default::default() };
        self.try_all(project, Notify { webhooks: vec![webhook], heartbeat: None }, now).await
    }

    async fn try_all(&self, project: &str, notify: Notify, now: Timestamp) -> Vec<NotifyTested> {
        let Notify { webhooks, heartbeat } = notify;
        let mut calls: Vec<(String, SecretUrl, Call)> = webhooks
            .into_iter()
            .map(|Webhook { url, format, .. }| {
                let body = render::test_body(format, project, &self.host, now);
                (format.to_string(), url, Call::Post(body))
            })
            .collect();
        calls.extend(heartbeat.map(|Heartbeat { url, .. }| ("heartbeat".to_owned(), url, Call::Get)));
        let mut trying = JoinSet::new();
        for (place, (kind, url, what)) in calls.into_iter().enumerate() {
            trying.spawn(async move { (place, tested(kind, &url, call(&url, what).await)) });
        }
        let mut tested = trying.join_all().await;
        tested.sort_by_key(|(place, _)| *place);
        tested.into_iter().map(|(_, one)| one).collect()
    }
}

fn tested(kind: String, url: &SecretUrl, result: Result<u16, Trouble>) -> NotifyTested {
    let target = url.to_string();
    match result {
        Ok(status) => {
            NotifyTested { kind, target, accepted: true, status: Some(status), ..NotifyTested::default() }
        }
        Err(trouble) => NotifyTested {
            kind,
            target,
            accepted: false,
            status: trouble.status,
            error: Some(trouble.text),
            hint: Some(trouble.hint.to_owned()),
        },
    }
}
