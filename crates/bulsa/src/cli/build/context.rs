//! A build context as a tar, on its way.
//!
//! Owns: which files go in (`.dockerignore`, the Dockerfile), and writing them in pieces while they are sent. Never:
//! follows a symlink, keeps an owner, or holds more than a few pieces in memory.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use bulsa_core::{image::Ignore, spec::container::Build, wire::api::SyncOwner};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::{BuildError, Order};
use crate::cli::pack::{Pieces, append, header};

/// A Dockerfile and a `.dockerignore` have at most so many bytes.
const TEXT_MAX: u64 = 4 << 20;

/// As Docker's own command sends it, all is root's.
const OWNER: SyncOwner = SyncOwner { uid: 0, gid: 0 };

/// What is sent.
#[derive(Clone, Debug)]
pub(super) struct Context {
    service: String,
    root: PathBuf,
    ignore: Ignore,
    /// The Dockerfile's path in the tar.
    pub(super) dockerfile: String,
    /// Its text, where it isn't a file of the context.
    added: Option<Vec<u8>>,
}

/// Where the Dockerfile is.
enum Dockerfile {
    /// In the context, at this path.
    Inside(String),
    /// Anywhere else.
    Added(Vec<u8>),
}

impl Context {
    /// Looks at the context, and reads what says what goes in.
    pub(super) fn open(order: &Order<'_>) -> Result<Self, BuildError> {
        let failed = |path: &Path| {
            let (service, path) = (order.service.to_owned(), path.to_owned());
            move |source| BuildError::Context { service, path, source }
        };
        let written = Path::new(&order.build.context);
        let root = written.canonicalize().map_err(failed(written))?;
        if !root.is_dir() {
            return Err(failed(&root)(io::ErrorKind::NotADirectory.into()));
        }
        let (dockerfile, file) = dockerfile(order.build, &root).map_err(|(path, e)| failed(&path)(e))?;
        let ignore = ignore(&root, file.as_deref(), &failed)?;
        let (dockerfile, added) = match dockerfile {
            Dockerfile::Inside(path) => (path, None),
            Dockerfile::Added(text) => (name_for(&text), Some(text)),
        };
        Ok(Self { service: order.service.to_owned(), root, ignore, dockerfile, added })
    }

