use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
};

use super::*;

fn addresses(list: &[&str]) -> Vec<SocketAddr> {
    list.iter().map(|address| address.parse().unwrap()).collect()
}

fn chosen(list: &[&str], isolated: Option<&str>, dual: bool) -> Option<Listening> {
    choose(&addresses(list), isolated.map(|ip| ip.parse().unwrap()), |_| Ok(dual)).unwrap()
}

fn at(address: &str) -> Option<Listening> {
    Some(Listening::At(address.parse().unwrap()))
}

#[test]
fn the_address_to_connect_to_follows_from_the_address_listened_on() {
    assert_eq!(chosen(&["0.0.0.0:80"], None, true), at("127.0.0.1:80"));
    assert_eq!(chosen(&["127.0.0.1:80"], None, true), at("127.0.0.1:80"));
    assert_eq!(chosen(&["127.0.0.5:80"], None, true), at("127.0.0.5:80"));
    assert_eq!(chosen(&["[::]:80"], None, true), at("127.0.0.1:80"));
    assert_eq!(chosen(&["[::]:80"], None, false), at("[::1]:80"));
    assert_eq!(chosen(&["[::1]:80"], None, true), at("[::1]:80"));
    assert_eq!(chosen(&["192.0.2.4:80"], None, true), at("192.0.2.4:80"));
    assert_eq!(chosen(&["[::1]:80", "127.0.0.1:80"], None, true), at("127.0.0.1:80"));
    assert_eq!(chosen(&[], None, true), None);
}

#[test]
fn inside_its_own_namespace_a_replica_is_reached_at_its_address_and_never_on_its_loopback() {
    let own = Some("100.64.0.2");
    assert_eq!(chosen(&["0.0.0.0:80"], own, true), at("100.64.0.2:80"));
    assert_eq!(chosen(&["[::]:80"], own, true), at("100.64.0.2:80"));
    assert_eq!(chosen(&["127.0.0.1:80", "100.64.0.2:80"], own, true), at("100.64.0.2:80"));
    let hidden = Listening::Unreachable("127.0.0.1:80".parse().unwrap());
    assert_eq!(chosen(&["127.0.0.1:80"], own, true), Some(hidden));
}

#[test]
fn a_dual_stack_listener_is_told_from_a_v6_only_one() {
    let Ok(dual) = TcpListener::bind("[::]:0") else { return println!("skipped: no IPv6 here") };
    assert!(dual_stack(dual.local_addr().unwrap().port()).unwrap());
    let port = unused_port();
    let Ok(_v6) = TcpListener::bind(("::1", port)) else { return println!("skipped: no IPv6 loopback here") };
    assert!(!dual_stack(port).unwrap());
}

/// A process (in its own group) that runs `program` and has said on its standard output that it is ready.
struct Replica {
    child: Child,
    /// The first line of its output.
    said: String,
}

impl Replica {
    fn start(program: &str, arguments: &[&str]) -> Option<Self> {
        let mut command = Command::new("python3");
        command.args(["-u", "-c", program]).args(arguments);
        command.env(super::super::TASK_VARIABLE, "test/web-r1-1.1");
        let child = command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let Ok(mut child) = child else {
            println!("skipped: there is no python3");
            return None;
        };
        let mut said = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
        Some(Self { child, said: said.trim_end().to_owned() })
    }

    fn check(&self, port: u16, fallback: Option<u16>) -> Listening {
        let task = Some("test/web-r1-1.1");
        check(&Expected { pid: self.child.id(), task, port, fallback, isolated: None }).unwrap()
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        // Each program below ends when its standard input does.
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
    }
}

const LISTENS: &str = "
import socket, sys
s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1]); sys.stdin.read()";

/// Not an ephemeral port: another test could get that one.
fn unused_port() -> u16 {
    super::super::ports::PortAllocator::from_host().unwrap().allocate(&BTreeSet::new()).unwrap()
}

#[test]
fn a_replica_that_listens_on_its_port_is_found() {
    let Some(replica) = Replica::start(LISTENS, &[]) else { return };
    let port = replica.said.parse().unwrap();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    assert_eq!(replica.check(port, None), Listening::At(address));
    assert_eq!(listeners_of(replica.child.id(), None).unwrap(), [address]);
}

