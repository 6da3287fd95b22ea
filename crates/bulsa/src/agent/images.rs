//! Images on the docker engine: which image a release means, and getting it here.
//!
//! Owns: pulling by policy with its limits and its progress, what is known of an image once it is here, pruning the
//! images of old releases, and the free space where images go. Never: reads credentials (the command line sends them
//! along), stores or logs them, builds (the command line does), or forces anything away.
//!
//! ```text
//!  Wanted ─▶ inspect ─▶ core's table ─┬─ Local ──────────────────────────▶ facts
//!                                     ├─ Pull / PullOrLocal ─▶ pull ─▶ inspect ─▶ facts
//!                                     │       └ the registry is away, or doesn't know it ─▶ the local one, with a note
//!                                     └─ Missing ─▶ a problem
//! ```

mod disk;
mod facts;
mod progress;
mod prune;
mod pull;
mod trouble;

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use bollard::Docker;
use bulsa_core::{
    image::{Reference, ReferenceError, Situation, Step, is_image_id, step},
    spec::{
        Role,
        container::{Container, ImageFacts},
    },
    wire::credentials::Credentials,
};
use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;

pub use self::{
    disk::{Space, disk_free, disk_problem},
    progress::Progress,
    prune::{Candidate, Fate, prune},
};
use self::{
    facts::Local,
    progress::{Teller, short},
    pull::{Order, pull},
    trouble::Trouble,
};

/// So many pulls run at once: as many as Docker itself fetches layers.
const PULLS_AT_ONCE: usize = 3;

/// An image that a service needs.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// The service.
    pub service: &'a str,
    /// How its replicas are made.
    pub container: &'a Container,
    /// Its role, which decides whether a tag is pulled again.
    pub role: Role,
    /// `--no-pull`
    pub no_pull: bool,
    /// What the image's registry is given.
    pub credentials: Option<Credentials>,
}

/// The image that a service gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// What is known of it; `facts.id` pins it.
    pub facts: ImageFacts,
    /// Why the image on this host was taken although it should have been pulled. It was sent as progress too.
    pub note: Option<String>,
}

/// Why a service has no image. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageProblem {
    /// What the file says is no image's name.
    #[error(transparent)]
    NotAName(#[from] ReferenceError),
    /// It isn't here and may not be pulled.
    #[error("there is no image `{image}` on this host, and {why}; build it, load it, or let it be pulled")]
    Missing {
        /// The image.
        image: String,
        /// Why it isn't pulled.
        why: String,
    },
    /// The registry can't be asked, and there is none on this host.
    #[error("`{image}` is not on this host, and its registry {registry} can't be asked: {detail}")]
    Unreachable {
        /// The image.
        image: String,
        /// Its registry.
        registry: String,
        /// What happened.
        detail: String,
    },
    /// The registry has none, or says so to us, and there is none on this host.
    #[error(
        "`{image}` is neither on this host nor known to its registry {registry}: {detail}; if it is private, run `docker login{login}` as the user who deploys",
        login = login_argument(registry)
    )]
    Unknown {
        /// The image.
        image: String,
        /// Its registry.
        registry: String,
        /// What it said.
        detail: String,
    },
    /// The registry doesn't let us in.
    #[error(
        "the registry {registry} doesn't let us have `{image}`: {detail}; run `docker login{login}` as the user who deploys, or deploy with `--no-pull` to take the image that is on this host",
        login = login_argument(registry)
    )]
    Login {
        /// The image.
        image: String,
        /// The registry.
        registry: String,
        /// What it said.
        detail: String,
    },
    /// It isn't made for the wanted platform.
    #[error("`{image}` is for {found}, and its service wants `platform: {wanted}`")]
    Platform {
        /// The image.
        image: String,
        /// What the service wants.
        wanted: String,
        /// What there is.
        found: String,
    },
    /// The pull failed on this side, or for a reason that nobody foresaw.
    #[error("`{image}` can't be pulled: {detail}")]
    Pull {
        /// The image.
        image: String,
        /// What the Engine says.
        detail: String,
    },
    /// The Engine didn't answer a question.
    #[error("the Docker Engine was asked for {what}: {detail}")]
    Engine {
        /// What was asked.
        what: String,
        /// What it says.
        detail: String,
    },
}

