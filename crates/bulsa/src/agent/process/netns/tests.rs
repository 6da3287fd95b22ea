//! Against the real kernel, as root; skipped with a printed reason otherwise.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    process::{Command, Stdio},
};

use bulsa_core::ids::ReleaseId;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{super::listener, *};

/// An owner that no other test (also not of another run at the same time) has.
fn owner(test: &str) -> String {
    format!("test {} {test}", std::process::id())
}

fn replica(ordinal: u32) -> ReplicaId {
    ReplicaId { release: ReleaseId(1), service: "web".to_owned(), ordinal, attempt: 1 }
}

async fn made(owner: &str, ordinal: u32) -> Option<Namespace> {
    match create(owner, &replica(ordinal)).await {
        Ok(namespace) => Some(namespace),
        Err(error) => {
            println!("skipped: {error}");
            None
        }
    }
}

/// Answers one connection to port 3000 of the namespace with `word`; returns when it listens.
fn serve_inside(namespace: &Namespace, word: &'static str) -> std::thread::JoinHandle<()> {
    let (up, listening) = std::sync::mpsc::channel();
    let file = namespace.open().unwrap();
    let thread = std::thread::spawn(move || {
        use std::os::fd::AsFd;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        let listener = TcpListener::bind("0.0.0.0:3000").unwrap();
        up.send(()).unwrap();
        listener.accept().unwrap().0.write_all(word.as_bytes()).unwrap();
    });
    listening.recv().unwrap();
    thread
}

#[tokio::test]
async fn two_programs_on_one_port_are_reached_apart_and_nothing_stays_behind() {
    let owner = owner("apart");
    let (Some(one), Some(two)) = (made(&owner, 1).await, made(&owner, 2).await) else { return };
    assert_ne!(one.address, two.address);
    let servers = [serve_inside(&one, "one"), serve_inside(&two, "two")];
    for (namespace, word) in [(&one, "one"), (&two, "two")] {
        let mut answer = String::new();
        TcpStream::connect((namespace.address, 3000)).unwrap().read_to_string(&mut answer).unwrap();
        assert_eq!(answer, word);
    }
    for server in servers {
        server.join().unwrap();
    }

    assert_eq!(find(&owner, &replica(1)).await.unwrap(), Some(one.clone()));
    assert_eq!(leftovers(&owner, &BTreeSet::from([one.name.clone()])).unwrap(), [two.name]);
    for name in leftovers(&owner, &BTreeSet::new()).unwrap() {
        remove(&name).await.unwrap();
        remove(&name).await.unwrap();
    }
    assert_eq!(leftovers(&owner, &BTreeSet::new()).unwrap(), [""; 0]);
    assert_eq!(find(&owner, &replica(1)).await.unwrap(), None);
}

#[tokio::test]
async fn a_namespace_is_made_anew_over_what_is_left_of_it() {
    let owner = owner("anew");
    let Some(first) = made(&owner, 1).await else { return };
    command::ip(&first.name, &["link", "delete", &first.name], "").await.unwrap();
    let second = create(&owner, &replica(1)).await.unwrap();
    assert_eq!(second.name, first.name);
    assert_eq!(find(&owner, &replica(1)).await.unwrap(), Some(second.clone()));
    remove(&second.name).await.unwrap();
}

#[tokio::test]
async fn a_failing_step_is_an_error_that_names_it() {
    let error = command::ip("bls-x", &["link", "delete", "bls-no-such"], "").await.unwrap_err().to_string();
    assert!(error.starts_with("network namespace bls-x: `ip link delete bls-no-such` "), "{error}");
}

#[tokio::test]
async fn a_listener_inside_is_found_and_one_on_its_loopback_is_said_to_be_unreachable() {
    let owner = owner("listener");
    let Some(namespace) = made(&owner, 1).await else { return };
    for address in ["0.0.0.0", "127.0.0.1"] {
        let program = format!(
            "import socket, sys; s = socket.create_server(('{address}', 3000)); print('up'); sys.stdin.read()"
        );
        let mut child = Command::new("ip")
            .args(["netns", "exec", &namespace.name, "python3", "-u", "-c", &program])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
        let found = (said == "up\n").then(|| {
            let isolated = Some(IpAddr::V4(namespace.address));
            listener::check(&listener::Expected {
                pid: child.id(),
                task: None,
                port: 3000,
                fallback: None,
                isolated,
            })
        });
        drop(child.stdin.take());
        child.wait().unwrap();
        match found {
            None => println!("skipped: there is no python3"),
            Some(found) if address == "0.0.0.0" => {
                assert_eq!(
                    found.unwrap(),
                    listener::Listening::At(SocketAddr::from((namespace.address, 3000)))
                );
            }
            Some(found) => {
                let inside = "127.0.0.1:3000".parse().unwrap();
                assert_eq!(found.unwrap(), listener::Listening::Unreachable(inside));
            }
        }
    }
    remove(&namespace.name).await.unwrap();
}
