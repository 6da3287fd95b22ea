//! Calling URLs that strangers serve: HTTPS with this host's certificate authorities, through its proxies.
//!
//! Owns: the client, its time-outs, and what an answer means. Never: says a URL in an error, follows a redirect (a
//! secret would go elsewhere), or reads more of an answer than is shown.

use std::{sync::OnceLock, time::Duration};

use bulsa_core::notify::{SecretUrl, outbox::Failure};
use reqwest::{Client, Method, StatusCode, header, redirect};

/// How long a connection may take, name look-up and TLS included.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long a call may take in all.
pub(super) const CALL_MAX: Duration = Duration::from_secs(10);
/// So much of an answer's body is read, in bytes.
const BODY_READ_MAX: usize = 1024;
/// So much of it is shown, in characters.
const BODY_SHOWN_MAX: usize = 200;
/// A part of a URL that is at least so long may be the secret in it, and is cut out of what is shown, in bytes.
const SECRET_BYTES_MIN: usize = 6;

/// Why a call was in vain.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    /// What it means for the next try.
    pub(super) failure: Failure,
    /// The status of the answer, where there was one.
    pub(super) status: Option<u16>,
    /// What is wrong.
    pub(super) text: String,
    /// What to do about it.
    pub(super) hint: &'static str,
}

/// What is called.
#[derive(Clone, Debug)]
pub(super) enum Call {
    /// A message, JSON, to a webhook.
    Post(String),
    /// A heartbeat.
    Get,
}

/// The answer to a call that was taken: its status.
///
/// # Errors
/// When nobody took it.
pub(super) async fn call(url: &SecretUrl, call: Call) -> Result<u16, Trouble> {
    let client = client().map_err(|text| Trouble {
        failure: Failure::Passing,
        status: None,
        text,
        hint: "install this host's certificate authorities (the package is often called ca-certificates)",
    })?;
    let request = match call {
        Call::Post(body) => client
            .request(Method::POST, url.expose())
            .header(header::CONTENT_TYPE, "application/json")
            .body(body),
        Call::Get => client.request(Method::GET, url.expose()),
    };
    let response = request.send().await.map_err(|error| unreachable(url, error))?;
    let status = response.status();
    if status.is_success() {
        return Ok(status.as_u16());
    }
    Err(refused(url, response).await)
}

