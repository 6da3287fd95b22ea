//! What each test has: the Engine, a directory, names of its own, and images made of a static busybox.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use bollard::{
    Docker, body_full,
    models::{ContainerConfig, ContainerCreateBody},
    query_parameters::{
        CommitContainerOptionsBuilder, CreateContainerOptionsBuilder, CreateImageOptionsBuilder,
        ListContainersOptionsBuilder, ListImagesOptionsBuilder, PushImageOptionsBuilder,
        RemoveContainerOptionsBuilder, RemoveImageOptionsBuilder, TagImageOptionsBuilder,
    },
};
use bulsa::agent::images::{ImageProblem, Progress, Resolved, Wanted, resolve};
use bulsa_core::spec::{
    Role,
    container::{Container, PullPolicy},
};
use futures_util::TryStreamExt;
use tempfile::TempDir;
use tokio::sync::mpsc;

/// The Engine's socket.
pub(crate) const SOCKET: &str = "/var/run/docker.sock";
/// Where Debian's busybox-static has its program.
const BUSYBOX: &str = "/bin/busybox";
/// What a test made has this label, with the test's name.
const LABEL: &str = "bulsa-test-images";

/// How long removing what a test made may take.
const CLEAN_MAX: Duration = Duration::from_secs(60);

/// What a test has, and what is removed at its end.
pub(crate) struct World {
    pub(crate) docker: Docker,
    pub(crate) dir: TempDir,
    /// Of everything that the test makes.
    pub(crate) name: String,
}

