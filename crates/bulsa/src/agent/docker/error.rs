//! What can go wrong with an Engine, in words.
//!
//! Owns: the errors, and what the Engine's own texts mean for someone who wants a replica to run. Never: asks the
//! Engine anything.

use std::path::Path;

use bollard::errors::Error;

/// The Engine did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DockerError {
    /// `DOCKER_HOST` is no Unix socket.
    #[error(
        "DOCKER_HOST is `{host}`: only an Engine on this host is served, for example unix:///var/run/docker.sock"
    )]
    NotLocal {
        /// What it says.
        host: String,
    },
    /// Nobody answers, or not us.
    #[error(
        "no Docker Engine answers at {socket}: {detail}; running containers go on; is it running \
         (`systemctl status docker`), and may this user use it?"
    )]
    Unreachable {
        /// Where.
        socket: String,
        /// Why not.
        detail: String,
    },
    /// It is from before [`super::API_OLDEST`].
    #[error(
        "Docker Engine {version} is too old: API {}, and at least {}.{} is needed (Docker Engine 20.10)",
        api.map_or_else(|| "unknown".to_owned(), |(major, minor)| format!("{major}.{minor}")),
        super::API_OLDEST.0, super::API_OLDEST.1
    )]
    TooOld {
        /// Its version.
        version: String,
        /// Its API.
        api: Option<(u32, u32)>,
    },
    /// It runs as a user.
    #[error(
        "the Docker Engine at {socket} is rootless, which isn't supported yet: its containers' addresses can't be \
         reached from this host; use the system's Engine (DOCKER_HOST=unix:///var/run/docker.sock)"
    )]
    Rootless {
        /// Where it listens.
        socket: String,
    },
    /// It took the request and never answered.
    #[error("the Docker Engine was {what} and gave no answer within {seconds} s; running containers go on")]
    Silent {
        /// What it was asked.
        what: String,
        /// How long.
        seconds: u64,
    },
    /// It said no.
    #[error("the Docker Engine was {what} and refused: {message}")]
    Refused {
        /// What it was asked.
        what: String,
        /// The HTTP status.
        status: u16,
        /// Its words.
        message: String,
    },
    /// A network or volume of the file isn't as it must be.
    #[error("{0}")]
    Resource(String),
}

impl DockerError {
    pub(super) fn unreachable(socket: &Path, error: &Error) -> Self {
        Self::Unreachable { socket: socket.display().to_string(), detail: detail(error) }
    }

    pub(super) fn of(what: &str, socket: &Path, error: Error) -> Self {
        match error {
            Error::DockerResponseServerError { status_code, message } => Self::Refused {
                what: what.to_owned(),
                status: status_code,
                message: message.trim().to_owned(),
            },
            Error::RequestTimeoutError => {
                Self::Silent { what: what.to_owned(), seconds: super::ANSWER_MAX.as_secs() }
            }
            Error::JsonDataError { .. } | Error::JsonSerdeError { .. } | Error::DockerStreamError { .. } => {
                Self::Refused { what: what.to_owned(), status: 0, message: error.to_string() }
            }
            error => Self::unreachable(socket, &error),
        }
    }

    /// The HTTP status of a refusal.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Whether the Engine could not be talked to at all.
    #[must_use]
    pub fn is_engine_gone(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Silent { .. })
    }
}

/// The whole chain: a client error's own text says nothing.
fn detail(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    text
}

/// Why a replica was not started; nothing of it is left.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StartProblem {
    /// In plain words, with what to do.
    pub message: String,
    /// Whether another try without a change of the file, the image or the host can't succeed.
    pub permanent: bool,
    /// Whether the Engine didn't answer: it may be restarting.
    pub engine_gone: bool,
    /// Whether a network that it joins isn't there any more.
    pub network_missing: bool,
}

/// What another call than the start itself met.
impl From<DockerError> for StartProblem {
    fn from(error: DockerError) -> Self {
        Self { engine_gone: error.is_engine_gone(), ..Self::passing(error.to_string()) }
    }
}

impl StartProblem {
    /// One that lasts until something is changed.
    #[must_use]
    pub fn permanent(message: impl Into<String>) -> Self {
        Self { permanent: true, ..Self::passing(message) }
    }

    /// One that another try may not meet.
    #[must_use]
    pub fn passing(message: impl Into<String>) -> Self {
        Self { message: message.into(), permanent: false, engine_gone: false, network_missing: false }
    }

