//! A registry of a test's own.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// How long a registry may take to listen on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// `docker-registry serve`, ended with the value.
pub(crate) struct Registry {
    child: Child,
    pub(crate) port: u16,
    log: PathBuf,
}

impl Registry {
    /// Serves the images in `dir`; with `user:password`, to that user only.
    pub(crate) fn start(dir: &Path, login: Option<(&str, &str)>) -> Self {
        Self::start_on(dir, free_port(), login)
    }

    pub(crate) fn start_on(dir: &Path, port: u16, login: Option<(&str, &str)>) -> Self {
        let root = dir.join("registry");
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n\
             storage: {{filesystem: {{rootdirectory: '{}'}}}}\n",
            root.display()
        );
        if let Some((user, password)) = login {
            let entry = Command::new("htpasswd").args(["-Bbn", user, password]).output().unwrap();
            let file = dir.join("htpasswd");
            fs::write(&file, entry.stdout).unwrap();
            config += &format!("auth: {{htpasswd: {{realm: bulsa, path: '{}'}}}}\n", file.display());
        }
        let path = dir.join(format!("registry-{port}.yml"));
        fs::write(&path, config).unwrap();
        let log = dir.join(format!("registry-{port}.log"));
        let out = File::create(&log).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(path).stdin(Stdio::null());
        command.stdout(out.try_clone().unwrap()).stderr(out);
        let mut registry = Self { child: command.spawn().unwrap(), port, log };
        let begun = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            let ended = registry.child.try_wait().unwrap();
            assert!(ended.is_none(), "the registry ended: {}", registry.log());
            assert!(begun.elapsed() < LIMIT, "the registry doesn't listen: {}", registry.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        registry
    }

    /// Everything that it wrote: one line for each request too.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself; the test fails for its own reason then.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}
