//! Building the images of services with `build`.
//!
//! Owns: choosing the builder, and what both of them are told. The Docker CLI's `buildx` builds where it is installed;
//! otherwise the context goes to the Engine's build API: to its BuildKit, and to the older builder where there is none.
//! Never: asks the daemon of Bulsa: the context is the user's, and is read with the user's rights.
//!
//! ```text
//!  build ─┬─ docker buildx build --load          (all keys)
//!         └─ tar ─▶ POST /build?version=2 ─▶ version=1   (no ssh, no secrets, no further contexts)
//! ```

mod api;
mod buildx;
mod context;
mod trace;

pub(in crate::cli) use self::context::left_out;

use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
    time::Duration,
};

use bulsa_core::{image::IgnoreError, spec::container::Build, wire::credentials::Credentials};
use tokio::sync::mpsc;

use crate::agent::images::Progress;

/// So many of the last lines are part of the error of a build that failed.
const LAST_LINES: usize = 40;
/// A line of a build's output is shown up to so many characters.
const LINE_MAX: usize = 2000;
/// A line waits this long for a listener, then it is left out.
const LINE_WAIT: Duration = Duration::from_secs(1);
/// A build may be silent for so long: a compiler can be.
const SILENCE_MAX: Duration = Duration::from_secs(3600);

/// What is built.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// The service, for messages.
    pub service: &'a str,
    /// How.
    pub build: &'a Build,
    /// The image's name: [`bulsa_core::spec::container::Container::image`].
    pub tag: &'a str,
    /// The service's `platform`.
    pub platform: Option<&'a str>,
    /// The Engine's socket; both builders use this Engine, whatever the user's Docker CLI would choose.
    pub socket: &'a Path,
    /// For private base images, by registry. `buildx` reads the user's own.
    pub credentials: &'a BTreeMap<String, Credentials>,
}

impl Order<'_> {
    /// One platform: an Engine keeps one image under a name. Several in the file are for pushing, and then the Engine's
    /// own is built.
    fn platform(&self) -> Option<&str> {
        match self.build.platforms.as_slice() {
            _ if self.platform.is_some() => self.platform,
            [one] => Some(one),
            _ => None,
        }
    }

    /// Whether the context is not a directory of this machine: `https://…`, `git@…`.
    fn is_remote(&self) -> bool {
        let context = &self.build.context;
        ["http://", "https://", "git://", "ssh://", "git@", "github.com/"]
            .iter()
            .any(|start| context.starts_with(start))
    }
}

/// What builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Builder {
    /// `docker buildx build`
    Buildx,
    /// The Engine's build API.
    Engine,
}

/// An image that was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// Its name.
    pub tag: String,
    /// Its id, where the builder said so.
    pub id: Option<String>,
}

/// Why a service's image was not built. What ran before runs on.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The Dockerfile or a step of it.
    #[error("the image of `{service}` can't be built: {detail}{}", tail(.last))]
    Failed {
        /// The service.
        service: String,
        /// What the builder says.
        detail: String,
        /// The end of its output.
        last: Vec<String>,
    },
    /// Keys that only `buildx` can do.
    #[error(
        "the image of `{service}` can't be built with the Engine alone: `build.{key}` needs the Docker CLI with buildx; install the package docker-buildx-plugin (Docker's) or docker-buildx (Debian's and Ubuntu's)"
    )]
    NeedsBuildx {
        /// The service.
        service: String,
        /// The key.
        key: &'static str,
    },
    /// The context isn't there.
    #[error("the build context of `{service}` can't be read: {}: {source}", path.display())]
    Context {
        /// The service.
        service: String,
        /// What can't be read.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The `.dockerignore` can't be understood.
    #[error("{}: {source}", path.display())]
    Ignore {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: IgnoreError,
    },
    /// The builder can't be used.
    #[error("the image of `{service}` can't be built: {what}: {detail}")]
    Unusable {
        /// The service.
        service: String,
        /// Which, or what of it.
        what: String,
        /// Why not.
        detail: String,
    },
}

