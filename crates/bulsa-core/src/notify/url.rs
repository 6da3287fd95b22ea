//! A URL that nobody may read who sees a log, an event or a status.
//!
//! Owns: which URLs are taken, and how one is shown. Never: shows more than scheme, host and port.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A URL is at most this long, in bytes.
const URL_BYTES_MAX: usize = 2048;

/// A URL of `http` or `https`. Both its forms of printing show the host only; [`SecretUrl::expose`] is for whoever
/// calls it and for the store.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretUrl(String);

/// Why a text is no URL that can be called. It never says the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Nothing, as an unset variable leaves it.
    #[error("is empty")]
    Empty,
    /// Too long.
    #[error("is longer than {URL_BYTES_MAX} bytes")]
    Long,
    /// Not HTTP.
    #[error("is no URL of http:// or https://")]
    Scheme,
    /// It doesn't parse.
    #[error("can't be read as a URL")]
    Malformed,
}

impl SecretUrl {
    /// Reads one.
    ///
    /// # Errors
    /// When it is none that can be called.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        if text.is_empty() {
            return Err(UrlError::Empty);
        }
        if text.len() > URL_BYTES_MAX {
            return Err(UrlError::Long);
        }
        let lower = text.get(..8).unwrap_or(text).to_ascii_lowercase();
        if !lower.starts_with("http://") && !lower.starts_with("https://") {
            return Err(UrlError::Scheme);
        }
        if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(UrlError::Malformed);
        }
        let url = url::Url::parse(text).map_err(|_| UrlError::Malformed)?;
        if url.host_str().is_none_or(str::is_empty) {
            return Err(UrlError::Malformed);
        }
        Ok(Self(text.to_owned()))
    }

    /// The whole of it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Its host, in lower case; empty for one that was stored and can't be read.
    #[must_use]
    pub fn host(&self) -> String {
        url::Url::parse(&self.0).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default()
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(url) = url::Url::parse(&self.0) else { return f.write_str("a URL that can't be read") };
        write!(f, "{}://{}", url.scheme(), url.host_str().unwrap_or_default())?;
        if let Some(port) = url.port() {
            write!(f, ":{port}")?;
        }
        let hides = url.path() != "/" || url.query().is_some() || url.fragment().is_some();
        f.write_str(if hides { "/…" } else { "/" })
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretUrl({self})")
    }
}
