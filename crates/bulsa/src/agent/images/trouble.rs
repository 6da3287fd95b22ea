//! What went wrong with a pull.
//!
//! Owns: telling a registry that is away from one that doesn't know an image, one that wants a login, and the rest.
//! Never: decides what follows from it.
//!
//! The Engine gives no codes for this, only sentences: those of its own, of Go's network library and of registries.
//! The phrases below were seen from Engine 20.10 against Debian's registry, or stand in moby's `distribution/errors.go`.

use bulsa_core::image::Reference;

use super::ImageProblem;

/// A sentence of the Engine is shown up to so many characters.
const DETAIL_MAX: usize = 400;

/// Why a pull failed, with the Engine's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The registry can't be asked now: it is down, its name isn't known, it is too busy.
    Unreachable(String),
    /// The registry has no such image, or none for us: registries don't say which.
    Unknown(String),
    /// It wants a login, or doesn't like ours.
    Login(String),
    /// It has the image for other platforms only.
    Platform(String),
    /// Anything else, such as a full disk.
    Other(String),
}

/// Parts of sentences of a registry that has no such image.
const UNKNOWN: &[&str] = &[
    "manifest unknown",
    "name unknown",
    "repository does not exist",
    "repository name not known",
    " not found",
];
/// Parts of sentences of a network that doesn't get through, or of a registry that can't serve.
const UNREACHABLE: &[&str] = &[
    ": connection refused",
    ": connection reset",
    ": no such host",
    ": no route to host",
    ": network is unreachable",
    ": server misbehaving",
    ": i/o timeout",
    ": tls handshake timeout",
    ": eof",
    "unexpected eof",
    "deadline exceeded",
    "request canceled while waiting",
    "client.timeout exceeded",
    "temporary failure in name resolution",
    "proxyconnect tcp",
    "x509:",
    "tls: ",
    "server gave http response to https client",
    "toomanyrequests",
    "too many requests",
    "received unexpected http status: 5",
    "500 internal server error",
    "502 bad gateway",
    "503 service unavailable",
    "504 gateway time",
];
/// Parts of sentences of a registry that doesn't let us in.
const LOGIN: &[&str] = &[
    "no basic auth credentials",
    "unauthorized",
    "authentication required",
    "incorrect username or password",
    "authorization failed",
    "denied",
    "forbidden",
];

impl Trouble {
    /// Sorts an error of the Engine's client.
    pub(super) fn of(error: &bollard::errors::Error) -> Self {
        use bollard::errors::Error as E;
        match error {
            E::DockerResponseServerError { message, .. } | E::DockerStreamError { error: message } => {
                Self::of_sentence(message)
            }
            E::RequestTimeoutError => {
                Self::Unreachable("the Engine got no answer from it in time".to_owned())
            }
            other => Self::Other(other.to_string()),
        }
    }

    fn of_sentence(sentence: &str) -> Self {
        let detail: String = sentence.trim().chars().take(DETAIL_MAX).collect();
        let lower = sentence.to_lowercase();
        let says = |parts: &[&str]| parts.iter().any(|part| lower.contains(part));
        // The order counts: "no such host" may be about a host called `denied.example`, and "denied: repository does
        // not exist" is about the repository.
        if lower.contains("no space left on device") {
            Self::Other(detail)
        } else if lower.contains("no matching manifest") {
            Self::Platform(detail)
        } else if says(UNREACHABLE) {
            Self::Unreachable(detail)
        } else if says(UNKNOWN) {
            Self::Unknown(detail)
        } else if says(LOGIN) {
            Self::Login(detail)
        } else {
            Self::Other(detail)
        }
    }

    /// As the end of it, where no image on this host helps.
    pub(super) fn problem(self, reference: &Reference, platform: Option<&str>) -> ImageProblem {
        let image = reference.to_engine();
        let registry = reference.registry.clone();
        match self {
            Self::Unreachable(detail) => ImageProblem::Unreachable { image, registry, detail },
            Self::Unknown(detail) => ImageProblem::Unknown { image, registry, detail },
            Self::Login(detail) => ImageProblem::Login { image, registry, detail },
            Self::Platform(_) => ImageProblem::Platform {
                image,
                wanted: platform.unwrap_or("this host's").to_owned(),
                found: "other platforms only".to_owned(),
            },
            Self::Other(detail) => ImageProblem::Pull { image, detail },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engines_sentences_are_told_apart() {
        type Kind = fn(String) -> Trouble;
        let cases: &[(Kind, &str)] = &[
            (
                Trouble::Unknown,
                "manifest for 127.0.0.1:5000/nope:1 not found: manifest unknown: manifest unknown",
            ),
            (
                Trouble::Unknown,
                "pull access denied for shop, repository does not exist or may require 'docker login': denied: requested access to the resource is denied",
            ),
            (Trouble::Login, r#"Head "http://127.0.0.1:5000/v2/x/manifests/1": no basic auth credentials"#),
            (Trouble::Login, "unauthorized: authentication required"),
            (Trouble::Login, r#"Head "https://ghcr.io/v2/x/manifests/1": denied"#),
            (
                Trouble::Unreachable,
                r#"Get "http://127.0.0.1:5993/v2/": dial tcp 127.0.0.1:5993: connect: connection refused"#,
            ),
            (
                Trouble::Unreachable,
                r#"Get "https://denied.example/v2/": dial tcp: lookup denied.example on 10.0.0.1:53: no such host"#,
            ),
            (Trouble::Unreachable, "toomanyrequests: You have reached your pull rate limit."),
            (Trouble::Platform, "no matching manifest for linux/arm64/v8 in the manifest list entries"),
            (Trouble::Other, "write /var/lib/docker/tmp/x: no space left on device"),
        ];
        for (kind, sentence) in cases {
            assert_eq!(Trouble::of_sentence(sentence), kind((*sentence).to_owned()));
        }
    }

    #[test]
    fn a_long_sentence_is_cut() {
        let Trouble::Other(detail) = Trouble::of_sentence(&"x".repeat(10_000)) else {
            panic!("another kind")
        };
        assert_eq!(detail.len(), DETAIL_MAX);
    }
}
