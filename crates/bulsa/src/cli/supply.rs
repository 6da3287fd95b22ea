//! What a deploy needs from its user before the daemon is asked: images that are built here, and credentials.
//!
//! Owns: which services a command builds and when, and whose credentials go along. Never: decides what a release is:
//! a build only moves a name, and the daemon makes a release where that name means another image than before.
//!
//! ```text
//!            pull_policy  (none), never   build   missing      always, daily, every_…
//!  deploy                 always          always  if missing   never: the registry has it
//!  up                     new or missing  always  if missing   never
//!  up --build             always          always  always       always
//! ```
//! A `shared` service is left alone by a deploy that doesn't name it, so its image is built where there is none.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    pin::pin,
};

use bulsa_core::{
    image::Reference,
    spec::{
        Role, Service, Spec,
        container::{Build, Container, PullPolicy},
    },
    wire::api::ProjectView,
};
use tokio::sync::mpsc;

use super::{
    build::{self, BuildError, Builder, Order},
    context::Context,
    deploy::Wanted,
    images::{ServiceWord, credentials_for},
};
use crate::{
    agent::{
        docker::{Docker, socket_of},
        images::disk_problem,
    },
    report::{CommandError, ErrorKind},
};

/// At most this many lines of a build wait to be shown.
const LINES_MAX: usize = 64;
/// So many of a failed build's last lines are part of its error.
const LINES_SHOWN: usize = 15;
/// A Dockerfile is looked at up to here for the images that it begins with, in bytes.
const DOCKERFILE_MAX_BYTES: u64 = 1 << 20;

/// Which images a command builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Building {
    /// None: `--no-build`.
    Never,
    /// What is missing or new: `up`.
    Missing,
    /// What may have another source now: `deploy`.
    Changed,
    /// All: `up --build`.
    All,
}

/// Gives services the images that the command line names. They are not built then, whatever the file says.
///
/// # Errors
/// For a service that isn't in the file, or is no container.
pub(super) fn name_images(spec: &mut Spec, words: &[ServiceWord]) -> Result<(), CommandError> {
    for word in words {
        let Some(image) = &word.image else { continue };
        let name = &word.service;
        let Some(service) = spec.services.get_mut(name) else {
            let error = CommandError::user(format!("there is no service `{name}` in the file"));
            let known = spec.services.keys().map(String::as_str);
            return Err(match bulsa_core::compose::diagnostic::nearest(name, known) {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error.hint("`bulsa config --services` lists them"),
            });
        };
        let Some(container) = &mut service.container else {
            let text =
                format!("`{name}={image}`: `{name}` runs as a process of this machine and has no image");
            return Err(
                CommandError::user(text).hint(format!("change its `command`, then `bulsa deploy {name}`"))
            );
        };
        container.image.clone_from(image);
        container.build = None;
        if container.pull_policy == PullPolicy::Build {
            container.pull_policy = PullPolicy::Default;
        }
    }
    Ok(())
}

/// The services that a command deploys: those that it names, or all; also all where there is nothing yet that the
/// others could stay as.
pub(super) fn deployed<'a>(
    spec: &'a Spec,
    names: &'a [String],
    project: Option<&ProjectView>,
) -> impl Iterator<Item = &'a Service> {
    let all = names.is_empty() || project.is_none_or(|project| project.live.is_none());
    spec.services.values().filter(move |service| all || names.contains(&service.name))
}

/// Builds what is to be built, and finds the credentials for what is to be pulled.
///
/// # Errors
/// When a build fails; nothing was begun, and the exit code says whether the project serves all the same.
pub(super) async fn supply(
    wanted: &mut Wanted,
    building: Building,
    project: Option<&ProjectView>,
    context: &mut Context<'_>,
) -> Result<(), CommandError> {
    let services: Vec<(&Service, &Container)> = deployed(&wanted.spec, &wanted.services, project)
        .filter_map(|service| Some((service, service.container.as_deref()?)))
        .collect();
    let built = build_all(&services, &wanted.services, building, project, context).await?;
    let pulled = services.iter().filter(|(service, _)| !built.contains(service.name.as_str()));
    let images: Vec<&str> = pulled.map(|(_, container)| container.image.as_str()).collect();
    if !wanted.no_pull && !images.is_empty() {
        let found = credentials_for(images).await;
        for note in &found.notes {
            context.printer.remark(note)?;
        }
        wanted.credentials = found.by_registry;
    }
    Ok(())
}

