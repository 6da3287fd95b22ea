//! Mounts, in the two forms that the Engine has: `Binds` (which make a missing directory, and know SELinux) and
//! `Mounts` (which refuse one, and know everything else).
//!
//! Owns: which entry takes which form. Never: makes a directory itself.

use std::{collections::BTreeSet, str::FromStr as _};

use bollard::models::{
    HostConfig, Mount as EngineMount, MountBindOptions, MountBindOptionsPropagationEnum, MountImageOptions,
    MountTmpfsOptions, MountType, MountVolumeOptions,
};
use bulsa_core::spec::{
    Spec,
    container::{Container, Mount, MountSource},
    drift::MadeMount,
};

use super::super::{EngineInfo, StartProblem};

/// What the Engine is told.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    /// `SOURCE:TARGET[:OPTIONS]`
    pub(super) binds: Vec<String>,
    /// The others.
    pub(super) mounts: Vec<EngineMount>,
}

pub(super) fn of(container: &Container, spec: &Spec, engine: &EngineInfo) -> Result<Mounts, StartProblem> {
    let mut all = Mounts::default();
    for mount in &container.mounts {
        match &mount.source {
            MountSource::Bind { path, create, propagation, selinux, recursive } => {
                let wanted = Bind { path, create: *create, propagation, selinux, recursive };
                bind(&mut all, mount, &wanted, engine)?;
            }
            source => all.mounts.push(other(mount, source, spec, engine)?),
        }
    }
    for directory in file_directories(container)? {
        all.mounts.push(EngineMount {
            target: Some(directory),
            typ: Some(MountType::VOLUME),
            ..EngineMount::default()
        });
    }
    Ok(all)
}

struct Bind<'a> {
    path: &'a str,
    create: bool,
    propagation: &'a Option<String>,
    selinux: &'a Option<String>,
    recursive: &'a Option<String>,
}

fn bind(all: &mut Mounts, mount: &Mount, wanted: &Bind<'_>, engine: &EngineInfo) -> Result<(), StartProblem> {
    let is_plain = !wanted.path.contains(':') && !mount.target.contains(':');
    if is_plain && wanted.recursive.is_none() && (wanted.create || wanted.selinux.is_some()) {
        let read_only = mount.read_only.then(|| "ro".to_owned());
        let options: Vec<String> =
            [read_only, wanted.selinux.clone(), wanted.propagation.clone()].into_iter().flatten().collect();
        let end = if options.is_empty() { String::new() } else { format!(":{}", options.join(",")) };
        all.binds.push(format!("{}:{}{end}", wanted.path, mount.target));
        return Ok(());
    }
    if wanted.create && !engine.has(42) && !is_plain {
        return Err(StartProblem::permanent(format!(
            "the path {} has a colon, and Docker Engine {} can't make such a directory: make it, and write \
             `bind: {{create_host_path: false}}`",
            wanted.path, engine.version
        )));
    }
    let recursive = wanted.recursive.as_deref().unwrap_or("enabled");
    if matches!(recursive, "writable" | "readonly") && !engine.has(44) {
        return Err(StartProblem::permanent(format!(
            "`bind.recursive: {recursive}` of {} needs Docker Engine 25; here is {}",
            mount.target, engine.version
        )));
    }
    let propagation = match wanted.propagation.as_deref() {
        None => None,
        Some(text) => Some(MountBindOptionsPropagationEnum::from_str(text).map_err(|_| {
            StartProblem::permanent(format!("`bind.propagation: {text}` of {} is unknown", mount.target))
        })?),
    };
    all.mounts.push(EngineMount {
        target: Some(mount.target.clone()),
        source: Some(wanted.path.to_owned()),
        typ: Some(MountType::BIND),
        read_only: Some(mount.read_only),
        consistency: mount.consistency.clone(),
        bind_options: Some(MountBindOptions {
            propagation,
            create_mountpoint: (wanted.create && engine.has(42)).then_some(true),
            non_recursive: (recursive == "disabled").then_some(true),
            read_only_non_recursive: (recursive == "writable").then_some(true),
            read_only_force_recursive: (recursive == "readonly").then_some(true),
        }),
        ..EngineMount::default()
    });
    Ok(())
}

