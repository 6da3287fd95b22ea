//! Building with the Engine's own API.
//!
//! Owns: the request, its parameters, and reading what comes back. Never: opens a session: what needs one (ssh,
//! secrets, further contexts) is refused before anything is sent.
//!
//! The request is written here and not by the Engine's client, since that one takes BuildKit's messages for errors.
//! Parameters are those of `POST /build` in the Engine's API 1.41.

use std::io;

use base64::{Engine as _, engine::general_purpose::URL_SAFE};
use bulsa_core::spec::container::{Build, Ulimit};
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::UnixStream, sync::mpsc, task::JoinHandle, time::timeout};

use super::{BuildError, Order, SILENCE_MAX, Voice, context::Context, trace::Trace};
use crate::cli::pack::PIECES_WAITING;

/// A line of the answer is at most this long, in bytes: BuildKit puts a step's whole output so far in one.
const ANSWER_LINE_MAX: usize = 8 << 20;
/// An error's text is at most this long, in bytes.
const ERROR_MAX: usize = 64 << 10;

/// The Engine's builders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    Classic = 1,
    BuildKit = 2,
}

/// Builds; gives the image's id.
pub(super) async fn build(order: &Order<'_>, voice: &mut Voice) -> Result<Option<String>, BuildError> {
    if let Some(key) = beyond(order.build) {
        return Err(BuildError::NeedsBuildx { service: order.service.to_owned(), key });
    }
    if order.is_remote() && order.build.dockerfile_inline.is_some() {
        return Err(BuildError::NeedsBuildx {
            service: order.service.to_owned(),
            key: "dockerfile_inline` with a remote `context",
        });
    }
    match attempt(order, Version::BuildKit, voice).await? {
        Outcome::Built(id) => Ok(id),
        Outcome::NoSuchBuilder(why) => {
            voice.say(&format!("the Engine has no BuildKit ({why}); building with its older builder")).await;
            match attempt(order, Version::Classic, voice).await? {
                Outcome::Built(id) => Ok(id),
                Outcome::NoSuchBuilder(why) => Err(voice.failed(&why)),
            }
        }
    }
}

/// The first key that the API can't do without a session.
fn beyond(build: &Build) -> Option<&'static str> {
    let keys = [
        ("ssh", !build.ssh.is_empty()),
        ("secrets", !build.secrets.is_empty()),
        ("additional_contexts", !build.additional_contexts.is_empty()),
        ("entitlements", !build.entitlements.is_empty()),
        ("privileged", build.privileged),
        ("cache_to", !build.cache_to.is_empty()),
    ];
    keys.into_iter().find(|(_, is_set)| *is_set).map(|(key, _)| key)
}

enum Outcome {
    Built(Option<String>),
    NoSuchBuilder(String),
}

async fn attempt(order: &Order<'_>, version: Version, voice: &mut Voice) -> Result<Outcome, BuildError> {
    let (pieces, body) = mpsc::channel(PIECES_WAITING);
    let (dockerfile, sending) = if order.is_remote() {
        drop(pieces);
        (order.build.dockerfile.clone(), None)
    } else {
        let context = Context::open(order)?;
        let dockerfile = context.dockerfile.clone();
        (Some(dockerfile), Some(tokio::task::spawn_blocking(move || context.send(&pieces))))
    };
    let result = exchange(order, version, dockerfile.as_deref(), body, voice).await;
    match (result, sent(sending, voice).await) {
        (Ok(outcome), _) => Ok(outcome),
        // A context that could not be read is why the Engine complained.
        (Err(_), Err(error)) | (Err(error), Ok(())) => Err(error),
    }
}

/// The body was dropped by now, so the one who writes it is at its end.
async fn sent(sending: Option<JoinHandle<Result<(), BuildError>>>, voice: &Voice) -> Result<(), BuildError> {
    match sending {
        None => Ok(()),
        Some(sending) => sending.await.map_err(|error| voice.unusable("the context", error))?,
    }
}

async fn exchange(
    order: &Order<'_>,
    version: Version,
    dockerfile: Option<&str>,
    mut body: mpsc::Receiver<io::Result<Bytes>>,
    voice: &mut Voice,
) -> Result<Outcome, BuildError> {
    let lost = |voice: &Voice, error: &dyn ToString| {
        voice.unusable(format!("the Docker Engine at {}", order.socket.display()), error.to_string())
    };
    let stream = UnixStream::connect(order.socket).await.map_err(|error| lost(voice, &error))?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| lost(voice, &error))?;
    // It ends with the exchange; what went wrong in it is seen there.
    let connection = tokio::spawn(connection);
    let frames = stream::poll_fn(move |context| body.poll_recv(context));
    let frames = futures_util::TryStreamExt::map_ok(frames, Frame::data);
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("/build?{}", query(order, version, dockerfile)))
        .header(header::HOST, "docker")
        .header(header::CONTENT_TYPE, "application/x-tar");
    let mut request =
        request.body(StreamBody::new(frames)).map_err(|error| voice.unusable("the request", error))?;
    if let Some(credentials) = credentials(order) {
        request.headers_mut().insert("X-Registry-Config", credentials);
    }
    let result = match timeout(SILENCE_MAX, sender.send_request(request)).await {
        Err(_) => Err(lost(voice, &"no answer")),
        Ok(Err(error)) => Err(lost(voice, &error)),
        Ok(Ok(answer)) if answer.status() == StatusCode::OK => read(answer, voice).await.map(Outcome::Built),
        Ok(Ok(answer)) => refused(answer, version, voice).await,
    };
    connection.abort();
    result
}

