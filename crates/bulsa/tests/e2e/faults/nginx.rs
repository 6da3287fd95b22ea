//! nginx in Bulsa's place, for comparison: the same app, load and injuries, and the configuration of the posts. Only in
//! the long form.

use std::{fs, net::SocketAddr, process::Stdio, time::Duration};

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    time::{Instant, sleep, sleep_until},
};

use super::{
    app::{debian, is_possible, node_path},
    clients::Clients,
    deaths::{gap, kill_in_turn},
    hangs::watched,
    is_long,
    ledger::Ledger,
    seconds,
};
use crate::world::{LIMIT, LOOK_EVERY, fixture, free_port, kill, pid};

/// Two servers and nginx before them.
struct Nginx {
    target: SocketAddr,
    servers: Vec<Child>,
    ledger: Ledger,
    /// Ended and removed when this is dropped.
    _nginx: Child,
    _dir: TempDir,
}

impl Nginx {
    /// Starts them, with so many workers in each server, where this machine has the programs and the long form is wanted.
    async fn start(workers: &str) -> Option<Self> {
        let nginx = debian().map(|root| root.join("usr/sbin/nginx")).into_iter().find(|path| path.exists());
        let (true, true, Some(nginx)) = (is_long(), is_possible(), nginx) else {
            eprintln!("skipped: it is for the long form, and needs nginx (`cargo xtask parts` gets it)");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger(dir.path().join("ledger"));
        let ports = [free_port(), free_port()];
        let servers: Vec<Child> = ports.iter().map(|port| server(*port, &ledger, workers)).collect();
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        for port in ports {
            listens(at(port)).await;
        }
        let target = at(free_port());
        let config = dir.path().join("nginx.conf");
        fs::write(&config, configuration(&dir, ports, target)).unwrap();
        let mut command = Command::new(nginx);
        command.arg("-p").arg(dir.path()).arg("-c").arg(config).arg("-e").arg(dir.path().join("errors"));
        let nginx = command.stdin(Stdio::null()).kill_on_drop(true).spawn().unwrap();
        listens(target).await;
        Some(Self { target, servers, ledger, _nginx: nginx, _dir: dir })
    }

    fn servers(&self) -> Vec<i32> {
        self.servers.iter().map(|server| pid(server.id().unwrap())).collect()
    }
}

fn server(port: u16, ledger: &Ledger, workers: &str) -> Child {
    let mut command = Command::new("node");
    command.arg(fixture("faults/app.js")).env("PORT", port.to_string()).env("LEDGER", &ledger.0);
    command.env("WORKERS", workers).env("ON_TERM", "exit").env("START_MS", "0").env("APP_VERSION", "v1");
    command.env("NODE_PATH", node_path()).env("BULSA_TASK", port.to_string());
    command.stdin(Stdio::null()).kill_on_drop(true).spawn().unwrap()
}

/// As in the posts, and nothing else but where files are: one process, so that it ends with its test.
fn configuration(dir: &TempDir, ports: [u16; 2], target: SocketAddr) -> String {
    let upstream =
        ports.map(|port| format!("server 127.0.0.1:{port} weight=10 max_fails=3 fail_timeout=10s;"));
    let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {};", dir.path().join(name).display()));
    format!(
        "daemon off; master_process off; pid {pid};
         events {{ worker_connections 1024; }}
         http {{
           access_log off; {paths}
           upstream app {{ {upstream} }}
           server {{
             listen {target};
             location / {{ proxy_pass http://app; proxy_set_header X-Request-Id $request_id; }}
           }}
         }}",
        pid = dir.path().join("pid").display(),
        paths = paths.join(" "),
        upstream = upstream.join(" "),
    )
}

/// Waits until somebody listens there.
async fn listens(target: SocketAddr) {
    let end = Instant::now() + LIMIT;
    while TcpStream::connect(target).await.is_err() {
        assert!(Instant::now() < end, "nobody listens at {target}");
        sleep(LOOK_EVERY).await;
    }
}

async fn hangs(patience: Duration) {
    let Some(nginx) = Nginx::start("0").await else { return };
    let clients = Clients::start(nginx.target, 20, patience).await;
    let stopped = Instant::now();
    kill(nginx.servers()[0], Signal::STOP);
    sleep_until(stopped + watched()).await;
    kill(nginx.servers()[0], Signal::CONT);
    let account = clients.stop().await;
    assert!(account.failed() > 50, "the injury hurts nobody: {}", account.figures());
    eprintln!("nginx, hang, patience {} s: {}", patience.as_secs(), account.figures());
}

#[tokio::test]
async fn a_hung_replica_behind_nginx_costs_half_of_all_requests() {
    hangs(Duration::from_secs(10)).await;
}

#[tokio::test]
async fn a_hung_replica_behind_nginx_costs_patient_clients_much() {
    hangs(Duration::from_secs(70)).await;
}

#[tokio::test]
async fn workers_that_die_in_turn_behind_nginx_cost_quick_requests() {
    let Some(nginx) = Nginx::start("2").await else { return };
    let clients = Clients::start(nginx.target, 50, Duration::from_secs(10)).await;
    let (kills, _) = kill_in_turn(&nginx.servers(), &nginx.ledger, &clients).await;
    let each: Vec<_> = kills.windows(2).map(|two| clients.load.window(two[0].0, two[1].0).failed).collect();
    let account = clients.stop().await;
    assert!(account.fast.failed > 0, "the injury hurts nobody: {}", account.figures());
    eprintln!(
        "nginx, deaths of {} workers, {} apart: {}, from kill to kill {each:?}",
        kills.len(),
        seconds(gap()),
        account.figures(),
    );
}
