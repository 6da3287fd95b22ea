use std::sync::mpsc;
use std::time::Duration;

use super::*;

/// A file in memory that takes as much as it is told to, and waits where it is told to.
#[derive(Clone, Default)]
struct Paper {
    text: Arc<Mutex<Vec<u8>>>,
    /// What one write takes at most; nothing at all is an error.
    room: Arc<Mutex<Option<usize>>>,
    stuck: Arc<Mutex<()>>,
}

impl Paper {
    fn text(&self) -> String {
        String::from_utf8(self.text.lock().unwrap().clone()).unwrap()
    }

    fn has_room(&self, room: Option<usize>) {
        *self.room.lock().unwrap() = room;
    }
}

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _stuck = self.stuck.lock().unwrap();
        let mut room = self.room.lock().unwrap();
        let count = room.unwrap_or(bytes.len()).min(bytes.len());
        if let Some(room) = &mut *room {
            *room -= count;
        }
        if count == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.text.lock().unwrap().extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits until all was written and the writer has ended.
fn finish(queue: &Arc<Queue>) {
    queue.close();
    let (done, is_done) = mpsc::channel();
    let queue = Arc::clone(queue);
    thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(queue.written());
        done.send(()).unwrap();
    });
    is_done.recv_timeout(Duration::from_secs(10)).expect("the writer ends");
}

/// Waits until nothing waits to be written.
fn taken(queue: &Queue) {
    while queue.waiting().0 > 0 {
        thread::yield_now();
    }
}

#[test]
fn what_comes_before_the_file_waits_for_it() {
    let (queue, paper) = (Arc::new(Queue::default()), Paper::default());
    queue.push(b"a\nb\n", 2);
    queue.direct(Box::new(paper.clone()), 100).unwrap();
    queue.push(b"c\n", 1);
    finish(&queue);
    assert_eq!((paper.text().as_str(), queue.dropped()), ("a\nb\nc\n", 0));
}

#[test]
fn a_stuck_file_holds_up_nobody_and_what_is_too_much_is_counted() {
    let (queue, paper) = (Arc::new(Queue::default()), Paper::default());
    let stuck = paper.stuck.lock().unwrap();
    queue.direct(Box::new(paper.clone()), u64::MAX).unwrap();
    queue.push(b"first\n", 1);
    taken(&queue);
    // The writer has it, and gets on no more: now the queue fills.
    let block = [b"x".repeat(1023), b"\n".to_vec()].concat().repeat(32);
    let fits = WAITING_BYTES_MAX / block.len();
    for _ in 0..fits + 3 {
        queue.push(&block, 32);
    }
    assert_eq!((queue.dropped(), queue.waiting().0), (3 * 32, WAITING_BYTES_MAX));
    drop(stuck);
    finish(&queue);
    assert_eq!(paper.text().lines().count(), 1 + fits * 32);
    assert_eq!(queue.dropped(), 3 * 32, "the rest is whole");
}

#[test]
fn a_file_gets_no_more_than_its_share_and_the_rest_goes_to_the_next() {
    let (queue, old, new) = (Arc::new(Queue::default()), Paper::default(), Paper::default());
    queue.direct(Box::new(old.clone()), 4).unwrap();
    for text in [b"ab\n", b"cd\n"] {
        queue.push(text, 1);
        taken(&queue);
    }
    queue.push(b"ef\n", 1);
    // Nobody takes it: the old one is full.
    assert_eq!(queue.waiting(), (3, 1));
    queue.direct(Box::new(new.clone()), 100).unwrap();
    finish(&queue);
    assert_eq!((old.text().as_str(), new.text().as_str(), queue.dropped()), ("ab\ncd\n", "ef\n", 0));
}

#[test]
fn a_full_disk_loses_whole_lines_and_tears_none_into_the_next() {
    let (queue, paper) = (Arc::new(Queue::default()), Paper::default());
    paper.has_room(Some(4));
    queue.direct(Box::new(paper.clone()), 100).unwrap();
    queue.push(b"one\ntwo\nthree\n", 3);
    while queue.dropped() == 0 {
        thread::yield_now();
    }
    assert_eq!((paper.text().as_str(), queue.dropped()), ("one\n", 2));
    paper.has_room(Some(2));
    queue.push(b"four\n", 1);
    while queue.dropped() == 2 {
        thread::yield_now();
    }
    paper.has_room(None);
    queue.push(b"five\n", 1);
    finish(&queue);
    assert_eq!((paper.text().as_str(), queue.dropped()), ("one\nfo\nfive\n", 3));
}

#[test]
fn what_nobody_takes_is_counted_at_the_end() {
    let (queue, paper) = (Arc::new(Queue::default()), Paper::default());
    queue.direct(Box::new(paper.clone()), 1).unwrap();
    queue.push(b"a\n", 1);
    taken(&queue);
    queue.push(b"b\nc\n", 2);
    finish(&queue);
    assert_eq!((paper.text().as_str(), queue.dropped()), ("a\n", 2));
}