/// The argument of `docker login`: none for Docker Hub.
fn login_argument(registry: &str) -> String {
    if registry == bulsa_core::image::HUB { String::new() } else { format!(" {registry}") }
}

/// The image of one service: see [`resolve_all`].
///
/// # Errors
/// [`ImageProblem`]; nothing was changed then.
pub async fn resolve(
    docker: &Docker,
    wanted: &Wanted<'_>,
    progress: &mpsc::Sender<Progress>,
) -> Result<Resolved, ImageProblem> {
    let nothing = || ImageProblem::Engine {
        what: format!("`{}`", wanted.container.image),
        detail: "it was forgotten".to_owned(),
    };
    let mut all = resolve_all(docker, std::slice::from_ref(wanted), progress).await;
    all.remove(wanted.service).unwrap_or_else(|| Err(nothing()))
}

/// The images of several services, by service. What has to be pulled is pulled once however many want it, and
/// three at once. A registry that didn't answer isn't asked again for an image that is on this host.
pub async fn resolve_all(
    docker: &Docker,
    wanted: &[Wanted<'_>],
    progress: &mpsc::Sender<Progress>,
) -> BTreeMap<String, Result<Resolved, ImageProblem>> {
    let mut resolved = BTreeMap::new();
    let mut jobs: BTreeMap<(String, String), Job<'_>> = BTreeMap::new();
    for one in wanted {
        match Job::of(docker, one).await {
            Ok(Decided::Here(found)) => {
                resolved.insert(one.service.to_owned(), Ok(*found));
            }
            Ok(Decided::Pull(job)) => {
                let key = (job.reference.to_engine(), job.platform.unwrap_or_default().to_owned());
                jobs.entry(key).and_modify(|known| known.services.push(one.service)).or_insert(*job);
            }
            Err(problem) => {
                resolved.insert(one.service.to_owned(), Err(problem));
            }
        }
    }
    let away = Away::default();
    let pulls = jobs.values().map(|job| job.run(docker, &away, progress));
    // A list first: the compiler can't see through the borrowed closure otherwise.
    let mut done = stream::iter(pulls.collect::<Vec<_>>()).buffer_unordered(PULLS_AT_ONCE);
    while let Some((services, result)) = done.next().await {
        for service in services {
            resolved.insert((*service).to_owned(), result.clone());
        }
    }
    resolved
}

/// Registries that didn't answer, and how.
#[derive(Debug, Default)]
struct Away(Mutex<BTreeMap<String, String>>);

impl Away {
    fn why(&self, registry: &str) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(registry).cloned()
    }

    fn remember(&self, registry: &str, why: &str) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(registry.to_owned(), why.to_owned());
    }
}

/// What is to be done for one service.
enum Decided<'a> {
    Here(Box<Resolved>),
    Pull(Box<Job<'a>>),
}

/// One pull, and the services that wait for it.
struct Job<'a> {
    services: Vec<&'a str>,
    reference: Reference,
    platform: Option<&'a str>,
    credentials: Option<Credentials>,
    /// The one that is taken where the registry is away.
    fallback: Option<Local>,
}