/// The client, made at the first call: most projects tell nobody, and the authorities take memory.
fn client() -> Result<&'static Client, String> {
    static CLIENT: OnceLock<Client> = OnceLock::new();
    if let Some(client) = CLIENT.get() {
        return Ok(client);
    }
    let made = Client::builder()
        .connect_timeout(CONNECT_MAX)
        .timeout(CALL_MAX)
        .redirect(redirect::Policy::none())
        // Messages are rare, and nobody keeps a connection for a minute.
        .pool_max_idle_per_host(0)
        .user_agent(concat!("bulsa/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| format!("no HTTPS client can be made: {}", causes(&error)))?;
    Ok(CLIENT.get_or_init(|| made))
}

fn unreachable(url: &SecretUrl, error: reqwest::Error) -> Trouble {
    let error = error.without_url();
    let is_certificate = causes(&error).contains("certificate");
    let (text, hint) = if error.is_timeout() {
        let text = format!("no answer within {} s", CALL_MAX.as_secs());
        (text, "look whether this host reaches it: a firewall that drops packets looks like this")
    } else if is_certificate {
        (causes(&error), "its certificate is not valid for this host's certificate authorities and clock")
    } else if error.is_connect() {
        let text = format!("can't connect: {}", causes(&error));
        (text, "look at the host in the URL, and whether this host reaches it (HTTPS_PROXY is obeyed)")
    } else {
        (causes(&error), "try again, and look at the receiver's own log")
    };
    Trouble { failure: Failure::Passing, status: None, text: scrub(&text, url), hint }
}

/// What is below an error, each said once; the error itself where nothing is. The client's own layers say only that they
/// are there.
fn causes(error: &dyn std::error::Error) -> String {
    const LAYERS: &[&str] = &["error sending request", "client error", "builder error"];
    let mut told: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(cause) = next {
        let text = cause.to_string();
        let is_layer = LAYERS.iter().any(|layer| text.starts_with(layer));
        if !is_layer && !told.iter().any(|known| known.contains(&text)) {
            told.push(text);
        }
        next = cause.source();
    }
    if told.is_empty() { error.to_string() } else { told.join(": ") }
}

async fn refused(url: &SecretUrl, mut response: reqwest::Response) -> Trouble {
    let status = response.status();
    let asked = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    let asked = asked.and_then(retry_after);
    let failure = match status {
        StatusCode::TOO_MANY_REQUESTS => Failure::Busy(asked),
        StatusCode::SERVICE_UNAVAILABLE if asked.is_some() => Failure::Busy(asked),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY => Failure::Passing,
        status if status.is_server_error() => Failure::Passing,
        _ => Failure::Refused,
    };
    let hint = match status {
        status if status.is_redirection() => {
            "it redirects, which is not followed: write the URL that it leads to"
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::GONE => {
            "the URL is not, or no longer, a webhook there: make a new one and put it in the file"
        }
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => {
            "it does not take this form: look whether `format` is what it takes"
        }
        StatusCode::TOO_MANY_REQUESTS => "it takes no more messages for now; they are sent later",
        _ => "look at the receiver's own log",
    };
    let mut body = Vec::new();
    // What can't be read any more is not needed.
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() >= BODY_READ_MAX {
            body.truncate(BODY_READ_MAX);
            break;
        }
    }
    let body = shown(&String::from_utf8_lossy(&body), url);
    let text = if body.is_empty() {
        format!("it answered {status}")
    } else {
        format!("it answered {status}: {body}")
    };
    Trouble { failure, status: Some(status.as_u16()), text, hint }
}

/// The beginning of a body, on one line.
fn shown(body: &str, url: &SecretUrl) -> String {
    let plain: String = body.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let words = plain.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut text = scrub(&words, url);
    if let Some((end, _)) = text.char_indices().nth(BODY_SHOWN_MAX) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// A text without the URL, and without those parts of it that may be the secret.
fn scrub(text: &str, url: &SecretUrl) -> String {
    let whole = url.expose();
    let mut text = text.replace(whole, &url.to_string());
    let behind_host = whole.split_once("://").and_then(|(_, rest)| rest.split_once(['/', '?', '#']));
    let userinfo = whole.split_once("://").and_then(|(_, rest)| rest.split_once('@')).map(|(user, _)| user);
    let parts = behind_host.into_iter().flat_map(|(_, path)| path.split(['/', '?', '&', '=', '#']));
    let parts = parts.chain(userinfo.into_iter().flat_map(|user| user.split(':')));
    let mut parts: Vec<&str> = parts.filter(|part| part.len() >= SECRET_BYTES_MIN).collect();
    parts.sort_by_key(|part| std::cmp::Reverse(part.len()));
    for part in parts {
        text = text.replace(part, "…");
    }
    text
}

/// `Retry-After`: seconds, with a fraction too, or a date.
fn retry_after(value: &str) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let at = httpdate::parse_http_date(value).ok()?;
    Some(at.duration_since(std::time::SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(retry_after(" 30 "), Some(Duration::from_secs(30)));
        assert_eq!(retry_after("0.75"), Some(Duration::from_millis(750)));
        assert_eq!(retry_after("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        let soon = std::time::SystemTime::now() + Duration::from_secs(600);
        let wait = retry_after(&httpdate::fmt_http_date(soon)).unwrap();
        assert!((590..=600).contains(&wait.as_secs()), "{wait:?}");
        for wrong in ["", "soon", "-1", "NaN", "inf", "1e300"] {
            assert_eq!(retry_after(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn no_part_of_a_url_is_repeated() {
        let url =
            SecretUrl::parse("https://me:hunter22@hooks.example/services/T0123456/tok_abcdef?key=zyxwvu")
                .unwrap();
        let said = "no /services/T0123456/tok_abcdef here (zyxwvu, hunter22); see https://hooks.example/help";
        assert_eq!(scrub(said, &url), "no /…/…/… here (…, …); see https://hooks.example/help");
        assert_eq!(scrub(&format!("GET {}", url.expose()), &url), "GET https://hooks.example/…");
        assert_eq!(shown("<h1>\n  No\u{7}\tsuch\n", &url), "<h1> No such");
    }
}
