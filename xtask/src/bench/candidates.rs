//! The candidates, running.
//!
//! Owns: starting each peer with its configuration, proving that it answers as the backend does, and its processes.
//! Never: keeps one that answers something else.

use std::{fs::File, net::SocketAddr, process::Stdio, time::Duration};

use super::{
    group::Group,
    http::Wire,
    peers,
    place::Place,
    plan::Candidate,
    programs::{Program, Programs},
    stage::Stage,
    stop::Stop,
};
use crate::{measure::Error, run::say};

/// How long a peer may take until it answers.
const START_MAX: Duration = Duration::from_secs(20);
/// Bytes of its log that are shown where it doesn't.
const LOG_TAIL_BYTES: usize = 2048;

/// Where requests go, and where WebSockets go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Doors {
    pub(super) web: SocketAddr,
    pub(super) sockets: SocketAddr,
}

#[derive(Debug)]
enum Processes {
    /// Somebody else ends them.
    Pids(Vec<u32>),
    Group(Group),
}

/// A candidate that answers.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) candidate: Candidate,
    pub(super) doors: Doors,
    processes: Processes,
}

impl Running {
    pub(super) fn of_pids(candidate: Candidate, doors: Doors, pids: Vec<u32>) -> Self {
        Self { candidate, doors, processes: Processes::Pids(pids) }
    }

    pub(super) fn pids(&self) -> Result<Vec<u32>, Error> {
        match &self.processes {
            Processes::Pids(pids) => Ok(pids.clone()),
            Processes::Group(group) => group.pids(),
        }
    }

    /// Starts a candidate, and proves it.
    pub(super) fn start(
        candidate: Candidate,
        stage: &Stage,
        programs: &Programs,
        place: &Place,
        stop: &Stop,
    ) -> Result<Self, Error> {
        let running = match (candidate, programs.of(candidate)) {
            (Candidate::Bulsa, _) => stage.bulsa(),
            (_, Some(program)) => peer(candidate, program, stage.backend, place)?,
            (_, None) => return Err("there is no such program".into()),
        };
        let proven = stop.until(START_MAX, || running.prove(stage.backend));
        let last = |error| {
            let log = std::fs::read(place.path().join(candidate.name()).join("log")).unwrap_or_default();
            let tail = log.len().saturating_sub(LOG_TAIL_BYTES);
            format!("{error}\n{}", String::from_utf8_lossy(log.get(tail..).unwrap_or_default()))
        };
        proven.map_err(last)?;
        Ok(running)
    }

    /// Compares what comes through it with what the backend says itself.
    fn prove(&self, backend: Doors) -> Result<(), Error> {
        let (mut direct, mut through) = (Wire::open(backend.web)?, Wire::open(self.doors.web)?);
        for path in ["/", "/64k"] {
            if direct.ask(path)? != through.ask(path)? {
                return Err(format!("{path} is answered with other bytes than by the backend").into());
            }
        }
        let mut socket = Wire::open(self.doors.sockets)?;
        socket.upgrade()?;
        socket.echo()
    }
}

fn peer(candidate: Candidate, program: &Program, backend: Doors, place: &Place) -> Result<Running, Error> {
    let directory = place.directory_for(candidate.name())?;
    let doors = Doors::free()?;
    let log = File::create(directory.join("log"))?;
    let mut command = peers::command(candidate, program, &directory, doors, backend)?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Ok(Running { candidate, doors, processes: Processes::Group(Group::leader(&mut command)?) })
}

/// Starts all of these; each that can't be had is said and left out.
pub(super) fn start_all(
    candidates: &[Candidate],
    stage: &Stage,
    programs: &Programs,
    place: &Place,
    stop: &Stop,
) -> Result<Vec<Running>, Error> {
    let mut all = Vec::new();
    for candidate in candidates {
        match Running::start(*candidate, stage, programs, place, stop) {
            Ok(running) => all.push(running),
            Err(error) => {
                stop.check()?;
                say(&format!("warning: {} is left out: {error}", candidate.name()));
            }
        }
    }
    Ok(all)
}