    /// What the Engine's refusal to create or start a container from `image` means.
    pub(super) fn from_engine(error: &DockerError, image: &str) -> Self {
        let DockerError::Refused { status, message, .. } = error else {
            return Self { engine_gone: error.is_engine_gone(), ..Self::passing(error.to_string()) };
        };
        let said = format!("Docker said: {message}");
        let has = |part: &str| message.contains(part);
        if *status == 404 && has("No such image") {
            return Self::permanent(format!(
                "the image {image} is not on this host: pull or build it; {said}"
            ));
        }
        if let Some(told) = from_runtime(message) {
            return Self::permanent(format!("{told}; {said}"));
        }
        if has("port is already allocated") || has("address already in use") {
            return Self::passing(format!(
                "a port that it publishes is taken by something else: `ss -ltnp` and `docker ps` show by what; {said}"
            ));
        }
        if has("bind source path does not exist") {
            return Self::permanent(format!(
                "a directory or file that it mounts is not on this host: make it, or let it be made with \
                 `bind: {{create_host_path: true}}`; {said}"
            ));
        }
        if has("are mounting a directory onto a file") || has("not a directory") {
            return Self::permanent(format!("a mount joins a directory and a file: {said}"));
        }
        if has("user configured subnets") || has("user-configured subnets") {
            return Self::permanent(format!(
                "a fixed address needs a network with a subnet of its own: give the network `ipam.config`, or let \
                 Bulsa make it anew after `docker network rm`; {said}"
            ));
        }
        if has("Address already in use") {
            return Self::passing(format!("its fixed address is taken by another container: {said}"));
        }
        if has("network") && (has("not found") || has("No such network")) {
            let gone = Self::passing(format!("a network that it joins is gone: {said}"));
            return Self { network_missing: true, ..gone };
        }
        if has("could not select device driver") || has("error gathering device information") {
            return Self::permanent(format!("a device that it asks for is not on this host: {said}"));
        }
        if has("unknown or invalid runtime name") || has("Unknown runtime specified") {
            return Self::permanent(format!("its `runtime` is not known to this Engine: {said}"));
        }
        if has("no space left on device") {
            return Self::passing(format!("the disk is full: {said}"));
        }
        // 400 is the Engine's word for a request that is wrong in itself.
        let refused = format!("the Engine refused it: {message}");
        Self { permanent: *status == 400, ..Self::passing(refused) }
    }

    /// What the last line of a container's output tells of a program that could not be run at all: the OCI runtime
    /// writes there when it has let go of the container already.
    #[must_use]
    pub fn from_last_words(line: &str) -> Option<Self> {
        let is_runtimes = line.contains("exec /") || line.contains("exec user process");
        let told = is_runtimes.then(|| from_runtime(line)).flatten()?;
        Some(Self::permanent(format!("{told}; it ended with: {line}")))
    }
}

fn from_runtime(message: &str) -> Option<String> {
    let has = |part: &str| message.contains(part);
    if has("exec format error") {
        return Some(
            "its program can't run on this processor, or is a script without `#!`: the image is for another \
             platform, or the file is broken"
                .to_owned(),
        );
    }
    if has("executable file not found") || (has("exec") && has("no such file or directory") && !has("mount"))
    {
        return Some(
            "its program is not in the image: look at `command`, `entrypoint` and the image".to_owned(),
        );
    }
    if has("exec") && has("permission denied") && !has("mount") {
        return Some(
            "its program may not be run: it lacks the executable bit, or `user` may not run it".to_owned(),
        );
    }
    if has("unable to find user") || has("no matching entries in passwd file") {
        return Some(
            "its `user` is not in the image's /etc/passwd: give a number, or a name that is".to_owned(),
        );
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, message: &str) -> StartProblem {
        let what = "asked to start a container".to_owned();
        StartProblem::from_engine(
            &DockerError::Refused { what, status, message: message.to_owned() },
            "shop:1",
        )
    }

    #[test]
    fn the_engines_words_become_plain_ones() {
        // The texts are those of Docker Engine 20.10 and 28.5.
        let cases = [
            (404, "No such image: shop:1", "the image shop:1 is not on this host", true),
            (
                400,
                "failed to create shim: OCI runtime create failed: container_linux.go:380: starting container process \
                 caused: exec: \"/nope\": stat /nope: no such file or directory: unknown",
                "not in the image",
                true,
            ),
            (
                400,
                "failed to create task for container: failed to create shim task: OCI runtime create failed: runc \
                 create failed: unable to start container process: exec: \"nope\": executable file not found in $PATH",
                "not in the image",
                true,
            ),
            (
                500,
                "driver failed programming external connectivity on endpoint x (a): Bind for 0.0.0.0:80 failed: \
                 port is already allocated",
                "a port that it publishes is taken",
                false,
            ),
            (
                400,
                "invalid mount config for type \"bind\": bind source path does not exist: /nope",
                "make it",
                true,
            ),
            (404, "network shop_default not found", "a network that it joins is gone", false),
            (500, "unable to find user ghost: no matching entries in passwd file", "`user`", true),
            (400, "something new", "the Engine refused it: something new", true),
            (500, "something odd", "the Engine refused it: something odd", false),
        ];
        for (status, message, expected, permanent) in cases {
            let problem = refused(status, message);
            assert!(problem.message.contains(expected), "{message} became {problem}");
            assert_eq!(problem.permanent, permanent, "{message}");
            assert!(problem.message.contains(message), "the Engine's own words are lost: {problem}");
        }
    }

    #[test]
    fn an_engine_that_is_gone_is_no_fault_of_the_service() {
        let gone = DockerError::Unreachable { socket: "/s".to_owned(), detail: "refused".to_owned() };
        assert!(!StartProblem::from_engine(&gone, "x").permanent);
        assert!(gone.is_engine_gone());
    }

    #[test]
    fn last_words_of_the_runtime_are_told_from_those_of_the_app() {
        let runtime = "standard_init_linux.go:228: exec user process caused: exec format error";
        let problem = StartProblem::from_last_words(runtime).unwrap();
        assert!(problem.permanent);
        assert!(problem.message.contains(runtime), "the runtime's own words are lost: {problem}");
        assert!(StartProblem::from_last_words("exec /app/run: exec format error").is_some());
        assert!(StartProblem::from_last_words("my plugin: exec format error").is_none());
        assert!(StartProblem::from_last_words("no such file or directory").is_none());
    }
}
