use super::*;

fn at(ms: u64) -> Mark {
    Mark(Duration::from_millis(ms))
}

fn log(answers: &[(u64, u64)]) -> Log {
    let mut log = Log::default();
    for (due, end) in answers {
        log.answered(at(*due), at(*end), Some("v1"), "/");
    }
    log
}

fn failure(due: u64, end: u64) -> Failure {
    Failure {
        due: at(due),
        at: at(end),
        kind: Kind::Reset,
        method: Method::Get,
        idempotent: true,
        path: "/".to_owned(),
        connection: None,
        release: None,
        detail: String::new(),
    }
}

#[test]
fn the_longest_gap_counts_from_the_windows_edges_too() {
    let log = log(&[(0, 10), (0, 20), (0, 120), (0, 130)]);
    assert_eq!(log.report(at(0), at(140)).longest_gap, Duration::from_millis(100));
    assert_eq!(log.report(at(0), at(530)).longest_gap, Duration::from_millis(400), "nothing after 130");
    assert_eq!(log.report(at(40), at(80)).longest_gap, Duration::from_millis(40), "nothing at all");
}

#[test]
fn answers_that_overtake_each_other_leave_no_gap() {
    let log = log(&[(0, 300), (10, 20), (20, 100), (30, 200)]);
    assert_eq!(log.report(at(0), at(300)).longest_gap, Duration::from_millis(100));
}

#[test]
fn adjoining_windows_count_each_request_once() {
    let mut log = log(&[(0, 10), (5, 50), (6, 90)]);
    log.failed(failure(7, 50));
    let (first, second) = (log.report(at(0), at(50)), log.report(at(50), at(100)));
    assert_eq!((first.requests, first.failed), (3, 1), "the edge belongs to the window that ends there");
    assert_eq!((second.requests, second.failed), (1, 0));
    assert_eq!(first.failed_by_kind, BTreeMap::from([("reset".to_owned(), 1)]));
    assert_eq!(first.releases, BTreeMap::from([("v1".to_owned(), 2)]));
}

#[test]
fn requests_are_told_apart_by_their_paths() {
    let mut log = log(&[(0, 10), (5, 20)]);
    log.answered(at(0), at(90), Some("v1"), "/slow");
    log.failed(failure(0, 10));
    log.failed(Failure { path: "/slow".to_owned(), ..failure(0, 40) });
    let [quick, slow] = ["/", "/slow"].map(|wanted| log.report_of(at(0), at(100), |path| path == wanted));
    assert_eq!((quick.requests, quick.failed, quick.max), (3, 1, Duration::from_millis(15)));
    assert_eq!((slow.requests, slow.failed, slow.max), (2, 1, Duration::from_millis(90)));
}

#[test]
fn latency_counts_from_the_due_time() {
    let answers: Vec<_> = (0..100).map(|n| (n, n + 1 + n)).collect();
    let report = log(&answers).report(at(0), at(1000));
    assert_eq!(report.p50, Duration::from_millis(50));
    assert_eq!(report.p99, Duration::from_millis(99));
    assert_eq!(report.max, Duration::from_millis(100));
    assert_eq!(Log::default().report(at(0), at(1)).p99, Duration::ZERO);
}

#[test]
fn a_socket_is_kept_only_if_it_lives_through_the_whole_window() {
    let mut log = Log::default();
    for client in 0..3 {
        log.connected(client, at(10));
    }
    let drop = |client, ms, code| SocketDrop { client, at: at(ms), code, detail: String::new() };
    log.dropped(drop(1, 50, Some(1012)));
    log.connected(1, at(70));
    log.dropped(drop(2, 90, None));
    let report = log.report(at(20), at(80)).sockets;
    assert_eq!((report.at_start, report.kept), (3, 2));
    assert_eq!(report.drops, [drop(1, 50, Some(1012))]);
    assert_eq!(report.longest_absence, Duration::from_millis(20));
    let later = log.report(at(80), at(100)).sockets;
    assert_eq!((later.at_start, later.kept), (3, 2), "the reconnected one counts again");
    assert_eq!(later.longest_absence, Duration::from_millis(10), "away to the end of the window");
    assert_eq!(log.report(at(0), at(80)).sockets.at_start, 0, "nobody was connected then");
}

#[test]
fn a_failure_is_under_way_from_its_due_time_to_its_end() {
    let failure = failure(100, 200);
    assert!(failure.under_way(at(150), at(160)) && failure.under_way(at(50), at(100)));
    assert!(!failure.under_way(at(0), at(99)) && !failure.under_way(at(201), at(300)));
}

#[test]
fn long_texts_are_cut_at_a_characters_edge() {
    let mut text = "ä".repeat(100);
    shorten(&mut text);
    assert_eq!(text, "ä".repeat(60));
}