/// The Engine didn't begin: it has no such builder, or doesn't like the request.
async fn refused(
    answer: Response<Incoming>,
    version: Version,
    voice: &mut Voice,
) -> Result<Outcome, BuildError> {
    let status = answer.status();
    let text = match Limited::new(answer.into_body(), ERROR_MAX).collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        Err(error) => error.to_string(),
    };
    let message = serde_json::from_str::<Value>(&text)
        .ok()
        .and_then(|answer| answer["message"].as_str().map(str::to_owned))
        .unwrap_or(text);
    let names_it = ["buildkit", "invalid version"].iter().any(|word| message.to_lowercase().contains(word));
    if version == Version::BuildKit && (names_it || status == StatusCode::NOT_IMPLEMENTED) {
        return Ok(Outcome::NoSuchBuilder(message));
    }
    Err(voice.failed(&message))
}

/// Reads lines of JSON until the end.
async fn read(answer: Response<Incoming>, voice: &mut Voice) -> Result<Option<String>, BuildError> {
    let mut body = answer.into_body();
    let mut waiting = BytesMut::new();
    let mut trace = Trace::default();
    let mut id = None;
    loop {
        let frame = match timeout(SILENCE_MAX, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(None) => break,
            Ok(Some(Err(error))) => return Err(voice.failed(&format!("the Engine went away: {error}"))),
            Err(_) => {
                return Err(voice.failed(&format!("nothing was heard for {} s", SILENCE_MAX.as_secs())));
            }
        };
        let Ok(data) = frame.into_data() else { continue };
        waiting.extend_from_slice(&data);
        while let Some(end) = waiting.iter().position(|byte| *byte == b'\n') {
            let line = waiting.split_to(end + 1);
            take(&line, &mut trace, &mut id, voice).await?;
        }
        if waiting.len() > ANSWER_LINE_MAX {
            return Err(voice.failed("the Engine sent a line that is too long"));
        }
    }
    take(&waiting, &mut trace, &mut id, voice).await?;
    Ok(id)
}

async fn take(
    line: &[u8],
    trace: &mut Trace,
    id: &mut Option<String>,
    voice: &mut Voice,
) -> Result<(), BuildError> {
    let Ok(line) = serde_json::from_slice::<Value>(line) else { return Ok(()) };
    if let Some(message) = line["errorDetail"]["message"].as_str().or_else(|| line["error"].as_str()) {
        return Err(voice.failed(message));
    }
    if let Some(text) = line["stream"].as_str() {
        for text in text.lines() {
            voice.say(text).await;
        }
    }
    if let Some(base64) = line["aux"].as_str() {
        for text in trace.lines(base64) {
            voice.say(&text).await;
        }
    }
    if let Some(found) = line["aux"]["ID"].as_str() {
        *id = Some(found.to_owned());
    }
    Ok(())
}

