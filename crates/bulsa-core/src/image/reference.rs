//! An image's name, read as Docker reads it.
//!
//! Owns: Docker's rules for what is a registry, a repository, a tag and a digest, with its defaults (`docker.io`,
//! `library/`, `latest`). Never: decides whether such an image exists.
//!
//! The grammar is that of the `reference` package of the distribution project: the first part of a name is a registry
//! if it has a `.` or a `:`, is `localhost`, or has an upper-case letter.

use std::fmt;

/// The registry that a name without one means.
pub const HUB: &str = "docker.io";
/// Its older name, which means the same.
const HUB_ALIAS: &str = "index.docker.io";
/// A name is at most so long, in bytes, registry included.
const NAME_MAX: usize = 255;
/// A tag is at most so long, in bytes.
const TAG_MAX: usize = 128;

/// An image's name, taken apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// `host[:port]`; [`HUB`] where the name has none.
    pub registry: String,
    /// The path in the registry, `library/` included.
    pub repository: String,
    /// The tag; `latest` where there is neither a tag nor a digest.
    pub tag: Option<String>,
    /// `sha256:…`
    pub digest: Option<String>,
}

/// Why something is no image's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Nothing is there.
    #[error("an image's name is empty")]
    Empty,
    /// Upper-case letters in the path.
    #[error("`{0}` is no image's name: the part after the registry must be lower case, like `{lower}`", lower = .0.to_lowercase())]
    UpperCase(String),
    /// Too long.
    #[error("an image's name has at most {NAME_MAX} characters, and `{0}` has more")]
    TooLong(String),
    /// Anything else.
    #[error(
        "`{name}` is no image's name: {part} can't be `{found}`; names look like `shop:1.4` or `registry.example:5000/team/shop:1.4`"
    )]
    Malformed {
        /// The whole.
        name: String,
        /// Which part of it.
        part: &'static str,
        /// What stands there.
        found: String,
    },
}

/// Whether this names an image by its id: `sha256:` and 64 hexadecimal digits, or the digits alone.
#[must_use]
pub fn is_image_id(name: &str) -> bool {
    is_hex64(name.strip_prefix("sha256:").unwrap_or(name))
}

fn is_hex64(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

impl Reference {
    /// Takes a name apart.
    ///
    /// # Errors
    /// If it isn't one by Docker's grammar; an image's id ([`is_image_id`]) isn't.
    pub fn parse(name: &str) -> Result<Self, ReferenceError> {
        if name.is_empty() {
            return Err(ReferenceError::Empty);
        }
        let malformed = |part, found: &str| ReferenceError::Malformed {
            name: name.to_owned(),
            part,
            found: found.to_owned(),
        };
        if is_hex64(name) {
            return Err(malformed("the name", "64 hexadecimal digits"));
        }
        let (rest, digest) = match name.split_once('@') {
            Some((rest, digest)) if is_digest(digest) => (rest, Some(digest.to_owned())),
            Some((_, digest)) => return Err(malformed("the digest after `@`", digest)),
            None => (name, None),
        };
        // A colon after the last slash begins a tag; one before it belongs to the registry's port.
        let after_slash = rest.rfind('/').map_or(0, |at| at + 1);
        let (path, tag) = match rest[after_slash..].find(':') {
            Some(at) => (&rest[..after_slash + at], Some(&rest[after_slash + at + 1..])),
            None => (rest, None),
        };
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(malformed("the tag after `:`", tag));
        }
        let (registry, repository) = split_registry(path);
        if !is_registry(registry) {
            return Err(malformed("the registry", registry));
        }
        if repository.chars().any(|letter| letter.is_ascii_uppercase()) {
            return Err(ReferenceError::UpperCase(name.to_owned()));
        }
        if let Some(part) = repository.split('/').find(|part| !is_component(part)) {
            return Err(malformed("a part of the path", part));
        }
        if registry.len() + 1 + repository.len() > NAME_MAX {
            return Err(ReferenceError::TooLong(name.to_owned()));
        }
        let repository = if registry == HUB && !repository.contains('/') {
            format!("library/{repository}")
        } else {
            repository.to_owned()
        };
        let tag = tag.or(if digest.is_none() { Some("latest") } else { None }).map(str::to_owned);
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }

    /// The name without a tag that means nothing: beside a digest.
    #[must_use]
    pub fn without_idle_tag(self) -> Self {
        Self { tag: self.tag.filter(|_| self.digest.is_none()), ..self }
    }

    /// The name without tag and digest, as Docker shows it: without its defaults.
    #[must_use]
    pub fn familiar(&self) -> String {
        if self.registry != HUB {
            return format!("{}/{}", self.registry, self.repository);
        }
        self.repository.strip_prefix("library/").unwrap_or(&self.repository).to_owned()
    }

    /// What the Engine is asked for: by digest where there is one (a tag beside it means nothing to it).
    #[must_use]
    pub fn to_engine(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => format!("{}@{digest}", self.familiar()),
            (None, Some(tag)) => format!("{}:{tag}", self.familiar()),
            (None, None) => self.familiar(),
        }
    }

    /// Under which key `~/.docker/config.json` and its helpers have the registry's credentials.
    #[must_use]
    pub fn credentials_key(&self) -> &str {
        if self.registry == HUB { "https://index.docker.io/v1/" } else { &self.registry }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_engine())
    }
}

