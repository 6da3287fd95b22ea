//! What the command line knows of images: the user's credentials, and images named in a command.
//!
//! Owns: reading `~/.docker/config.json` and asking its helpers, for the registries of the images that are about to be
//! deployed and for no others. Never: stores, prints or logs a credential; they go to the agent with one request. Its
//! output is never repeated either: a helper may say more than it should.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bulsa_core::{
    image::{HUB, Reference, ReferenceError, is_image_id},
    wire::credentials::Credentials,
};
use docker_credential::{CredentialRetrievalError, DockerCredential};
use tokio::{sync::oneshot, time::timeout};

/// How long a credential helper may take; some ask their user for a password.
const HELPER_MAX: Duration = Duration::from_secs(60);
/// Credentials in Docker's own variable come before those of the file.
const AUTH_VARIABLE: &str = "DOCKER_AUTH_CONFIG";

/// The credentials that were found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// By registry, as [`Reference::registry`] has it. A registry that isn't in it is asked without any.
    pub by_registry: BTreeMap<String, Credentials>,
    /// What went wrong; the deploy goes on, and the registry says whether it matters.
    pub notes: Vec<String>,
}

/// The user's credentials for the registries of these images. What is no image's name is left to the deploy itself.
pub async fn credentials_for<'a>(images: impl IntoIterator<Item = &'a str>) -> Found {
    let registries: BTreeMap<String, String> = images
        .into_iter()
        .filter_map(|image| Reference::parse(image).ok())
        .map(|reference| (reference.registry.clone(), reference.credentials_key().to_owned()))
        .collect();
    let mut found = Found::default();
    for (registry, key) in registries {
        match ask(key).await {
            Ok(Some(credentials)) => {
                found.by_registry.insert(registry, credentials);
            }
            Ok(None) => {}
            Err(why) => found.notes.push(format!(
                "no credentials for {}: {why}; going on without them",
                if registry == HUB { "Docker Hub" } else { &registry }
            )),
        }
    }
    found
}

/// A thread of its own: the helper's end is waited for without a limit there, and the command isn't held up by it.
async fn ask(key: String) -> Result<Option<Credentials>, String> {
    let (sender, answer) = oneshot::channel();
    let asking = std::thread::Builder::new().name("credentials".to_owned()).spawn(move || {
        // Nobody may wait any more.
        sender.send(look_up(&key)).ok();
    });
    asking.map_err(|error| format!("no thread can be started ({error})"))?;
    match timeout(HELPER_MAX, answer).await {
        Ok(Ok(answer)) => sort(answer),
        Ok(Err(_)) => Err("the credential helper could not be asked".to_owned()),
        Err(_) => Err(format!("the credential helper did not answer within {} s", HELPER_MAX.as_secs())),
    }
}

fn look_up(key: &str) -> Result<DockerCredential, CredentialRetrievalError> {
    if let Ok(text) = std::env::var(AUTH_VARIABLE)
        && let Ok(credential) = docker_credential::get_credential_from_reader(text.as_bytes(), key)
    {
        return Ok(credential);
    }
    docker_credential::get_credential(key)
}

/// What isn't configured is no error; what is configured and fails is one.
fn sort(answer: Result<DockerCredential, CredentialRetrievalError>) -> Result<Option<Credentials>, String> {
    use CredentialRetrievalError as E;
    match answer {
        Ok(DockerCredential::UsernamePassword(username, password)) => {
            Ok(Some(Credentials { username, password, identity_token: None }))
        }
        Ok(DockerCredential::IdentityToken(token)) => {
            Ok(Some(Credentials { identity_token: Some(token), ..Credentials::default() }))
        }
        // A file that isn't there and one that can't be read are the same to the library.
        Err(E::NoCredentialConfigured | E::ConfigNotFound | E::ConfigReadError) => Ok(None),
        // The sentence that Docker's own helpers agreed on.
        Err(E::HelperFailure { stdout, .. }) if stdout.contains("credentials not found") => Ok(None),
        Err(E::HelperFailure { helper, .. }) => Err(format!("`docker-credential-{helper} get` failed")),
        Err(E::HelperCommunicationError) => {
            Err("the credential helper named in Docker's config.json can't be run".to_owned())
        }
        Err(E::MalformedHelperResponse) => Err("the credential helper's answer can't be read".to_owned()),
        Err(E::CredentialDecodingError | E::CredentialMismatchError) => {
            Err("Docker's config.json has an entry that can't be read".to_owned())
        }
    }
}

