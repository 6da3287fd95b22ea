//! What the jobs of a release write, told to whoever waits for the deployment, while they run: a migration that takes long
//! is no hang.
//!
//! Owns: how far each job's output was told. Never: keeps output; that is in the replica's log.

use bulsa_core::{
    ids::{ReleaseId, ReplicaId},
    spec::Role,
    wire::api::ProgressKind,
};

use super::Driver;
use crate::agent::process::logs;

/// At most so much of a job's output is looked at at once, in bytes; what is left comes the next time.
const LOOK_BYTES: usize = 64 << 10;
/// At most so many lines of it are told at once, the last ones; the others are counted.
const LINES_MAX: usize = 40;

impl Driver {
    /// Tells what the jobs of running deployments have written since they were looked at last.
    pub(super) fn tell_jobs_output(&mut self) {
        let mut jobs = Vec::new();
        for project in self.projects.values() {
            let Some(running) = project.desired.running() else { continue };
            let Some(release) = project.desired.releases.get(&running.candidate) else { continue };
            let services = release.spec.services.values().filter(|service| service.role == Role::Job);
            jobs.extend(services.map(|job| (project.name.clone(), job.name.clone(), running.candidate)));
        }
        for (name, job, release) in jobs {
            self.tell_output(&name, &job, release, false);
        }
    }

    /// Tells what a job has written; of one that has `ended` also a last line without an end.
    pub(super) fn tell_output(&mut self, name: &str, job: &str, release: ReleaseId, ended: bool) {
        let Some((id, path)) = self.newest_log(name, job, release) else { return };
        let Some(project) = self.projects.get_mut(name) else { return };
        let told = project.told.entry(job.to_owned()).or_default();
        if told.0.as_ref() != Some(&id) {
            *told = (Some(id), 0);
        }
        // What can't be read is no reason to say nothing of the deployment.
        let Ok(chunk) = logs::read_from(&path, told.1, LOOK_BYTES) else { return };
        let whole = match chunk.bytes.iter().rposition(|byte| *byte == b'\n') {
            _ if ended => chunk.bytes.len(),
            Some(end) => end + 1,
            None => return,
        };
        told.1 = chunk.next - (chunk.bytes.len() - whole) as u64;
        let text = String::from_utf8_lossy(&chunk.bytes[..whole]).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        let skipped = lines.len().saturating_sub(LINES_MAX);
        if skipped > 0 {
            let text = format!("  {job}: … {skipped} lines; `bulsa logs {job}` has them");
            self.progress(name, ProgressKind::Line, text);
        }
        for line in &lines[skipped..] {
            self.progress(name, ProgressKind::Line, format!("  {job}: {line}"));
        }
    }
}

/// Whose output was told, and how far, in bytes from its begin.
pub(super) type Told = (Option<ReplicaId>, u64);
