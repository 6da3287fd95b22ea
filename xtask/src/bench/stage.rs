//! Bulsa as it is shipped, with the backend that all candidates stand before.
//!
//! Owns: a daemon that runs the backend as its services' replicas, on the process engine. Never: gives Bulsa anything
//! that a user's compose file couldn't say.

use std::{fs, net::SocketAddr, path::Path};

use serde_json::Value;

use super::{
    candidates::{Doors, Running},
    place::{Place, small},
    plan::Candidate,
    programs::Program,
};
use crate::measure::{
    Error,
    daemon::{Daemon, free_port, processes},
};

/// A running daemon; ended when dropped, with the backend.
pub(super) struct Stage {
    _daemon: Daemon,
    /// Where the backend's replicas listen: every peer sends its requests there, as Bulsa's proxy does.
    pub(super) backend: Doors,
    published: Doors,
    pids: Vec<u32>,
}

impl Stage {
    /// Returns once both services are healthy.
    pub(super) fn start(place: &Place, nginx: &Program) -> Result<Self, Error> {
        let directory = place.directory_for("backend")?;
        let template = directory.join("nginx.conf.in");
        fs::write(&template, backend_config(&directory, place.served()))?;
        let script = directory.join("backend.sh");
        fs::write(&script, backend_script(&directory, nginx))?;
        let published = Doors::free()?;
        let file = place.path().join("compose.yaml");
        fs::write(&file, compose(&script, &place.xtask(), published))?;
        let daemon = Daemon::up(&place.bulsa(), &file)?;
        let status = daemon.status().ok_or("the daemon does not answer")?;
        let backend = Doors { web: replica_of(&status, "web")?, sockets: replica_of(&status, "sockets")? };
        let pids = processes(&status)?.map(|(_, pid)| pid).to_vec();
        Ok(Self { _daemon: daemon, backend, published, pids })
    }

    /// Bulsa as a candidate: the keeper, the agent and the proxy, and not the backend.
    pub(super) fn bulsa(&self) -> Running {
        Running::of_pids(Candidate::Bulsa, self.published, self.pids.clone())
    }
}

/// Where the only replica of a service listens.
fn replica_of(status: &Value, name: &str) -> Result<SocketAddr, Error> {
    let services = status["projects"][0]["services"].as_array().ok_or("the status has no services")?;
    let service = services.iter().find(|service| service["name"] == name);
    let address = service.and_then(|service| service["replicas"][0]["addr"].as_str());
    Ok(address.ok_or_else(|| format!("`{name}` has no replica"))?.parse()?)
}

fn compose(script: &Path, xtask: &Path, published: Doors) -> String {
    let (script, xtask) = (script.display(), xtask.display());
    let (web, sockets) = (published.web, published.sockets);
    format!(
        "name: bench\n\
         services:\n\
         \x20 web:\n\
         \x20   command: [\"sh\", \"{script}\"]\n\
         \x20   ports: [\"{web}:8000\"]\n\
         \x20   x-bulsa: {{route: {{protocol: http}}}}\n\
         \x20 sockets:\n\
         \x20   command: [\"{xtask}\", \"bench-backend\"]\n\
         \x20   ports: [\"{sockets}:8000\"]\n\
         \x20   x-bulsa: {{route: {{protocol: http}}}}\n"
    )
}

/// The replica gets its port when it is started.
fn backend_script(directory: &Path, nginx: &Program) -> String {
    let (directory, program) = (directory.display(), nginx.path().display());
    let libraries = nginx.library_path().unwrap_or_default();
    format!(
        "set -e\n\
         cd '{directory}'\n\
         sed \"s/@PORT@/$PORT/\" nginx.conf.in > \"nginx-$PORT.conf\"\n\
         export LD_LIBRARY_PATH='{libraries}'\n\
         exec '{program}' -p '{directory}' -e stderr -c \"nginx-$PORT.conf\"\n"
    )
}

/// Connections to it are never closed by it while a run lasts.
fn backend_config(directory: &Path, served: &Path) -> String {
    let (common, temporary) = (nginx_common(directory), nginx_temporary(directory));
    let (served, small) = (served.display(), small());
    format!(
        "{common}\
         http {{\n\
           access_log off;\n\
           {temporary}\
           default_type text/plain;\n\
           sendfile on;\n\
           open_file_cache max=16;\n\
           keepalive_requests 1000000000;\n\
           keepalive_timeout 1h;\n\
           server {{\n\
             listen 127.0.0.1:@PORT@ backlog=4096;\n\
             location = / {{ return 200 '{small}'; }}\n\
             location / {{ root '{served}'; }}\n\
           }}\n\
         }}\n"
    )
}

/// What every nginx of a run has: two workers, and its files in a directory of its own.
pub(super) fn nginx_common(directory: &Path) -> String {
    let directory = directory.display();
    // The workers' user must be able to read the directories of whoever runs this.
    let user = if rustix::process::geteuid().is_root() { "user root root;\n" } else { "" };
    format!(
        "{user}\
         daemon off;\n\
         worker_processes 2;\n\
         pid '{directory}/nginx.pid';\n\
         error_log stderr error;\n\
         events {{ worker_connections 32768; }}\n"
    )
}

/// Where an nginx puts what doesn't fit into its buffers.
pub(super) fn nginx_temporary(directory: &Path) -> String {
    ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path '{}/{name}';\n", directory.display()))
        .concat()
}

impl Doors {
    /// Ports that nobody has now.
    pub(super) fn free() -> Result<Self, Error> {
        let door = || Ok::<_, Error>(SocketAddr::from(([127, 0, 0, 1], free_port()?)));
        Ok(Self { web: door()?, sockets: door()? })
    }
}