fn split_registry(path: &str) -> (&str, &str) {
    match path.split_once('/') {
        Some((HUB | HUB_ALIAS, rest)) => (HUB, rest),
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.chars().any(|letter| letter.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (HUB, path),
    }
}

/// `host`, `host:port`, `[::1]:port`
fn is_registry(registry: &str) -> bool {
    let (host, port) = match registry.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => {
            return address.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':')
                && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
        }
        None => match registry.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (registry, None),
        },
    };
    port.is_none_or(is_port)
        && host.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        })
}

fn is_port(port: &str) -> bool {
    !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
}

/// Lower-case letters and digits, with `.`, `_`, `__` or any number of `-` between them.
fn is_component(part: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let separators = part.split(|letter: char| letter.is_ascii() && alphanumeric(letter as u8));
    part.bytes().next().is_some_and(alphanumeric)
        && part.bytes().last().is_some_and(alphanumeric)
        && separators.into_iter().all(|separator| {
            matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-')
        })
}

fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= TAG_MAX
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-')
}

fn is_digest(digest: &str) -> bool {
    match digest.split_once(':') {
        Some(("sha256", hex)) => is_hex64(hex),
        Some(("sha512", hex)) => hex.len() == 128 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(name: &str) -> String {
        match Reference::parse(name) {
            Ok(Reference { registry, repository, tag, digest }) => {
                format!("{registry} {repository} {} {}", tag.unwrap_or_default(), digest.unwrap_or_default())
                    .trim()
                    .to_owned()
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn names_get_dockers_defaults() {
        for (name, is) in [
            ("nginx", "docker.io library/nginx latest"),
            ("nginx:1.27-alpine", "docker.io library/nginx 1.27-alpine"),
            ("docker.io/nginx", "docker.io library/nginx latest"),
            ("index.docker.io/library/nginx", "docker.io library/nginx latest"),
            ("team/shop:1", "docker.io team/shop 1"),
            ("ghcr.io/team/shop", "ghcr.io team/shop latest"),
            ("localhost/shop", "localhost shop latest"),
            ("localhost:5000/shop:x", "localhost:5000 shop x"),
            ("127.0.0.1:5000/a/b/c:d", "127.0.0.1:5000 a/b/c d"),
            ("[::1]:5000/shop", "[::1]:5000 shop latest"),
            ("Host/shop", "Host shop latest"),
            ("my__shop-v--2.x", "docker.io library/my__shop-v--2.x latest"),
            ("5000:5000", "docker.io library/5000 5000"),
        ] {
            assert_eq!(shown(name), is, "{name}");
        }
    }

    #[test]
    fn a_digest_stands_beside_a_tag_or_alone() {
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(shown(&format!("shop@{digest}")), format!("docker.io library/shop  {digest}"));
        let both = Reference::parse(&format!("localhost:5000/shop:1@{digest}")).unwrap();
        assert_eq!((both.tag.as_deref(), both.digest.as_deref()), (Some("1"), Some(digest.as_str())));
        assert_eq!(both.to_engine(), format!("localhost:5000/shop@{digest}"));
        assert_eq!(
            both.without_idle_tag(),
            Reference::parse(&format!("localhost:5000/shop@{digest}")).unwrap()
        );
        let tagged = Reference::parse("shop:1").unwrap();
        assert_eq!(tagged.clone().without_idle_tag(), tagged);
    }

    #[test]
    fn what_is_no_name_is_refused_and_says_where() {
        for (name, says) in [
            ("", "is empty"),
            ("Shop:1", "must be lower case, like `shop:1`"),
            ("team/Shop", "must be lower case, like `team/shop`"),
            ("shop:", "the tag after `:` can't be ``"),
            ("shop:-1", "the tag after `:` can't be `-1`"),
            ("a//b", "a part of the path can't be ``"),
            ("/shop", "a part of the path can't be ``"),
            ("shop@sha256:12", "the digest after `@` can't be `sha256:12`"),
            ("a___b", "a part of the path can't be `a___b`"),
            ("ä", "a part of the path can't be `ä`"),
            ("-x.y/shop", "the registry can't be `-x.y`"),
            ("x:y/shop", "the registry can't be `x:y`"),
        ] {
            assert!(shown(name).contains(says), "{name}: {}", shown(name));
        }
        assert!(shown(&"a".repeat(64)).contains("64 hexadecimal"));
        assert!(shown(&"x/".repeat(130)).contains("can't be ``"));
        assert!(shown(&format!("{}x", "x/".repeat(130))).contains("at most 255"));
    }

    #[test]
    fn the_engine_is_asked_by_the_short_name() {
        assert_eq!(Reference::parse("docker.io/library/nginx:1").unwrap().to_engine(), "nginx:1");
        assert_eq!(Reference::parse("docker.io/team/shop").unwrap().to_engine(), "team/shop:latest");
        assert_eq!(Reference::parse("nginx").unwrap().credentials_key(), "https://index.docker.io/v1/");
        assert_eq!(Reference::parse("r.example/x").unwrap().credentials_key(), "r.example");
    }

    #[test]
    fn an_id_is_no_name() {
        let digits = "0123456789abcdef".repeat(4);
        assert!(is_image_id(&digits) && is_image_id(&format!("sha256:{digits}")));
        assert!(!is_image_id("sha256:1") && !is_image_id("shop") && !is_image_id(&digits.to_uppercase()));
    }
}
