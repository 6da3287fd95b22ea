//! The access log: whether there is one, its file for every proxy, and what is lost of it.
//!
//! Owns: when a proxy is given which file. Never: touches the disk in the driver's loop: the file is opened and put
//! aside by a task, so that a stuck disk holds up nothing.

use std::{fs::File, path::Path, sync::Arc};

use tokio::sync::watch;

use super::{Driver, Input};
use crate::agent::{
    access_log::{AccessLogFiles, PROXY_BYTES_MAX},
    proxy_link::ProxyLink,
};

/// The file that a proxy is to write to; nothing as long as no service wants a log.
pub(super) type LogFile = Option<Arc<File>>;

/// The access log of this daemon.
pub(super) struct AccessLog {
    files: AccessLogFiles,
    /// A service in the last table wants one.
    is_wanted: bool,
    /// A task looks after the file.
    is_busy: bool,
    file: LogFile,
    /// Lines that proxies lost which are gone.
    lost_by_gone: u64,
    /// Lost lines that were told of.
    told: u64,
}

impl AccessLog {
    pub(super) fn new(logs: &Path) -> Self {
        let files = AccessLogFiles::new(logs);
        Self { files, is_wanted: false, is_busy: false, file: None, lost_by_gone: 0, told: 0 }
    }
}

impl Driver {
    /// Whether a service wants an access log now. Proxies keep the file of one that is wanted no more: requests that began
    /// before may still be told there.
    pub(super) fn want_access_log(&mut self, is_wanted: bool) {
        if self.access_log.is_wanted != is_wanted {
            self.access_log.is_wanted = is_wanted;
            self.access_log.file = None;
            self.tend_access_log();
        }
    }

    /// Has the file opened, or put aside when it is too long.
    pub(super) fn tend_access_log(&mut self) {
        let log = &mut self.access_log;
        if !log.is_wanted || log.is_busy {
            return;
        }
        log.is_busy = true;
        let (files, open, inbox) = (log.files.clone(), log.file.clone(), self.inbox.clone());
        self.tasks.spawn(async move {
            let tended = tokio::task::spawn_blocking(move || files.tend(open.as_deref())).await;
            let tended = match tended {
                Ok(tended) => tended.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            inbox.send(Input::AccessLog(tended)).await.ok();
        });
    }

    /// The file was looked after: there is another one, the same, or none.
    pub(super) fn access_log_tended(&mut self, tended: Result<Option<File>, String>) {
        self.access_log.is_busy = false;
        match tended {
            Ok(Some(file)) if self.access_log.is_wanted => {
                self.access_log.file = Some(Arc::new(file));
                self.give_access_log();
            }
            Ok(_) => {}
            Err(error) => self.warn("", "access_log.failed", format!("the access log: {error}")),
        }
    }

    /// Gives the file to every proxy that has not got it, and that knows what to do with it.
    pub(super) fn give_access_log(&self) {
        let Some(file) = &self.access_log.file else { return };
        for proxy in self.proxies.values() {
            if proxy.report.as_ref().is_some_and(|report| report.access_log_dropped.is_some()) {
                proxy.log.send_if_modified(|known| {
                    let is_new = !known.as_ref().is_some_and(|known| Arc::ptr_eq(known, file));
                    *known = Some(Arc::clone(file));
                    is_new
                });
            }
        }
    }

    /// A proxy is gone that had lost so many lines.
    pub(super) fn add_lost_lines(&mut self, lost: Option<u64>) {
        self.access_log.lost_by_gone += lost.unwrap_or_default();
    }

    /// Tells of lines that are lost: the first ones, and then when there are twice as many.
    pub(super) fn tell_of_lost_lines(&mut self) {
        let reports = self.proxies.values().filter_map(|proxy| proxy.report.as_ref());
        let living: u64 = reports.filter_map(|report| report.access_log_dropped).sum();
        let lost = living + self.access_log.lost_by_gone;
        if 0 < lost && self.access_log.told * 2 <= lost {
            self.access_log.told = lost;
            let text = format!(
                "{lost} lines of the access log are lost so far: its disk is full, or too slow for them; the requests \
                 themselves were served"
            );
            self.tell("", "access_log.lost", None, text);
        }
    }
}

/// Gives a proxy the file of the access log, whenever there is another one.
pub(super) async fn give_files(link: Arc<ProxyLink>, mut wanted: watch::Receiver<LogFile>) {
    use std::os::fd::AsFd;
    loop {
        let file = wanted.borrow_and_update().clone();
        if let Some(file) = file
            && let Err(error) = link.send_access_log(PROXY_BYTES_MAX, file.as_fd()).await
        {
            tracing::debug!(%error, "a proxy did not take the file of the access log");
        }
        if wanted.changed().await.is_err() {
            return;
        }
    }
}
