//! What is said to the daemon about one container: put these, delete those.
//!
//! Owns: a tar on its way, again where the agent died meanwhile, and the words for what can't be done. Never: knows what
//! changed.

use std::{io, path::Path};

use bulsa_core::{
    compose::develop::Copied,
    sync::Put,
    wire::api::{SyncOwner, SyncRan, SyncRun},
};
use bytes::Bytes;
use tokio::sync::mpsc;

use super::{copy::On, tell};
use crate::{
    cli::{
        follow,
        pack::{PIECES_WAITING, Pieces, append},
    },
    client::{ClientError, Place},
    report::CommandError,
};

/// So often is one copy tried: the agent may be replaced meanwhile, a file may shrink while it is read.
const TRIES: usize = 3;

/// Deletes in a container that runs; what can't be deleted, in words.
pub(super) async fn remove(
    service: &str,
    container: &str,
    places: &[String],
    on: &On<'_>,
) -> Result<Option<CommandError>, ClientError> {
    let words = ["rm", "-rf", "--"].map(str::to_owned).into_iter();
    let run = SyncRun {
        project: on.project.to_owned(),
        container: container.to_owned(),
        command: words.chain(places.iter().cloned()).collect(),
        user: Some("0".to_owned()),
        working_dir: Some("/".to_owned()),
        ..SyncRun::default()
    };
    let Some(why) = failure(on.client.sync_run(&run).await?) else { return Ok(None) };
    let more = places.len().saturating_sub(1);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    let first = places.first().map(String::as_str).unwrap_or_default();
    Ok(Some(CommandError::user(format!(
        "{first}{more} can't be deleted in a replica of `{service}`, and stays there (`rm`: {why})"
    ))))
}

/// Puts files into a container, running or not.
pub(super) async fn put(
    service: &str,
    container: &str,
    copied: &Copied,
    (files, owner): (&[Put], SyncOwner),
    on: &On<'_>,
) -> Result<(), ClientError> {
    let place = Place { project: on.project, container, path: &copied.base };
    let mut tries = 0;
    loop {
        let (pieces, tar) = mpsc::channel(PIECES_WAITING);
        let files = files.to_vec();
        let packing = tokio::task::spawn_blocking(move || pack(&files, owner, &pieces));
        let sent = on.client.sync_files(place, tar).await;
        // It ends with the receiver, which is dropped by now.
        let packed = packing.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        tries += 1;
        match (sent, packed) {
            (Ok(()), Ok(None)) => return Ok(()),
            (Ok(()), Ok(Some(unreadable))) => {
                tell(on.say, format!("not copied into `{service}`: {unreadable}")).await;
                return Ok(());
            }
            (Err(error), _) if error.may_pass() && tries < TRIES => {
                // An agent that isn't back in time is told of by the next try.
                follow::back(on.client).await.ok();
            }
            (Err(error), Ok(_)) => return Err(error),
            (_, Err(error)) => return Err(ClientError::Unreadable { detail: error.to_string() }),
        }
    }
}

/// Writes the tar; the first file that can't be read, if there is one. What is gone by now is told by the next look.
fn pack(
    files: &[Put],
    owner: SyncOwner,
    pieces: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<Option<String>> {
    let mut archive = tar::Builder::new(Pieces::new(pieces));
    let mut unreadable = None;
    for file in files {
        match append(&mut archive, Path::new(&file.path), Path::new(&file.place), owner) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                unreadable.get_or_insert_with(|| format!("{}: {error}", file.path));
            }
            Err(error) => {
                // The Engine must not take a part for the whole; nobody listening is no trouble here.
                pieces.blocking_send(Err(io::Error::other("a file can't be read"))).ok();
                return Err(io::Error::new(error.kind(), format!("{}: {error}", file.path)));
            }
        }
    }
    io::Write::flush(&mut archive.into_inner()?)?;
    Ok(unreadable)
}

/// Why a command is no success.
pub(super) fn failure(ran: SyncRan) -> Option<String> {
    let said = |output: String| if output.is_empty() { String::new() } else { format!(": {output}") };
    match ran {
        SyncRan::Ended { code: 0, .. } => None,
        SyncRan::Ended { code, output } => Some(format!("it ended with {code}{}", said(output))),
        SyncRan::TooLong { output } => Some(format!("it did not end in time{}", said(output))),
        SyncRan::Not { reason } => Some(format!("it can't be run: {reason}")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_tar_has_what_is_there_and_whose_the_target_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        fs::create_dir(path("lib")).unwrap();
        fs::write(path("lib/a"), "text").unwrap();
        std::os::unix::fs::symlink("a", path("lib/b")).unwrap();
        let files = ["lib", "lib/a", "lib/b", "gone"]
            .map(|name| Put { place: format!("app/{name}"), path: path(name) });
        let (pieces, mut tar) = mpsc::channel(PIECES_WAITING);
        assert_eq!(pack(&files, SyncOwner { uid: 7, gid: 8 }, &pieces).unwrap(), None);
        drop(pieces);
        let mut bytes = Vec::new();
        while let Some(piece) = tar.blocking_recv() {
            bytes.extend_from_slice(&piece.unwrap());
        }
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entries: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (7, 8));
                (entry.path().unwrap().display().to_string(), header.entry_type())
            })
            .collect();
        let expected = [
            ("app/lib", tar::EntryType::Directory),
            ("app/lib/a", tar::EntryType::Regular),
            ("app/lib/b", tar::EntryType::Symlink),
        ];
        assert_eq!(entries, expected.map(|(path, kind)| (path.to_owned(), kind)));
    }

    #[test]
    fn why_a_command_failed_is_said() {
        let ended = |code| SyncRan::Ended { code, output: "no".to_owned() };
        assert_eq!(failure(ended(0)), None);
        assert_eq!(failure(ended(2)).as_deref(), Some("it ended with 2: no"));
        let not = SyncRan::Not { reason: "no such program".to_owned() };
        assert_eq!(failure(not).as_deref(), Some("it can't be run: no such program"));
    }
}