    /// Writes it all. Ends early without an error when nobody takes the pieces any more.
    pub(super) fn send(&self, pieces: &mpsc::Sender<io::Result<Bytes>>) -> Result<(), BuildError> {
        let mut archive = tar::Builder::new(Pieces::new(pieces));
        let written = self.write(&mut archive).and_then(|()| {
            let end = |error| (self.root.clone(), error);
            archive.into_inner().map_err(end)?.flush().map_err(end)
        });
        match written {
            Ok(()) => Ok(()),
            Err((_, error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err((path, source)) => {
                // The Engine must not take a part for the whole; nobody listening is no trouble here.
                pieces.blocking_send(Err(io::Error::other("the context can't be read"))).ok();
                Err(BuildError::Context { service: self.service.clone(), path, source })
            }
        }
    }

    fn write(&self, archive: &mut tar::Builder<Pieces<'_>>) -> Result<(), (PathBuf, io::Error)> {
        if let Some(text) = &self.added {
            let mut header = header(0o644, 0, text.len() as u64, tar::EntryType::Regular, OWNER);
            archive
                .append_data(&mut header, &self.dockerfile, text.as_slice())
                .map_err(|error| (PathBuf::from(&self.dockerfile), error))?;
        }
        let mut directories = vec![PathBuf::new()];
        while let Some(directory) = directories.pop() {
            let path = self.root.join(&directory);
            let mut entries = fs::read_dir(&path)
                .and_then(Iterator::collect::<io::Result<Vec<_>>>)
                .map_err(|error| (path.clone(), error))?;
            entries.sort_by_key(fs::DirEntry::file_name);
            for entry in entries {
                let relative = directory.join(entry.file_name());
                let kind = entry.file_type().map_err(|error| (entry.path(), error))?;
                let out = self.is_out(&relative);
                if kind.is_dir()
                    && (!out || self.ignore.may_keep_below() || self.leads_to_dockerfile(&relative))
                {
                    directories.push(relative.clone());
                }
                if !out {
                    append(archive, &entry.path(), &relative, OWNER)
                        .map_err(|error| (entry.path(), error))?;
                }
            }
        }
        Ok(())
    }

    /// The Dockerfile is needed even where it is left out of what `COPY` sees.
    fn is_out(&self, relative: &Path) -> bool {
        let name = relative.to_string_lossy();
        self.ignore.leaves_out(&name) && (self.added.is_some() || name != self.dockerfile.as_str())
    }

    fn leads_to_dockerfile(&self, directory: &Path) -> bool {
        self.added.is_none() && Path::new(&self.dockerfile).starts_with(directory)
    }
}

/// The Dockerfile, and its own path where it is a file.
fn dockerfile(build: &Build, root: &Path) -> Result<(Dockerfile, Option<PathBuf>), (PathBuf, io::Error)> {
    if let Some(text) = &build.dockerfile_inline {
        return Ok((Dockerfile::Added(text.clone().into_bytes()), None));
    }
    let written = root.join(build.dockerfile.as_deref().unwrap_or("Dockerfile"));
    let file = written.canonicalize().map_err(|error| (written.clone(), error))?;
    // By its own name if it is inside by that name: a link is in the tar as a link.
    let inside = [&written, &file].into_iter().find_map(|path| path.strip_prefix(root).ok());
    let clean = |path: &Path| path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    let dockerfile = match inside.filter(|path| clean(path)).and_then(Path::to_str) {
        Some(path) if file.starts_with(root) => Dockerfile::Inside(path.to_owned()),
        _ => Dockerfile::Added(text(&file).map_err(|error| (file.clone(), error))?),
    };
    Ok((dockerfile, Some(written)))
}

/// `Dockerfile.dockerignore` beside the Dockerfile, or else the context's `.dockerignore`.
fn ignore<F>(
    root: &Path,
    dockerfile: Option<&Path>,
    failed: &impl Fn(&Path) -> F,
) -> Result<Ignore, BuildError>
where
    F: FnOnce(io::Error) -> BuildError,
{
    let own = dockerfile.map(|path| {
        let mut name = path.as_os_str().to_owned();
        name.push(".dockerignore");
        PathBuf::from(name)
    });
    for path in own.into_iter().chain([root.join(".dockerignore")]) {
        match text(&path) {
            Ok(text) => {
                let text = String::from_utf8_lossy(&text);
                return Ignore::parse(&text).map_err(|source| BuildError::Ignore { path, source });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(&path)(error)),
        }
    }
    Ok(Ignore::default())
}

fn text(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?.take(TEXT_MAX + 1).read_to_end(&mut text)?;
    if text.len() as u64 > TEXT_MAX {
        return Err(io::Error::other(format!("it has more than {TEXT_MAX} bytes")));
    }
    Ok(text)
}

/// What a service's build leaves out of its context, and where that is; `None` where it is no directory of this host.
pub(in crate::cli) fn left_out(
    service: &str,
    build: &Build,
) -> Result<Option<(PathBuf, Ignore)>, BuildError> {
    let root = PathBuf::from(&build.context);
    if !root.is_dir() {
        return Ok(None);
    }
    let failed = |path: &Path| {
        let (service, path) = (service.to_owned(), path.to_owned());
        move |source| BuildError::Context { service, path, source }
    };
    let dockerfile = build.dockerfile_inline.is_none().then_some(build.dockerfile.as_deref());
    let dockerfile = dockerfile.map(|name| root.join(name.unwrap_or("Dockerfile")));
    let ignore = ignore(&root, dockerfile.as_deref(), &failed)?;
    Ok(Some((root, ignore)))
}

/// A name in the tar that no file of the context has, the same for the same text so that caches hold.
fn name_for(text: &[u8]) -> String {
    let hash = Sha256::digest(text);
    let hex: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!(".bulsa-{hex}.Dockerfile")
}

#[cfg(test)]
mod tests;