/// For the older builder's base images; BuildKit doesn't read it without a session.
fn credentials(order: &Order<'_>) -> Option<HeaderValue> {
    let entries: serde_json::Map<String, Value> = order
        .credentials
        .iter()
        .map(|(registry, given)| {
            let hub = registry == bulsa_core::image::HUB;
            let key = if hub { "https://index.docker.io/v1/" } else { registry };
            let value = match &given.identity_token {
                Some(token) => json!({ "identitytoken": token }),
                None => json!({ "username": given.username, "password": given.password }),
            };
            (key.to_owned(), value)
        })
        .collect();
    if entries.is_empty() {
        return None;
    }
    let mut value = HeaderValue::from_str(&URL_SAFE.encode(Value::Object(entries).to_string())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn query(order: &Order<'_>, version: Version, dockerfile: Option<&str>) -> String {
    let build = order.build;
    let mut query = Query::default();
    query.add("version", &(version as u8).to_string());
    for tag in std::iter::once(order.tag).chain(build.tags.iter().map(String::as_str)) {
        query.add("t", tag);
    }
    if order.is_remote() {
        query.add("remote", &build.context);
    }
    query.add_some("dockerfile", dockerfile);
    query.add_some("target", build.target.as_deref());
    query.add_some("networkmode", build.network.as_deref());
    query.add_some("platform", order.platform());
    query.add_some("isolation", build.isolation.as_deref());
    query.add_some("shmsize", build.shm_size.map(|size| size.to_string()).as_deref());
    for (name, address) in &build.extra_hosts {
        query.add("extrahosts", &format!("{name}:{address}"));
    }
    for (name, is_on) in [("nocache", build.no_cache), ("pull", build.pull), ("rm", true), ("forcerm", true)]
    {
        if is_on {
            query.add(name, "1");
        }
    }
    let ulimits =
        |(name, limit): (&String, &Ulimit)| json!({ "Name": name, "Soft": limit.soft, "Hard": limit.hard });
    for (name, value, is_empty) in [
        ("buildargs", json!(build.args), build.args.is_empty()),
        ("labels", json!(build.labels), build.labels.is_empty()),
        ("cachefrom", json!(build.cache_from), build.cache_from.is_empty()),
        ("ulimits", build.ulimits.iter().map(ulimits).collect(), build.ulimits.is_empty()),
    ] {
        if !is_empty {
            query.add(name, &value.to_string());
        }
    }
    query.0
}

/// A URL's query.
#[derive(Debug, Default)]
struct Query(String);

impl Query {
    fn add(&mut self, name: &str, value: &str) {
        if !self.0.is_empty() {
            self.0.push('&');
        }
        self.0.push_str(name);
        self.0.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                self.0.push(char::from(byte));
            } else {
                self.0.push_str(&format!("%{byte:02X}"));
            }
        }
    }

    fn add_some(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.add(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::Path};

    use bulsa_core::spec::container::BuildSecret;

    use super::*;

    fn query_of(build: &Build) -> String {
        let none = BTreeMap::new();
        let (service, tag, socket) = ("web", "shop-web", Path::new("/"));
        let order = Order { service, build, tag, platform: None, socket, credentials: &none };
        query(&order, Version::BuildKit, Some("a b/Dockerfile"))
    }

    #[test]
    fn every_key_has_its_parameter() {
        let build = Build {
            context: ".".to_owned(),
            args: [("A".to_owned(), "1 & 2".to_owned())].into(),
            target: Some("prod".to_owned()),
            labels: [("l".to_owned(), "v".to_owned())].into(),
            cache_from: vec!["shop:cache".to_owned()],
            extra_hosts: vec![("db".to_owned(), "10.0.0.1".to_owned())],
            network: Some("host".to_owned()),
            no_cache: true,
            pull: true,
            platforms: vec!["linux/amd64".to_owned()],
            shm_size: Some(1 << 20),
            tags: vec!["shop:also".to_owned()],
            ulimits: [("nofile".to_owned(), Ulimit { soft: 1, hard: 2 })].into(),
            ..Build::default()
        };
        insta::assert_snapshot!(query_of(&build).replace('&', "\n"), @r"
        version=2
        t=shop-web
        t=shop%3Aalso
        dockerfile=a%20b%2FDockerfile
        target=prod
        networkmode=host
        platform=linux%2Famd64
        shmsize=1048576
        extrahosts=db%3A10.0.0.1
        nocache=1
        pull=1
        rm=1
        forcerm=1
        buildargs=%7B%22A%22%3A%221%20%26%202%22%7D
        labels=%7B%22l%22%3A%22v%22%7D
        cachefrom=%5B%22shop%3Acache%22%5D
        ulimits=%5B%7B%22Hard%22%3A2%2C%22Name%22%3A%22nofile%22%2C%22Soft%22%3A1%7D%5D
        ");
    }

    #[test]
    fn what_needs_a_session_is_named() {
        let build = Build { ssh: vec!["default".to_owned()], ..Build::default() };
        assert_eq!(beyond(&build), Some("ssh"));
        let secret = BuildSecret::File("/a".to_owned());
        let build = Build { secrets: [("a".to_owned(), secret)].into(), ..Build::default() };
        assert_eq!(beyond(&build), Some("secrets"));
        assert_eq!(beyond(&Build::default()), None);
    }

    #[tokio::test]
    async fn an_error_in_the_stream_is_the_builds_error() {
        let (to, _heard) = mpsc::channel(10);
        let mut voice = Voice::new("web", to);
        let (mut trace, mut id) = (Trace::default(), None);
        let lines: &[&[u8]] = &[
            br#"{"stream":"Step 1/1 : FROM nothing\n"}"#,
            br#"{"id":"moby.image.id","aux":{"ID":"sha256:1"}}"#,
            b"not json",
        ];
        for line in lines {
            take(line, &mut trace, &mut id, &mut voice).await.unwrap();
        }
        assert_eq!(id.as_deref(), Some("sha256:1"));
        let line = br#"{"errorDetail":{"code":1,"message":"no such image"},"error":"no such image"}"#;
        let error = take(line, &mut trace, &mut id, &mut voice).await.unwrap_err().to_string();
        assert_eq!(error, "the image of `web` can't be built: no such image\n  Step 1/1 : FROM nothing");
    }
}