/// Builds the images of these services that are due, one after the other; gives their names.
async fn build_all<'a>(
    services: &[(&'a Service, &'a Container)],
    named: &[String],
    building: Building,
    project: Option<&ProjectView>,
    context: &mut Context<'_>,
) -> Result<BTreeSet<&'a str>, CommandError> {
    let mut built = BTreeSet::new();
    let candidates: Vec<_> = services.iter().filter_map(|(s, c)| Some((*s, *c, c.build.as_ref()?))).collect();
    if building == Building::Never || candidates.is_empty() {
        return Ok(built);
    }
    let host = context.env.get("DOCKER_HOST").filter(|host| !host.is_empty());
    let socket =
        socket_of(host.map(String::as_str)).map_err(|error| CommandError::user(error.to_string()))?;
    let engine = Docker::connect_to(&socket, "").await.map_err(|error| {
        failed(project, error.to_string()).hint("to take the images that are here, say `--no-build`")
    })?;
    let is_new = project.is_none_or(|project| project.live.is_none());
    let builder = build::builder().await;
    let mut done: Vec<(&str, &Build)> = Vec::new();
    for (service, container, how) in candidates {
        let is_here = engine.client().inspect_image(&container.image).await.is_ok();
        let role = if named.contains(&service.name) { Role::App } else { service.role };
        if !is_due(building, role, container.pull_policy, is_here, is_new) {
            continue;
        }
        if let Some(full) = disk_problem(engine.client()).await {
            return Err(failed(project, full));
        }
        // Services may share an image.
        if !done.contains(&(container.image.as_str(), how)) {
            one(service, container, how, &Site { socket: &socket, builder, project }, context).await?;
            done.push((&container.image, how));
        }
        built.insert(service.name.as_str());
    }
    Ok(built)
}

/// Whether an image is built now: the table above.
fn is_due(building: Building, role: Role, policy: PullPolicy, is_here: bool, is_new: bool) -> bool {
    match (building, policy) {
        (Building::Never, _) => false,
        (Building::All, _) => true,
        (_, PullPolicy::Always | PullPolicy::Older(_)) => false,
        (_, PullPolicy::Missing) => !is_here,
        _ if role == Role::Shared => !is_here,
        (_, PullPolicy::Build) | (Building::Changed, _) => true,
        (Building::Missing, PullPolicy::Default | PullPolicy::Never) => is_new || !is_here,
    }
}

/// Where images are built, and for whom.
struct Site<'a> {
    socket: &'a Path,
    builder: Builder,
    project: Option<&'a ProjectView>,
}

async fn one(
    service: &Service,
    container: &Container,
    how: &Build,
    site: &Site<'_>,
    context: &mut Context<'_>,
) -> Result<(), CommandError> {
    context.printer.remark(&format!("building {} for `{}`", container.image, service.name))?;
    let credentials = match site.builder {
        Builder::Buildx => BTreeMap::new(),
        Builder::Engine => {
            let bases = bases(how);
            credentials_for(bases.iter().map(String::as_str)).await.by_registry
        }
    };
    let order = Order {
        service: &service.name,
        build: how,
        tag: &container.image,
        platform: container.platform.as_deref(),
        socket: site.socket,
        credentials: &credentials,
    };
    let (to, mut lines) = mpsc::channel(LINES_MAX);
    let mut building = pin!(build::build(&order, site.builder, &to));
    let result = loop {
        tokio::select! {
            Some(line) = lines.recv() => context.printer.remark(&format!("{}: {}", line.service, line.text))?,
            result = &mut building => break result,
        }
    };
    while let Ok(line) = lines.try_recv() {
        context.printer.remark(&format!("{}: {}", line.service, line.text))?;
    }
    match result {
        Ok(_) => Ok(()),
        Err(error) => Err(build_failed(site.project, error)),
    }
}

fn build_failed(project: Option<&ProjectView>, error: BuildError) -> CommandError {
    match error {
        BuildError::Failed { service, detail, last } => {
            let shown = last.get(last.len().saturating_sub(LINES_SHOWN)..).unwrap_or_default();
            let text = format!("the image of `{service}` can't be built: {detail}");
            shown.iter().fold(failed(project, text), CommandError::cause)
        }
        other => failed(project, other.to_string()),
    }
}

/// A deploy that was not begun. As when the daemon itself can't get an image: 3 while the live release serves, 7 where
/// it is down, 1 where there is none.
fn failed(project: Option<&ProjectView>, text: String) -> CommandError {
    let Some(project) = project.filter(|project| project.live.is_some()) else {
        return CommandError::user(text).hint("nothing was begun");
    };
    let mut apps = project.services.iter().filter(|s| s.role == "app" && s.desired > s.withheld);
    if apps.all(|service| service.ready > 0) {
        CommandError::new(ErrorKind::DeployFailed, text)
            .hint("nothing was begun; the release before it serves all traffic")
    } else {
        CommandError::new(ErrorKind::ServiceDown, text).hint("nothing was begun; see `bulsa status`")
    }
}

/// The images that a Dockerfile begins with, for the registries whose credentials the Engine's builder is given. A name
/// with a variable in it is left out, as is what can't be read: the build itself says so.
fn bases(how: &Build) -> Vec<String> {
    let read = || -> Option<Vec<String>> {
        if let Some(text) = &how.dockerfile_inline {
            return Some(text.lines().filter_map(base).collect());
        }
        let path = Path::new(&how.context).join(how.dockerfile.as_deref().unwrap_or("Dockerfile"));
        let file: PathBuf = path.is_file().then_some(path)?;
        let lines = BufReader::new(File::open(file).ok()?.take(DOCKERFILE_MAX_BYTES)).lines();
        Some(lines.map_while(Result::ok).filter_map(|line| base(&line)).collect())
    };
    read().unwrap_or_default()
}

fn base(line: &str) -> Option<String> {
    let mut words = line.split_whitespace();
    let is_from = words.next().is_some_and(|word| word.eq_ignore_ascii_case("FROM"));
    let image = words.find(|word| !word.starts_with("--")).filter(|_| is_from)?;
    Reference::parse(image).is_ok().then(|| image.to_owned())
}