/// One word of `bulsa deploy`: `SERVICE` or `SERVICE=IMAGE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceWord {
    /// The service.
    pub service: String,
    /// The image that it gets instead of the file's.
    pub image: Option<String>,
}

/// Why a word isn't one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WordError {
    /// `=IMAGE`
    #[error("`{0}` names no service; it should look like `web=shop:1.5`")]
    NoService(String),
    /// Two images for one service.
    #[error("`{0}` is named twice")]
    Twice(String),
    /// What follows the `=`.
    #[error("`{word}`: {source}")]
    Image {
        /// The word.
        word: String,
        /// What is wrong with it.
        source: ReferenceError,
    },
}

/// Reads the words of `bulsa deploy`.
///
/// # Errors
/// At the first word that is none, or names a service again.
pub fn service_words(words: &[String]) -> Result<Vec<ServiceWord>, WordError> {
    let mut seen = BTreeSet::new();
    words
        .iter()
        .map(|word| {
            let read = service_word(word)?;
            if seen.insert(read.service.clone()) { Ok(read) } else { Err(WordError::Twice(read.service)) }
        })
        .collect()
}

fn service_word(word: &str) -> Result<ServiceWord, WordError> {
    let (service, image) = match word.split_once('=') {
        Some((service, image)) => (service, Some(image)),
        None => (word, None),
    };
    if service.is_empty() {
        return Err(WordError::NoService(word.to_owned()));
    }
    if let Some(image) = image
        && !is_image_id(image)
    {
        Reference::parse(image).map_err(|source| WordError::Image { word: word.to_owned(), source })?;
    }
    Ok(ServiceWord { service: service.to_owned(), image: image.map(str::to_owned) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Result<Vec<ServiceWord>, String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        service_words(&words).map_err(|error| error.to_string())
    }

    #[test]
    fn a_word_names_a_service_and_perhaps_an_image() {
        let word = |service: &str, image: Option<&str>| ServiceWord {
            service: service.to_owned(),
            image: image.map(str::to_owned),
        };
        assert_eq!(
            words(&["web", "api=localhost:5000/shop:1.5"]),
            Ok(vec![word("web", None), word("api", Some("localhost:5000/shop:1.5"))])
        );
        let id = format!("sha256:{}", "0".repeat(64));
        assert_eq!(words(&[&format!("web={id}")]), Ok(vec![word("web", Some(&id))]));
    }

    #[test]
    fn what_is_wrong_with_a_word_is_said() {
        assert!(words(&["=shop"]).unwrap_err().contains("names no service"));
        assert!(words(&["web="]).unwrap_err().contains("`web=`: an image's name is empty"));
        assert!(words(&["web=Shop"]).unwrap_err().contains("lower case"));
        assert!(words(&["web", "web=shop"]).unwrap_err().contains("twice"));
    }

    #[test]
    fn what_is_not_configured_is_no_error_and_a_helpers_words_are_not_repeated() {
        use CredentialRetrievalError as E;
        let failure = |stdout: &str| E::HelperFailure {
            helper: "x".to_owned(),
            stdout: stdout.to_owned(),
            stderr: "a secret".to_owned(),
        };
        assert_eq!(sort(Err(E::NoCredentialConfigured)), Ok(None));
        assert_eq!(sort(Err(E::ConfigReadError)), Ok(None));
        assert_eq!(sort(Err(failure("credentials not found in native keychain"))), Ok(None));
        assert_eq!(sort(Err(failure("a secret"))), Err("`docker-credential-x get` failed".to_owned()));
    }
}
