//! Which processes hold a socket, and which processes are a replica's.
//!
//! Owns: the look through `/proc` for processes and their open sockets. Never: signals anything. Nothing found here is
//! used to kill: a process may be gone, or another, a moment later.
//!
//! A replica's processes are the one that was started, all its descendants, everything in its process group, and
//! everything that inherited its [`TASK_VARIABLE`]. [`family`] finds the first two kinds with a few reads;
//! [`everyone`] looks at every process of the host, so it is for when the first look left something unexplained.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use super::super::TASK_VARIABLE;

/// At most this many processes of a replica are looked at.
const FAMILY_MAX: usize = 4096;

/// What `/proc/PID/stat` says of a process's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    parent: u32,
    group: u32,
}

/// `leader` and its descendants, as far as the kernel tells them directly (nothing else where it doesn't).
pub(super) fn family(leader: u32) -> BTreeSet<u32> {
    let mut found = BTreeSet::from([leader]);
    let mut waiting = vec![leader];
    while let Some(pid) = waiting.pop() {
        // Each thread has the children that it started. A process that is gone has none.
        for thread in numbers_in(&format!("/proc/{pid}/task")) {
            let Ok(text) = fs::read_to_string(format!("/proc/{pid}/task/{thread}/children")) else {
                continue;
            };
            for child in text.split_ascii_whitespace().filter_map(|word| word.parse().ok()) {
                if found.len() < FAMILY_MAX && found.insert(child) {
                    waiting.push(child);
                }
            }
        }
    }
    found
}

/// Every process that is `leader`'s by descent, by process group, or by carrying `task`.
pub(super) fn everyone(leader: u32, task: Option<&str>) -> BTreeSet<u32> {
    let places: BTreeMap<u32, Place> = all_processes()
        .filter_map(|pid| Some((pid, parse_stat(&fs::read(format!("/proc/{pid}/stat")).ok()?)?)))
        .collect();
    let mut found = BTreeSet::from([leader]);
    for (&pid, place) in &places {
        if place.group == leader
            || descends(pid, leader, &places)
            || task.is_some_and(|task| carries(pid, task))
        {
            found.insert(pid);
        }
    }
    found
}

/// The processes of this host.
pub(super) fn all_processes() -> impl Iterator<Item = u32> {
    numbers_in("/proc")
}

/// The sockets that process `pid` has open; none if it is gone or may not be looked into.
pub(super) fn sockets(pid: u32) -> impl Iterator<Item = u64> {
    let links = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    links.filter_map(|link| parse_socket(fs::read_link(link.path()).ok()?.to_str()?))
}

/// The name that the kernel knows process `pid` by.
pub(super) fn name(pid: u32) -> Option<String> {
    let name = fs::read(format!("/proc/{pid}/comm")).ok()?;
    Some(String::from_utf8_lossy(name.trim_ascii_end()).into_owned())
}

fn numbers_in(directory: &str) -> impl Iterator<Item = u32> + use<> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn carries(pid: u32, task: &str) -> bool {
    // Unreadable for other users' processes, and those aren't ours then: only root starts replicas as other users.
    fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environ| has_task(&environ, task))
}

fn descends(pid: u32, ancestor: u32, places: &BTreeMap<u32, Place>) -> bool {
    let mut at = pid;
    // Places are read one after the other, so a number used again meanwhile could make them run in a circle.
    for _ in 0..places.len() {
        match places.get(&at) {
            _ if at == ancestor => return true,
            Some(place) if place.parent != 0 => at = place.parent,
            _ => return false,
        }
    }
    false
}

/// `PID (NAME) STATE PARENT GROUP …`, where NAME may hold anything, `)` and spaces too.
fn parse_stat(stat: &[u8]) -> Option<Place> {
    let end_of_name = stat.iter().rposition(|&byte| byte == b')')?;
    let mut fields = std::str::from_utf8(stat.get(end_of_name + 1..)?).ok()?.split_ascii_whitespace();
    Some(Place { parent: fields.nth(1)?.parse().ok()?, group: fields.next()?.parse().ok()? })
}

/// `socket:[12345]`
fn parse_socket(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

fn has_task(environ: &[u8], task: &str) -> bool {
    environ.split(|&byte| byte == 0).any(|variable| {
        variable.strip_prefix(TASK_VARIABLE.as_bytes()).and_then(|rest| rest.strip_prefix(b"="))
            == Some(task.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_place_of_a_process_is_read_whatever_its_name() {
        let place = Some(Place { parent: 10, group: 20 });
        assert_eq!(parse_stat(b"30 (node) S 10 20 20 0 -1"), place);
        assert_eq!(parse_stat(b"30 (a) R 1 2 (b\xff) S 10 20 20"), place);
        for bad in ["", "30", "30 (x)", "30 (x) S 1", "30 (x) S x 1"] {
            assert_eq!(parse_stat(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn sockets_are_told_from_other_open_files() {
        assert_eq!(parse_socket("socket:[42]"), Some(42));
        for other in ["/dev/null", "pipe:[42]", "socket:[]", "socket:[42", "anon_inode:[eventpoll]"] {
            assert_eq!(parse_socket(other), None, "{other}");
        }
    }

    #[test]
    fn only_the_whole_task_counts() {
        assert!(has_task(b"A=1\0BULSA_TASK=shop/web-r1-1.1\0B=2\0", "shop/web-r1-1.1"));
        assert!(!has_task(b"BULSA_TASK=shop/web-r1-1.12\0", "shop/web-r1-1.1"));
        assert!(!has_task(b"X_BULSA_TASK=a\0BULSA_TASKS=a\0", "a"));
    }

    #[test]
    fn descent_is_followed_and_a_circle_ends() {
        let place = |parent| Place { parent, group: 0 };
        let places =
            BTreeMap::from([(1, place(0)), (5, place(1)), (6, place(5)), (8, place(9)), (9, place(8))]);
        assert!(descends(6, 5, &places) && descends(5, 5, &places));
        assert!(!descends(1, 5, &places) && !descends(8, 5, &places) && !descends(7, 5, &places));
    }

    #[test]
    fn this_test_and_its_child_are_one_family() {
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let me = std::process::id();
        assert!(family(me).contains(&child.id()));
        assert!(everyone(me, None).contains(&child.id()));
        assert!(!everyone(child.id(), None).contains(&me));
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in ".*") {
            let _ = parse_stat(&bytes);
            let _ = parse_socket(&text);
            has_task(&bytes, &text);
        }
    }
}