impl<'a> Job<'a> {
    async fn of(docker: &Docker, wanted: &Wanted<'a>) -> Result<Decided<'a>, ImageProblem> {
        let image = wanted.container.image.as_str();
        let reference = if is_image_id(image) { None } else { Some(Reference::parse(image)?) };
        let name = reference.as_ref().map_or_else(|| image.to_owned(), Reference::to_engine);
        let platform = wanted.container.platform.as_deref();
        let found = facts::inspect(docker, &name).await?;
        let local = found.clone().filter(|local| platform.is_none_or(|wanted| local.is_for(wanted)));
        let age = local.as_ref().and_then(|local| local.age(jiff::Timestamp::now()));
        let situation = Situation { present: local.is_some(), age, no_pull: wanted.no_pull };
        let missing = |why: &str| match (&found, platform) {
            (Some(found), Some(wanted)) => found.not_for(image, wanted),
            _ => ImageProblem::Missing { image: image.to_owned(), why: why.to_owned() },
        };
        let fallback = match (step(wanted.container, wanted.role, situation), local) {
            (Step::Local, Some(local)) => return Ok(Decided::Here(Box::new(local.resolved(None)))),
            (Step::Missing(why), _) => return Err(missing(why)),
            (Step::Local, None) => return Err(missing("it may not be pulled")),
            (Step::Pull, _) => None,
            (Step::PullOrLocal, local) => local,
        };
        let reference = reference.ok_or_else(|| missing("an image's id can't be pulled"))?;
        let credentials = wanted.credentials.clone();
        let services = vec![wanted.service];
        Ok(Decided::Pull(Box::new(Self { services, reference, platform, credentials, fallback })))
    }

    async fn run(
        &self,
        docker: &Docker,
        away: &Away,
        progress: &mpsc::Sender<Progress>,
    ) -> (&[&'a str], Result<Resolved, ImageProblem>) {
        let teller = Teller::new(self.services.join(", "), self.reference.to_engine(), progress.clone());
        let result = match self.pull(docker, away, &teller).await {
            Ok(()) => self.pulled(docker).await,
            Err(trouble) => self.without(trouble, away, &teller).await,
        };
        (&self.services, result)
    }

    async fn pull(&self, docker: &Docker, away: &Away, teller: &Teller) -> Result<(), Trouble> {
        if self.fallback.is_some()
            && let Some(why) = away.why(&self.reference.registry)
        {
            return Err(Trouble::Unreachable(why));
        }
        let order = Order {
            reference: &self.reference,
            platform: self.platform,
            credentials: self.credentials.as_ref(),
            has_fallback: self.fallback.is_some(),
        };
        pull(docker, &order, teller).await
    }

    async fn pulled(&self, docker: &Docker) -> Result<Resolved, ImageProblem> {
        let image = self.reference.to_engine();
        let local = facts::inspect(docker, &image).await?.ok_or_else(|| ImageProblem::Pull {
            image: image.clone(),
            detail:
                "the Engine said that it was pulled, and then didn't have it; somebody may have removed it"
                    .to_owned(),
        })?;
        match self.platform {
            // Engines take an image for another platform where a registry has only that one.
            Some(wanted) if !local.is_for(wanted) => Err(local.not_for(&image, wanted)),
            _ => {
                let mut resolved = local.resolved(None);
                resolved.facts.is_pulled = true;
                Ok(resolved)
            }
        }
    }

    /// The pull failed: the image on this host, or a problem.
    async fn without(
        &self,
        trouble: Trouble,
        away: &Away,
        teller: &Teller,
    ) -> Result<Resolved, ImageProblem> {
        let registry = &self.reference.registry;
        let why = match &trouble {
            Trouble::Unreachable(detail) => {
                away.remember(registry, detail);
                format!("the registry {registry} can't be asked ({detail})")
            }
            Trouble::Unknown(detail) => format!("the registry {registry} doesn't give it ({detail})"),
            Trouble::Login(_) | Trouble::Platform(_) | Trouble::Other(_) => {
                return Err(trouble.problem(&self.reference, self.platform));
            }
        };
        let Some(local) = self.fallback.clone() else {
            return Err(trouble.problem(&self.reference, self.platform));
        };
        let id = short(&local.facts.id);
        let note = format!("{}: {why}; going on with the image on this host, {id}", self.reference);
        teller.say(note.clone()).await;
        Ok(local.resolved(Some(note)))
    }
}
