//! The output of containers, copied to the same files that processes write to.
//!
//! Owns: one follower per container, from the Engine's log stream to the replica's log. So `bulsa logs`, a failed gate's
//! last lines and an incident's evidence are the same on every engine, and are there when the container isn't any more.
//! A copy says itself how far it came: its file's time of modification is the moment of the last line in it, so that
//! whoever goes on with it, also after this agent's death, repeats no line and leaves none out.
//! Never: slows a container down: the Engine keeps the output, and a follower that falls behind is what waits.

use std::{
    fs::File,
    io::{self, Write},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bulsa_core::ids::ReplicaId;
use futures_util::StreamExt;
use tokio::{task::JoinHandle, time::timeout};

use super::Driver;
use crate::agent::docker::{Docker, LogLine, LogQuery};

/// How long the end of a dead container's output is waited for.
const LAST_LINES_WAIT: Duration = Duration::from_secs(2);
/// So many bytes of output are copied from one container in a second; one that writes more is copied more slowly.
const BYTES_PER_SECOND: usize = 2 << 20;

impl Driver {
    /// Has a container's output copied to its replica's log, from now on or, for an adopted one, from where the copy of
    /// an earlier agent ends.
    pub(super) fn follow_output(&mut self, name: &str, id: &ReplicaId, container: &str) {
        // One that is finished has copied everything there was.
        if self.docker.followers.contains_key(container) {
            return;
        }
        let Ok(engine) = self.engine() else { return };
        let (path, file) = match self.logs.open(name, id) {
            Ok(opened) => opened,
            Err(error) => return self.warn(name, "logs", error.to_string()),
        };
        if let Some(meta) = self.projects.get_mut(name).and_then(|project| project.meta.get_mut(id)) {
            meta.note.log = Some(path);
        }
        let copied = file.metadata().ok().filter(|metadata| metadata.len() > 0);
        let since = copied.and_then(|metadata| metadata.modified().ok());
        let follower = tokio::spawn(copy(engine, container.to_owned(), since, file));
        self.docker.followers.insert(container.to_owned(), follower);
    }
}

/// Copies until the container ends. What can't be copied any more is still at the Engine.
async fn copy(engine: Docker, container: String, since: Option<SystemTime>, mut file: File) {
    let since = since.and_then(|since| since.duration_since(UNIX_EPOCH).ok());
    let since_ns = since.and_then(|since| u64::try_from(since.as_nanos()).ok());
    // The line of that very moment is there already.
    let since_ns = since_ns.map(|last| last.saturating_add(1));
    let mut lines =
        std::pin::pin!(engine.logs(&container, LogQuery { since_ns, follow: true, ..LogQuery::default() }));
    let mut copied = 0;
    while let Some(line) = lines.next().await {
        let written = line.map_err(|error| error.to_string()).and_then(|line| {
            copied += line.text.len() + 1;
            append(&mut file, line).map_err(|error| error.to_string())
        });
        if let Err(error) = written {
            tracing::debug!(container, error, "the output of a container is copied no further");
            return;
        }
        if copied > BYTES_PER_SECOND {
            tokio::time::sleep(Duration::from_secs(1)).await;
            copied = 0;
        }
    }
}

/// Writes a line, and when it was written first.
fn append(file: &mut File, line: LogLine) -> io::Result<()> {
    let mut text = line.text.into_bytes();
    text.push(b'\n');
    file.write_all(&text)?;
    match line.at_ns {
        Some(at) => file.set_modified(UNIX_EPOCH + Duration::from_nanos(at)),
        None => Ok(()),
    }
}

/// Waits until a dead container's output is copied.
pub(super) async fn finish(mut follower: JoinHandle<()>) {
    if timeout(LAST_LINES_WAIT, &mut follower).await.is_err() {
        follower.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_says_how_far_it_came() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("web-r1-1.1.log");
        let mut file = File::options().append(true).create(true).open(&path).unwrap();
        let at_ns = Some(1_795_852_800_123_456_789);
        append(&mut file, LogLine { at_ns, is_stderr: false, text: "hello".to_owned() }).unwrap();
        let modified = path.metadata().unwrap().modified().unwrap();
        let modified = modified.duration_since(UNIX_EPOCH).unwrap().as_nanos();
        assert_eq!(Some(modified), at_ns.map(u128::from));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "hello\n");
    }
}