#[test]
fn a_replica_on_another_port_is_said_to_be_there_unless_that_one_is_accepted() {
    let Some(replica) = Replica::start(LISTENS, &[]) else { return };
    let port: u16 = replica.said.parse().unwrap();
    assert_eq!(replica.check(unused_port(), None), Listening::OtherPort { ports: vec![port] });
    assert_eq!(
        replica.check(unused_port(), Some(port)),
        Listening::At(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    );
}

#[test]
fn a_replica_that_does_not_listen_is_not_ready_yet() {
    let Some(replica) = Replica::start("import sys; print('up'); sys.stdin.read()", &[]) else { return };
    assert_eq!(replica.check(unused_port(), None), Listening::NotYet);
    assert_eq!(listeners_of(replica.child.id(), None).unwrap(), []);
}

#[test]
fn somebody_elses_listener_on_the_port_is_a_stranger_with_a_name() {
    let Some(replica) = Replica::start("import sys; print('up'); sys.stdin.read()", &[]) else { return };
    let mine = TcpListener::bind("127.0.0.1:0").unwrap();
    let Listening::Stranger { pid, name, .. } = replica.check(mine.local_addr().unwrap().port(), None) else {
        panic!("no stranger");
    };
    assert_eq!(pid, Some(std::process::id()));
    assert!(name.is_some_and(|name| !name.is_empty()));
}

#[test]
fn a_listener_of_a_parent_whose_child_serves_is_the_replicas() {
    // As a cluster does it: the first process opens the socket, its child accepts.
    let program = "
import os, socket, sys
s = socket.create_server(('127.0.0.1', 0))
if os.fork() == 0:
    sys.stdin.close(); s.accept(); os._exit(0)
print(s.getsockname()[1]); sys.stdin.read(); socket.create_connection(s.getsockname()); os.wait()";
    let Some(replica) = Replica::start(program, &[]) else { return };
    let port = replica.said.parse().unwrap();
    assert!(matches!(replica.check(port, None), Listening::At(_)));
}

#[test]
fn a_listener_opened_by_a_child_alone_is_the_replicas() {
    let program = "
import os, subprocess, sys
c = subprocess.Popen([sys.executable, '-u', '-c', sys.argv[1]], stdin=subprocess.PIPE)
sys.stdin.read(); c.stdin.close(); c.wait()";
    let Some(replica) = Replica::start(program, &[LISTENS]) else { return };
    let port = replica.said.parse().unwrap();
    assert!(matches!(replica.check(port, None), Listening::At(_)));
    assert_eq!(listeners_of(replica.child.id(), None).unwrap().len(), 1);
}

#[test]
fn a_process_that_left_the_tree_group_and_session_is_known_by_its_task() {
    // Fork, new session, fork, and the middle one ends: the last has another group, session and parent, and speaks
    // once it has. A pipe from the first tells it when to end.
    let program = "
import os, socket, sys
r, w = os.pipe()
if os.fork() == 0:
    os.setsid(); os.close(w); sys.stdin.close(); middle = os.getpid()
    if os.fork() == 0:
        s = socket.create_server(('127.0.0.1', 0))
        while os.getppid() == middle: os.sched_yield()
        print(s.getsockname()[1]); os.read(r, 1); os._exit(0)
    os._exit(0)
os.wait(); sys.stdin.read()";
    let Some(replica) = Replica::start(program, &[]) else { return };
    let port = replica.said.parse().unwrap();
    assert!(matches!(replica.check(port, None), Listening::At(_)));
    let pid = replica.child.id();
    let without = Expected { pid, task: None, port, fallback: None, isolated: None };
    assert!(matches!(check(&without).unwrap(), Listening::Stranger { .. }));
}

#[test]
fn a_replica_that_is_gone_listens_nowhere() {
    let mut child = Command::new("true").spawn().unwrap();
    let pid = child.id();
    let expected = Expected { pid, task: None, port: 1, fallback: None, isolated: None };
    // First as a zombie, which has no namespace to look into any more, then gone altogether.
    let exited = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::waitid(rustix::process::WaitId::Pid(id), exited).unwrap();
    assert_eq!(check(&expected).unwrap(), Listening::NotYet);
    child.wait().unwrap();
    assert_eq!(check(&expected).unwrap(), Listening::NotYet);
    assert_eq!(listeners_of(pid, None).unwrap(), []);
}
