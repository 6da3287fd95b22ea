use std::{
    os::unix::fs::PermissionsExt,
    time::{Duration, SystemTime},
};

use bulsa_core::ids::ReleaseId;
use tempfile::TempDir;

use super::*;

fn replica(attempt: u32) -> ReplicaId {
    ReplicaId { release: ReleaseId(1), service: "web".to_owned(), ordinal: 1, attempt }
}

fn opened() -> (TempDir, Logs, PathBuf, File) {
    let directory = TempDir::new().unwrap();
    let logs = Logs::new(directory.path().join("logs"));
    let (path, file) = logs.open("shop", &replica(1)).unwrap();
    (directory, logs, path, file)
}

/// Lines of 16 bytes: `line 0000000001\n`.
fn write_lines(mut file: &File, lines: std::ops::Range<u32>) {
    let text: String = lines.map(|line| format!("line {line:010}\n")).collect();
    file.write_all(text.as_bytes()).unwrap();
}

#[test]
fn a_log_has_its_place_and_only_its_owner_reads_it() {
    let (directory, _, path, _file) = opened();
    assert_eq!(path, directory.path().join("logs/shop/web/web-r1-1.1.log"));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    assert_eq!(mode(&directory.path().join("logs")), 0o700);
    assert_eq!(replica_of(&path), Some(replica(1)));
}

#[test]
fn names_that_would_lead_elsewhere_are_refused() {
    let logs = Logs::new("/nowhere");
    for bad in ["", ".", "..", "a/b", "a\0"] {
        assert_eq!(logs.directory("shop", bad).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{bad}");
        assert!(logs.directory(bad, "web").is_err(), "{bad}");
    }
}

#[test]
fn a_log_that_cannot_be_opened_is_named() {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("file"), "").unwrap();
    let error = Logs::new(directory.path().join("file")).open("shop", &replica(1)).unwrap_err().to_string();
    assert!(error.contains("web-r1-1.1.log"), "{error}");
}

#[test]
fn opening_again_goes_on_at_the_end() {
    let (_directory, logs, path, file) = opened();
    write_lines(&file, 0..1);
    write_lines(&logs.open("shop", &replica(1)).unwrap().1, 1..2);
    assert_eq!(tail(&path, 5).unwrap(), ["line 0000000000", "line 0000000001"]);
}

#[test]
fn a_log_keeps_its_end_and_its_offsets_when_its_front_is_freed() {
    let (_directory, _, path, file) = opened();
    write_lines(&file, 0..65_536);
    let size = file.metadata().unwrap().size();
    let keep = 256 << 10;
    match bound_to(&file, keep, 0, punch).unwrap() {
        Bounded::Punched { start } => assert_eq!(start, size - keep),
        other => return println!("skipped: no holes on this filesystem: {other:?}"),
    }
    let after = file.metadata().unwrap();
    assert_eq!(after.size(), size);
    assert!(after.blocks() * 512 < size / 2, "{} blocks", after.blocks());

    write_lines(&file, 65_536..65_537);
    assert_eq!(tail(&path, 2).unwrap(), ["line 0000065535", "line 0000065536"]);
    // What is left begins within or at the start of a line; a cut line is left out.
    let all = tail(&path, usize::MAX).unwrap();
    assert!(all.len() > 16_000 && all.iter().all(|line| line.len() == 15), "{} {:?}", all.len(), all.first());
    // Reading from the start says what is gone.
    let chunk = read_from(&path, 0, 16).unwrap();
    assert_eq!((chunk.bytes.len(), chunk.dropped), (16, size - keep));
    assert_eq!(chunk.next, size - keep + 16);
}

#[test]
fn a_small_log_is_left_alone() {
    let (_directory, _, _, file) = opened();
    write_lines(&file, 0..100);
    assert_eq!(bound(&file).unwrap(), Bounded::Untouched);
}

#[test]
fn a_filesystem_without_holes_gets_an_emptied_file_that_says_so() {
    let (_directory, _, path, file) = opened();
    write_lines(&file, 0..65_536);
    let emptied = bound_to(&file, 4096, 4096, |_, _| Err(Errno::OPNOTSUPP)).unwrap();
    assert_eq!(emptied, Bounded::Emptied { bytes: 1 << 20 });
    write_lines(&file, 7..8);
    let lines = tail(&path, 5).unwrap();
    assert!(lines[0].starts_with("[bulsa] the 1048576 bytes of output"), "{lines:?}");
    assert_eq!(lines[1], "line 0000000007");
    assert_eq!(read_from(&path, 1 << 20, 10).unwrap().dropped, 1 << 20);
}

#[test]
fn following_gives_every_byte_once() {
    let (_directory, _, path, file) = opened();
    let mut at = 0;
    let mut seen = Vec::new();
    for round in 0..5 {
        write_lines(&file, round * 10..round * 10 + 10);
        loop {
            let chunk = read_from(&path, at, 37).unwrap();
            at = chunk.next;
            if chunk.bytes.is_empty() {
                break;
            }
            seen.extend(chunk.bytes);
        }
    }
    assert_eq!(seen, fs::read(&path).unwrap());
}

#[test]
fn a_tail_longer_than_the_first_read_is_complete() {
    let (_directory, _, path, file) = opened();
    write_lines(&file, 0..10_000);
    let lines = tail(&path, 5000).unwrap();
    assert_eq!((lines.len(), &*lines[0]), (5000, "line 0000005000"));
    assert_eq!(tail(&path, 0).unwrap(), [""; 0]);
}

#[test]
fn the_oldest_logs_of_dead_replicas_go_first_and_the_living_stay() {
    let (directory, logs, ..) = opened();
    let count = u32::try_from(OLD_FILES_MAX).unwrap() + 3;
    for attempt in 1..=count {
        let (_, file) = logs.open("shop", &replica(attempt)).unwrap();
        let age = Duration::from_secs(u64::from(100 - attempt));
        file.set_modified(SystemTime::now() - age).unwrap();
    }
    let other = directory.path().join("logs/shop/web/notes.txt");
    fs::write(&other, "mine").unwrap();

    let living = BTreeSet::from([replica(1)]);
    let deleted = logs.prune("shop", "web", &living).unwrap();
    let expected = [replica(3), replica(2)].map(|id| logs.path("shop", &id).unwrap());
    assert_eq!(deleted, expected);
    assert!(other.exists() && logs.path("shop", &replica(1)).unwrap().exists());
    assert_eq!(logs.prune("shop", "web", &living).unwrap(), Vec::<PathBuf>::new());
    assert_eq!(logs.prune("shop", "never-ran", &living).unwrap(), Vec::<PathBuf>::new());
}
