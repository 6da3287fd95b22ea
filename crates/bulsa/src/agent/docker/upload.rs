//! Secrets and configs as files in a container that is not started yet.
//!
//! Owns: the archives that the Engine unpacks there: owner, group and permission bits are in their headers. Never:
//! writes what is in them to a disk of this host, or into a message.

use std::collections::BTreeMap;

use bollard::query_parameters::UploadToContainerOptionsBuilder;
use bulsa_core::spec::container::{Container, FileGrant};
use bytes::Bytes;

use super::{Docker, StartProblem, WORK_MAX, create::mounts};

/// Permission bits where the file says nothing, as Compose has them.
const MODE_DEFAULT: u32 = 0o444;

impl Docker {
    /// Puts every file of `container` into the created container `id`.
    pub(super) async fn upload(&self, id: &str, container: &Container) -> Result<(), StartProblem> {
        for (directory, archive) in archives(container)? {
            let options = UploadToContainerOptionsBuilder::new().path(&directory).build();
            let body = bollard::body_full(Bytes::from(archive));
            let work = self.client().upload_to_container(id, Some(options), body);
            self.call("asked to put secrets and configs into a container", WORK_MAX, work).await.map_err(
                |error| {
                    StartProblem::passing(format!("its secrets and configs can't be put into it: {error}"))
                },
            )?;
        }
        Ok(())
    }
}

/// The archives, by the directory that they are unpacked in.
fn archives(container: &Container) -> Result<BTreeMap<String, Vec<u8>>, StartProblem> {
    let volumes = mounts::file_directories(container)?;
    let mounted: Vec<&str> = container.mounts.iter().map(|mount| mount.target.as_str()).collect();
    let mut files: BTreeMap<String, Vec<(&FileGrant, &str)>> = BTreeMap::new();
    for file in &container.files {
        let split = file.target.rsplit_once('/').filter(|(_, name)| !name.is_empty());
        let Some((directory, name)) = split.filter(|_| file.target.starts_with('/')) else {
            return Err(StartProblem::permanent(format!(
                "`{}` has the target {}: it must be an absolute path of a file",
                file.name, file.target
            )));
        };
        // The Engine looks for a volume at the directory that it is told, so one that is mounted is named as it is.
        if volumes.contains(directory) || mounted.contains(&directory) {
            files.entry(directory.to_owned()).or_default().push((file, name));
        } else {
            let path = file.target.trim_start_matches('/');
            files.entry("/".to_owned()).or_default().push((file, path));
        }
    }
    files.into_iter().map(|(directory, files)| Ok((directory, archive(&files)?))).collect()
}

fn archive(files: &[(&FileGrant, &str)]) -> Result<Vec<u8>, StartProblem> {
    let mut builder = tar::Builder::new(Vec::new());
    for (file, path) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(file.content.len() as u64);
        header.set_mode(file.mode.unwrap_or(MODE_DEFAULT));
        header.set_uid(number(file.uid.as_deref(), "uid", file)?);
        header.set_gid(number(file.gid.as_deref(), "gid", file)?);
        header.set_entry_type(tar::EntryType::Regular);
        builder.append_data(&mut header, path, file.content.as_slice()).map_err(|error| {
            StartProblem::permanent(format!("`{}` can't be put at {}: {error}", file.name, file.target))
        })?;
    }
    builder
        .into_inner()
        .map_err(|error| StartProblem::permanent(format!("an archive of secrets can't be made: {error}")))
}

fn number(text: Option<&str>, key: &str, file: &FileGrant) -> Result<u64, StartProblem> {
    text.map_or(Ok(0), |text| {
        text.parse().map_err(|_| {
            StartProblem::permanent(format!("`{key}: {text}` of `{}` must be a number", file.name))
        })
    })
}

#[cfg(test)]
mod tests {
    use bulsa_core::spec::container::{Mount, MountSource};

    use super::*;

    fn file(target: &str) -> FileGrant {
        FileGrant {
            name: "key".to_owned(),
            target: target.to_owned(),
            content: b"x".to_vec(),
            ..FileGrant::default()
        }
    }

    fn unpacked(archive: &[u8]) -> Vec<(String, u32, u64)> {
        let mut archive = tar::Archive::new(archive);
        let read = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
            let entry = entry.unwrap();
            let header = entry.header();
            (entry.path().unwrap().display().to_string(), header.mode().unwrap(), header.uid().unwrap())
        };
        archive.entries().unwrap().map(read).collect()
    }

    #[test]
    fn files_go_to_the_root_with_their_rights() {
        let own = FileGrant { uid: Some("33".to_owned()), mode: Some(0o400), ..file("/run/secrets/key") };
        let container = Container { files: vec![own, file("/conf")], ..Container::default() };
        let archives = archives(&container).unwrap();
        let expected = [("run/secrets/key".to_owned(), 0o400, 33), ("conf".to_owned(), 0o444, 0)];
        assert_eq!(unpacked(&archives["/"]), expected);
    }

    #[test]
    fn a_read_only_root_and_a_tmpfs_get_a_directory_of_their_own() {
        let mut container = Container { files: vec![file("/run/secrets/key")], ..Container::default() };
        container.isolation.read_only = true;
        assert_eq!(unpacked(&archives(&container).unwrap()["/run/secrets"])[0].0, "key");
        container.isolation.read_only = false;
        container.tmpfs.insert("/run".to_owned(), String::new());
        assert!(archives(&container).unwrap().contains_key("/run/secrets"));
        container.files = vec![file("/run/key")];
        assert!(archives(&container).unwrap_err().message.contains("a directory of its own"));
    }

    #[test]
    fn a_file_in_a_volume_is_put_through_its_mount() {
        let volume =
            MountSource::Volume { name: None, no_copy: false, subpath: None, labels: BTreeMap::new() };
        let mount =
            Mount { target: "/etc/app".to_owned(), source: volume, read_only: false, consistency: None };
        let container =
            Container { files: vec![file("/etc/app/key")], mounts: vec![mount], ..Container::default() };
        assert!(archives(&container).unwrap().contains_key("/etc/app"));
    }

    #[test]
    fn names_of_users_and_relative_targets_are_told() {
        for bad in [FileGrant { uid: Some("www".to_owned()), ..file("/x") }, file("x"), file("/x/")] {
            let container = Container { files: vec![bad], ..Container::default() };
            assert!(archives(&container).unwrap_err().permanent);
        }
    }
}