fn other(
    mount: &Mount,
    source: &MountSource,
    spec: &Spec,
    engine: &EngineInfo,
) -> Result<EngineMount, StartProblem> {
    let mut made = EngineMount {
        target: Some(mount.target.clone()),
        read_only: Some(mount.read_only),
        consistency: mount.consistency.clone(),
        ..EngineMount::default()
    };
    match source {
        MountSource::Volume { name, no_copy, subpath, labels } => {
            if subpath.is_some() && !engine.has(45) {
                return Err(StartProblem::permanent(format!(
                    "`volume.subpath` of {} needs Docker Engine 26; here is {}",
                    mount.target, engine.version
                )));
            }
            made.typ = Some(MountType::VOLUME);
            made.source = name
                .as_ref()
                .map(|key| spec.volumes.get(key).map_or_else(|| key.clone(), |known| known.name.clone()));
            let options = MountVolumeOptions {
                no_copy: no_copy.then_some(true),
                labels: (!labels.is_empty()).then(|| labels.clone().into_iter().collect()),
                subpath: subpath.clone(),
                driver_config: None,
            };
            made.volume_options = (options != MountVolumeOptions::default()).then_some(options);
        }
        MountSource::Tmpfs { size, mode } => {
            made.typ = Some(MountType::TMPFS);
            let options = MountTmpfsOptions { size_bytes: *size, mode: mode.map(i64::from), options: None };
            made.tmpfs_options = (options != MountTmpfsOptions::default()).then_some(options);
        }
        MountSource::Bind { path, .. } => {
            made.typ = Some(MountType::BIND);
            made.source = Some(path.clone());
        }
        MountSource::Other { kind, source, subpath } => {
            if kind == "image" && !engine.has(48) {
                return Err(StartProblem::permanent(format!(
                    "an image as a mount ({}) needs Docker Engine 28; here is {}",
                    mount.target, engine.version
                )));
            }
            made.typ = Some(MountType::from_str(kind).map_err(|_| {
                StartProblem::permanent(format!("the mount type `{kind}` of {} is unknown", mount.target))
            })?);
            made.source = Some(source.clone());
            made.image_options =
                subpath.as_ref().map(|path| MountImageOptions { subpath: Some(path.clone()) });
        }
    }
    Ok(made)
}

/// Mounts volumes of the container before it again, each at its place: where the file has an anonymous one, and where it
/// has nothing and the image may.
pub(in super::super) fn carry(
    container: &Container,
    carried: &[MadeMount],
    host: &mut HostConfig,
) -> Result<(), StartProblem> {
    let own = file_directories(container)?;
    for old in carried.iter().filter(|old| !own.contains(&old.target)) {
        let is_there = |mount: &&Mount| mount.target == old.target;
        let is_anonymous = match container.mounts.iter().find(is_there).map(|mount| &mount.source) {
            Some(MountSource::Volume { name, .. }) => name.is_none(),
            Some(_) => false,
            None => !container.tmpfs.contains_key(&old.target),
        };
        if !is_anonymous {
            continue;
        }
        let mounts = host.mounts.get_or_insert_default();
        if let Some(mount) = mounts.iter_mut().find(|mount| mount.target.as_ref() == Some(&old.target)) {
            mount.source = Some(old.source.clone());
            continue;
        }
        mounts.push(EngineMount {
            target: Some(old.target.clone()),
            source: Some(old.source.clone()),
            typ: Some(MountType::VOLUME),
            read_only: Some(!old.writable),
            ..EngineMount::default()
        });
    }
    Ok(())
}

/// The directories of secrets and configs that need a volume of their own: the Engine writes no file into a read-only
/// root, and what it writes below a tmpfs is covered when the container starts.
pub(in super::super) fn file_directories(container: &Container) -> Result<BTreeSet<String>, StartProblem> {
    let tmpfs: Vec<&str> = container
        .tmpfs
        .keys()
        .map(String::as_str)
        .chain(container.mounts.iter().filter_map(|mount| {
            matches!(mount.source, MountSource::Tmpfs { .. }).then_some(mount.target.as_str())
        }))
        .collect();
    let mut directories = BTreeSet::new();
    for file in &container.files {
        let target = std::path::Path::new(&file.target);
        let is_covered = tmpfs.iter().any(|path| target.starts_with(path));
        if !container.isolation.read_only && !is_covered {
            continue;
        }
        let directory = target.parent().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
        if container.mounts.iter().any(|mount| mount.target == directory && !is_tmpfs(mount)) {
            continue;
        }
        if directory.is_empty() || directory == "/" || tmpfs.contains(&directory.as_str()) {
            return Err(StartProblem::permanent(format!(
                "`{}` can't be put at {}: the container's root is read-only or a tmpfs is there; give it a target in \
                 a directory of its own, such as /run/secrets/{}",
                file.name, file.target, file.name
            )));
        }
        directories.insert(directory);
    }
    Ok(directories)
}

fn is_tmpfs(mount: &Mount) -> bool {
    matches!(mount.source, MountSource::Tmpfs { .. })
}
