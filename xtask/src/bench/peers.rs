//! How each peer is configured: as its own documentation sets it up for this work, with its defaults otherwise.
//!
//! Owns: their configuration files and command lines. docs/benchmarks.md says the same in words. Never: starts them.

use std::{fs, path::Path, process::Command};

use rustix::process::{Resource, getrlimit};

use super::{
    candidates::Doors,
    limits,
    plan::Candidate,
    programs::Program,
    stage::{nginx_common, nginx_temporary},
};
use crate::measure::Error;

/// Go programs take a thread per core for their own code; the others are told the same in their configuration.
const THREADS: &str = "2";
/// What HAProxy sets memory aside for, at most.
const HAPROXY_CONNECTIONS_MAX: u64 = 30_000;

/// Writes a peer's configuration, and says how it is started.
pub(super) fn command(
    candidate: Candidate,
    program: &Program,
    directory: &Path,
    doors: Doors,
    backend: Doors,
) -> Result<Command, Error> {
    let write = |name: &str, text: String| -> Result<_, Error> {
        let path = directory.join(name);
        fs::write(&path, text)?;
        Ok(path)
    };
    let mut command = program.daemon();
    command.current_dir(directory);
    match candidate {
        Candidate::Bulsa => return Err("Bulsa is no peer of its own".into()),
        Candidate::Nginx | Candidate::Nginx64k => {
            let buffers = if candidate == Candidate::Nginx64k { NGINX_64K } else { "" };
            let file = write("nginx.conf", nginx(directory, buffers, doors, backend))?;
            command.arg("-p").arg(directory).args(["-e", "stderr", "-c"]).arg(file);
        }
        Candidate::Haproxy => {
            let file = write("haproxy.cfg", haproxy(doors, backend))?;
            command.args(["-db", "-f"]).arg(file);
        }
        Candidate::Caddy => {
            let file = write("Caddyfile", caddy(doors, backend))?;
            command.env("GOMAXPROCS", THREADS).env("HOME", directory);
            command.env("XDG_DATA_HOME", directory).env("XDG_CONFIG_HOME", directory);
            command.args(["run", "--adapter", "caddyfile", "--config"]).arg(file);
        }
        Candidate::Traefik => {
            let file = write("routes.yaml", traefik(backend))?;
            command.env("GOMAXPROCS", THREADS);
            command.arg(format!("--providers.file.filename={}", file.display()));
            command.arg(format!("--entrypoints.web.address={}", doors.web));
            command.arg(format!("--entrypoints.sockets.address={}", doors.sockets));
            // It talks to nobody but us.
            command.args(["--global.checknewversion=false", "--global.sendanonymoususage=false"]);
        }
        Candidate::Envoy => {
            let file = write("envoy.yaml", envoy(doors, backend))?;
            command.args(["--concurrency", THREADS, "--disable-hot-restart", "--log-level", "error"]);
            command.arg("--config-path").arg(file);
        }
    }
    Ok(command)
}

/// Room for an answer of 64 KiB, with its head.
const NGINX_64K: &str = "proxy_buffer_size 64k;\nproxy_buffers 8 64k;\nproxy_busy_buffers_size 128k;\n";

fn nginx(directory: &Path, buffers: &str, doors: Doors, backend: Doors) -> String {
    let (common, temporary) = (nginx_common(directory), nginx_temporary(directory));
    format!(
        "{common}\
         http {{\n\
         access_log off;\n\
         {temporary}{buffers}\
         upstream web {{ server {web}; keepalive 64; }}\n\
         upstream sockets {{ server {sockets}; }}\n\
         server {{\n\
           listen {web_door};\n\
           location / {{\n\
             proxy_pass http://web;\n\
             proxy_http_version 1.1;\n\
             proxy_set_header Connection \"\";\n\
           }}\n\
         }}\n\
         server {{\n\
           listen {sockets_door};\n\
           location / {{\n\
             proxy_pass http://sockets;\n\
             proxy_http_version 1.1;\n\
             proxy_set_header Upgrade $http_upgrade;\n\
             proxy_set_header Connection \"upgrade\";\n\
             proxy_read_timeout 1h;\n\
           }}\n\
         }}\n\
         }}\n",
        web = backend.web,
        sockets = backend.sockets,
        web_door = doors.web,
        sockets_door = doors.sockets,
    )
}

fn haproxy(doors: Doors, backend: Doors) -> String {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let connections = limits::connections(files).min(HAPROXY_CONNECTIONS_MAX);
    format!(
        "global\n  nbthread 2\n  maxconn {connections}\n\
         defaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n  timeout tunnel 1h\n\
         frontend web\n  bind {}\n  default_backend web\n\
         frontend sockets\n  bind {}\n  default_backend sockets\n\
         backend web\n  server one {}\n\
         backend sockets\n  server one {}\n",
        doors.web, doors.sockets, backend.web, backend.sockets
    )
}

fn caddy(doors: Doors, backend: Doors) -> String {
    let site = |door: std::net::SocketAddr, to: std::net::SocketAddr| {
        format!(
            "http://:{} {{\n  bind {}\n  reverse_proxy {to} {{\n    transport http {{\n      \
             keepalive_idle_conns_per_host 64\n    }}\n  }}\n}}\n",
            door.port(),
            door.ip()
        )
    };
    let options =
        "{\n  admin off\n  auto_https off\n  persist_config off\n  log {\n    level ERROR\n  }\n}\n";
    format!("{options}{}{}", site(doors.web, backend.web), site(doors.sockets, backend.sockets))
}

fn traefik(backend: Doors) -> String {
    let parts = [("web", backend.web), ("sockets", backend.sockets)];
    let routers = parts.map(|(name, _)| {
        format!(
            "    {name}:\n      entryPoints: [{name}]\n      rule: \"PathPrefix(`/`)\"\n      service: {name}\n"
        )
    });
    let services = parts.map(|(name, address)| {
        format!("    {name}:\n      loadBalancer:\n        servers:\n          - url: \"http://{address}\"\n")
    });
    format!("http:\n  routers:\n{}  services:\n{}", routers.concat(), services.concat())
}

fn envoy(doors: Doors, backend: Doors) -> String {
    let listener = |name: &str, door: std::net::SocketAddr| {
        format!(
            r#"
  - name: {name}
    address: {{socket_address: {{address: {ip}, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: {name}
          upgrade_configs: [{{upgrade_type: websocket}}]
          route_config:
            virtual_hosts:
            - name: {name}
              domains: ["*"]
              routes:
              - match: {{prefix: "/"}}
                route: {{cluster: {name}, timeout: 0s}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"#,
            ip = door.ip(),
            port = door.port()
        )
    };
    let cluster = |name: &str, to: std::net::SocketAddr| {
        format!(
            r#"
  - name: {name}
    type: STATIC
    circuit_breakers:
      thresholds: [{{max_connections: 100000, max_pending_requests: 100000, max_requests: 100000}}]
    load_assignment:
      cluster_name: {name}
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: {ip}, port_value: {port}}}}}}}"#,
            ip = to.ip(),
            port = to.port()
        )
    };
    format!(
        "static_resources:\n  listeners:{}{}\n  clusters:{}{}\n",
        listener("web", doors.web),
        listener("sockets", doors.sockets),
        cluster("web", backend.web),
        cluster("sockets", backend.sockets)
    )
}