fn tail(last: &[String]) -> String {
    if last.is_empty() { String::new() } else { format!("\n  {}", last.join("\n  ")) }
}

/// Which builder this machine has.
pub async fn builder() -> Builder {
    if buildx::is_there().await { Builder::Buildx } else { Builder::Engine }
}

/// Compose's name for an image that the file gives none.
#[must_use]
pub fn default_tag(project: &str, service: &str) -> String {
    format!("{project}-{service}")
}

/// Builds an image and gives it its name, and those of `build.tags`.
///
/// # Errors
/// [`BuildError`]; the name means what it meant before then.
pub async fn build(
    order: &Order<'_>,
    builder: Builder,
    progress: &mpsc::Sender<Progress>,
) -> Result<Built, BuildError> {
    let mut voice = Voice::new(order.service, progress.clone());
    let id = match builder {
        Builder::Buildx => buildx::build(order, &mut voice).await?,
        Builder::Engine => api::build(order, &mut voice).await?,
    };
    Ok(Built { tag: order.tag.to_owned(), id })
}

/// Passes a build's output on and remembers its end.
#[derive(Debug)]
struct Voice {
    service: String,
    to: mpsc::Sender<Progress>,
    last: VecDeque<String>,
}

impl Voice {
    fn new(service: &str, to: mpsc::Sender<Progress>) -> Self {
        Self { service: service.to_owned(), to, last: VecDeque::new() }
    }

    /// One line of output; blank ones are left out.
    async fn say(&mut self, line: &str) {
        let text: String = line.trim_end().chars().take(LINE_MAX).collect();
        if text.is_empty() {
            return;
        }
        if self.last.len() == LAST_LINES {
            self.last.pop_front();
        }
        self.last.push_back(text.clone());
        let progress = Progress { service: self.service.clone(), text, done: None, total: None };
        // The end of the output is in the error, if there is one.
        self.to.send_timeout(progress, LINE_WAIT).await.ok();
    }

    fn failed(&mut self, detail: &str) -> BuildError {
        let last = self.last.drain(..).collect();
        BuildError::Failed { service: self.service.clone(), detail: detail.trim().to_owned(), last }
    }

    fn unusable(&self, what: impl Into<String>, detail: impl ToString) -> BuildError {
        BuildError::Unusable { service: self.service.clone(), what: what.into(), detail: detail.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_of_the_output_is_part_of_the_error() {
        let (to, mut heard) = mpsc::channel(1000);
        let mut voice = Voice::new("web", to);
        for at in 0..100 {
            voice.say(&format!("line {at}\n")).await;
            voice.say("\n").await;
        }
        let error = voice.failed("a step failed\n").to_string();
        assert!(
            error.starts_with("the image of `web` can't be built: a step failed\n  line 60\n"),
            "{error}"
        );
        assert!(error.ends_with("line 99"), "{error}");
        assert_eq!(heard.recv().await.unwrap().text, "line 0");
        assert_eq!(heard.len(), 99);
    }

    #[test]
    fn one_platform_is_built() {
        let order = |build: &Build, platform: Option<&'static str>| {
            let none = BTreeMap::new();
            let (service, tag, socket) = ("web", "web", Path::new("/"));
            let order = Order { service, build, tag, platform, socket, credentials: &none };
            order.platform().map(str::to_owned)
        };
        let platforms = |names: &[&str]| Build {
            platforms: names.iter().map(|name| (*name).to_owned()).collect(),
            ..Build::default()
        };
        assert_eq!(order(&platforms(&["linux/arm64"]), None).as_deref(), Some("linux/arm64"));
        assert_eq!(order(&platforms(&["linux/arm64", "linux/amd64"]), None), None);
        assert_eq!(order(&platforms(&["a/b", "c/d"]), Some("c/d")).as_deref(), Some("c/d"));
    }
}
