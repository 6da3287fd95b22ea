//! One pull.
//!
//! Owns: the Engine's request, what it may take, and the credentials' way into it. Never: decides what follows.

use std::time::{Duration, Instant};

use base64::{Engine as _, engine::general_purpose::URL_SAFE};
use bollard::{Docker, query_parameters::CreateImageOptionsBuilder};
use bulsa_core::{image::Reference, room::DISK_MIN_BYTES, wire::credentials::Credentials};
use futures_util::StreamExt;
use http::HeaderValue;
use tokio::time::timeout;

use super::{
    disk::{Space, disk_free},
    progress::{Meter, Teller},
    trouble::Trouble,
};

/// How long a registry may take to begin its answer where there is an image on this host to go on with. A deploy
/// isn't to wait for the time-outs of names that nobody resolves.
const ANSWER_WITH_FALLBACK: Duration = Duration::from_secs(10);
/// The same where there is none.
const ANSWER_WITHOUT: Duration = Duration::from_secs(60);
/// How long a pull that has begun may be silent: a large layer is checked without a word.
const SILENCE_MAX: Duration = Duration::from_secs(120);

/// What is pulled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order<'a> {
    pub(super) reference: &'a Reference,
    pub(super) platform: Option<&'a str>,
    pub(super) credentials: Option<&'a Credentials>,
    /// Whether an image on this host would do.
    pub(super) has_fallback: bool,
}

/// Pulls. The Engine gives up too when this is dropped.
pub(super) async fn pull(docker: &Docker, order: &Order<'_>, teller: &Teller) -> Result<(), Trouble> {
    let reference = order.reference;
    let mut options = CreateImageOptionsBuilder::default().from_image(&reference.familiar());
    if let Some(version) = reference.digest.as_ref().or(reference.tag.as_ref()) {
        options = options.tag(version);
    }
    if let Some(platform) = order.platform {
        options = options.platform(platform);
    }
    // For how many bytes it was looked whether they find room; more of them are known as layers begin.
    let mut checked = 0;
    let asked = with_credentials(docker, order.credentials);
    let mut lines = asked.create_image(Some(options.build()), None, None);
    let mut meter = Meter::default();
    let mut limit = if order.has_fallback { ANSWER_WITH_FALLBACK } else { ANSWER_WITHOUT };
    loop {
        let line = match timeout(limit, lines.next()).await {
            Ok(Some(line)) => line.map_err(|error| Trouble::of(&error))?,
            Ok(None) => return Ok(()),
            Err(_) => return Err(Trouble::Unreachable(format!("no answer within {} s", limit.as_secs()))),
        };
        limit = SILENCE_MAX;
        if let Some(sum) = meter.take(&line, Instant::now()) {
            teller.count(sum);
            if let Some(total) = sum.total.filter(|total| *total > checked) {
                checked = total;
                has_room(docker, total.saturating_sub(sum.done.unwrap_or(0))).await?;
            }
        }
    }
}

/// Whether so many bytes may come and leave the disk what it needs. Unpacked they take more; how much, nobody knows yet.
async fn has_room(docker: &Docker, bytes: u64) -> Result<(), Trouble> {
    // A disk that can't be seen from here is nobody's reason to stop a pull.
    disk_free(docker).await.map_or(Ok(()), |space| fits(&space, bytes))
}

fn fits(space: &Space, bytes: u64) -> Result<(), Trouble> {
    let needed = bytes.saturating_add(DISK_MIN_BYTES);
    if space.free >= needed {
        return Ok(());
    }
    Err(Trouble::Other(format!(
        "{} MiB are still to come, and the Docker Engine's disk has {} MiB left in {}, of which {} MiB stay free; make \
         room, for example with `docker system df` and `docker image prune`",
        bytes >> 20,
        space.free >> 20,
        space.directory,
        DISK_MIN_BYTES >> 20
    )))
}

/// The same Engine, with the credentials in the request.
///
/// The Engine's client writes them in the usual base64, and the Engine reads the form that is safe in URLs: it drops
/// the others without a word, so passwords with a `~` or a `?` would not work. So we write the field.
fn with_credentials(docker: &Docker, credentials: Option<&Credentials>) -> Docker {
    let Some(value) = credentials.and_then(header) else { return docker.clone() };
    docker.clone().with_request_modifier(move |mut request| {
        request.headers_mut().insert("X-Registry-Auth", value.clone());
        request
    })
}

/// The field's value; never shown.
fn header(credentials: &Credentials) -> Option<HeaderValue> {
    let json = match &credentials.identity_token {
        Some(token) => serde_json::json!({ "identitytoken": token }),
        None => serde_json::json!({ "username": credentials.username, "password": credentials.password }),
    };
    let mut value = HeaderValue::from_str(&URL_SAFE.encode(json.to_string())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pull_that_would_fill_the_disk_is_given_up() {
        let space = Space { directory: "/images".to_owned(), free: DISK_MIN_BYTES + 10, total: u64::MAX };
        assert_eq!(fits(&space, 10), Ok(()));
        let Err(Trouble::Other(why)) = fits(&space, 300 << 20) else { panic!("it fits") };
        assert!(
            why.contains("300 MiB are still to come") && why.contains("256 MiB left in /images"),
            "{why}"
        );
    }

    #[test]
    fn credentials_are_written_as_the_engine_reads_them() {
        let credentials =
            Credentials { username: "u".to_owned(), password: "~~~???>>>".to_owned(), identity_token: None };
        let value = header(&credentials).unwrap();
        let text = value.to_str().unwrap();
        assert!(value.is_sensitive() && !text.contains(['+', '/']), "{text}");
        let json: serde_json::Value = serde_json::from_slice(&URL_SAFE.decode(text).unwrap()).unwrap();
        assert_eq!(json["password"], "~~~???>>>");
        let token = Credentials { identity_token: Some("t".to_owned()), ..Credentials::default() };
        let json = URL_SAFE.decode(header(&token).unwrap().to_str().unwrap()).unwrap();
        assert_eq!(json, br#"{"identitytoken":"t"}"#);
    }
}