impl World {
    /// `None`, and a word about it, where something is missing.
    pub(crate) async fn new(test: &str) -> Option<Self> {
        let docker = Docker::connect_with_unix(SOCKET, 120, bollard::API_DEFAULT_VERSION).ok();
        let docker = match docker {
            Some(docker) if docker.ping().await.is_ok() => docker,
            _ => return skip("no Docker Engine answers here"),
        };
        let runs = |program: &str| Command::new(program).arg("--help").output().is_ok();
        if !runs("docker-registry") || !runs("htpasswd") {
            return skip("docker-registry or htpasswd (apache2-utils) is not installed");
        }
        if !Path::new(BUSYBOX).exists() {
            return skip("busybox-static is not installed");
        }
        let name = format!("bulsa-test-images-{test}-{}", std::process::id());
        Some(Self { docker, dir: tempfile::tempdir().unwrap(), name })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// An image with this name; another `word` makes another image. Gives its id.
    pub(crate) async fn image(&self, name: &str, word: &str, changes: &[&str]) -> String {
        let mut tar = tar::Builder::new(Vec::new());
        tar.append_path_with_name(BUSYBOX, "bin/busybox").unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_size(word.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, "word", word.as_bytes()).unwrap();
        let (repo, tag) = name.rsplit_once(':').unwrap();
        let label = format!("LABEL {LABEL}={}", self.name);
        let changes = changes.iter().map(|change| (*change).to_owned()).chain([label]).collect();
        let options =
            CreateImageOptionsBuilder::default().from_src("-").repo(repo).tag(tag).changes(changes).build();
        let body = body_full(tar.into_inner().unwrap().into());
        let _lines: Vec<_> =
            self.docker.create_image(Some(options), Some(body), None).try_collect().await.unwrap();
        self.id(name).await.unwrap()
    }

    pub(crate) async fn push(&self, name: &str) {
        let (repo, tag) = name.rsplit_once(':').unwrap();
        let options = PushImageOptionsBuilder::default().tag(tag).build();
        let _lines: Vec<_> = self.docker.push_image(repo, Some(options), None).try_collect().await.unwrap();
    }

    pub(crate) async fn tag(&self, image: &str, name: &str) {
        let (repo, tag) = name.rsplit_once(':').unwrap();
        let options = TagImageOptionsBuilder::default().repo(repo).tag(tag).build();
        self.docker.tag_image(image, Some(options)).await.unwrap();
    }

    /// Forgets a name, or an image with all of its names.
    pub(crate) async fn forget(&self, name: &str) {
        let options = RemoveImageOptionsBuilder::default().force(true).build();
        self.docker.remove_image(name, Some(options), None).await.unwrap();
    }

    pub(crate) async fn id(&self, name: &str) -> Option<String> {
        self.docker.inspect_image(name).await.ok().and_then(|image| image.id)
    }

    /// A container that is never started.
    pub(crate) async fn container(&self, image: &str) -> String {
        let options = CreateContainerOptionsBuilder::default().name(&self.name).build();
        let body = ContainerCreateBody {
            image: Some(image.to_owned()),
            cmd: Some(vec!["/bin/busybox".to_owned()]),
            labels: Some(HashMap::from([(LABEL.to_owned(), self.name.clone())])),
            ..ContainerCreateBody::default()
        };
        self.docker.create_container(Some(options), body).await.unwrap().id
    }

    /// An image that is built on another one, as the Engine's own builder does it. Gives its id.
    pub(crate) async fn commit(&self, base: &str, name: &str) -> String {
        let container = self.container(base).await;
        let (repo, tag) = name.rsplit_once(':').unwrap();
        let options =
            CommitContainerOptionsBuilder::default().container(&container).repo(repo).tag(tag).build();
        self.docker.commit_container(options, ContainerConfig::default()).await.unwrap();
        self.remove_container(&container).await;
        self.id(name).await.unwrap()
    }

    pub(crate) async fn remove_container(&self, id: &str) {
        self.docker
            .remove_container(id, None::<bollard::query_parameters::RemoveContainerOptions>)
            .await
            .unwrap();
    }

    /// What an `app` gets, and what was said on the way.
    pub(crate) async fn resolve(
        &self,
        image: &str,
        change: impl FnOnce(&mut Wanted<'_>),
    ) -> (Result<Resolved, ImageProblem>, Vec<Progress>) {
        let container = container(image, PullPolicy::Default);
        let mut wanted = wanted("web", &container);
        change(&mut wanted);
        let (to, mut heard) = mpsc::channel(1000);
        let result = resolve(&self.docker, &wanted, &to).await;
        drop(to);
        let mut said = Vec::new();
        while let Some(progress) = heard.recv().await {
            said.push(progress);
        }
        (result, said)
    }
}

pub(crate) fn container(image: &str, pull_policy: PullPolicy) -> Container {
    Container { image: image.to_owned(), pull_policy, ..Container::default() }
}

pub(crate) fn wanted<'a>(service: &'a str, container: &'a Container) -> Wanted<'a> {
    Wanted { service, container, role: Role::App, no_pull: false, credentials: None }
}

fn skip(why: &str) -> Option<World> {
    eprintln!("skipped: {why}");
    None
}

impl Drop for World {
    fn drop(&mut self) {
        let name = self.name.clone();
        // A test's runtime can't be waited for here; another one, on another thread, can.
        let clean = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            if let Ok(runtime) = runtime {
                let work = async { tokio::time::timeout(CLEAN_MAX, remove_all(&name)).await };
                if runtime.block_on(work).is_err() {
                    eprintln!("what {name} made could not be removed in time");
                }
            }
        });
        if clean.join().is_err() {
            eprintln!("what {} made could not be removed", self.name);
        }
    }
}

async fn remove_all(name: &str) {
    // A client of its own: connections belong to the runtime that made them.
    let Ok(docker) = Docker::connect_with_unix(SOCKET, 120, bollard::API_DEFAULT_VERSION) else { return };
    let filters = HashMap::from([("label", vec![format!("{LABEL}={name}")])])
        .into_iter()
        .map(|(key, values)| (key.to_owned(), values))
        .collect::<HashMap<String, Vec<String>>>();
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    for container in docker.list_containers(Some(options)).await.unwrap_or_default() {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        docker.remove_container(&container.id.unwrap_or_default(), Some(options)).await.ok();
    }
    let options = ListImagesOptionsBuilder::default().filters(&filters).build();
    for image in docker.list_images(Some(options)).await.unwrap_or_default() {
        let options = RemoveImageOptionsBuilder::default().force(true).build();
        docker.remove_image(&image.id, Some(options), None).await.ok();
    }
}
