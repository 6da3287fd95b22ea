//! The file system of a container, put together from programs of this machine: no registry is needed.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::support::parts;

/// The user that what shouldn't run as root runs as.
pub(crate) const USER: u64 = 999;
/// What the busybox in every container answers to.
const APPLETS: [&str; 25] = [
    "sh", "cat", "chmod", "chown", "cp", "date", "echo", "env", "false", "find", "grep", "hostname", "id",
    "kill", "ls", "mkdir", "nc", "ps", "rm", "sed", "sleep", "test", "touch", "true", "wget",
];
const PASSWD: &str =
    "root:x:0:0:root:/root:/bin/sh\napp:x:999:999:app:/tmp:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n";
const GROUP: &str = "root:x:0:\napp:x:999:\nnogroup:x:65534:\n";

/// A path of this machine, or what is to be there.
#[derive(Clone, Debug)]
enum Entry {
    File(PathBuf),
    Text(Vec<u8>, u32),
    Link(String),
    Dir(u32, u64),
}

/// What is in a container, by path without the first slash.
#[derive(Clone, Debug)]
pub(crate) struct Rootfs {
    entries: BTreeMap<String, Entry>,
}

impl Rootfs {
    /// A shell with the usual small programs, a place for temporary files, and what the C library reads.
    pub(crate) fn new() -> Self {
        let mut this = Self { entries: BTreeMap::new() };
        for top in ["bin", "sbin", "lib", "lib64"] {
            this.dir(&format!("usr/{top}"), 0o755, 0);
            this.link(top, &format!("usr/{top}"));
        }
        for dir in ["etc", "dev", "proc", "sys", "root", "run", "var", "var/lib"] {
            this.dir(dir, 0o755, 0);
        }
        this.dir("tmp", 0o1777, 0);
        this.text("etc/passwd", PASSWD);
        this.text("etc/group", GROUP);
        this.text("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n");
        this.put("usr/bin/busybox", Entry::File(parts::find("bin/busybox").expect("busybox is installed")));
        for applet in APPLETS {
            this.link(&format!("usr/bin/{applet}"), "busybox");
        }
        this
    }

    /// A program of this machine at its own place, with its libraries.
    pub(crate) fn program(&mut self, path: &str) {
        let found = parts::find(path).unwrap_or_else(|| panic!("`{path}` is not installed"));
        self.program_at(&found, &parts::inside(Path::new(path)));
    }

    /// The same at another place.
    pub(crate) fn program_at(&mut self, program: &Path, place: &str) {
        self.libraries(std::slice::from_ref(&program.to_owned()));
        self.put(place, Entry::File(program.to_owned()));
    }

    /// A directory with all that is in it, but for what `leave_out` names; shared objects come with their libraries.
    /// What is a link is there as what it leads to.
    pub(crate) fn tree(&mut self, path: &str, leave_out: &[&str]) {
        let found = parts::find(path).unwrap_or_else(|| panic!("`{path}` is not installed"));
        let mut objects = Vec::new();
        self.walk(&found, &parts::inside(Path::new(path)), leave_out, &mut objects);
        self.libraries(&objects);
    }

    fn walk(&mut self, from: &Path, to: &str, leave_out: &[&str], objects: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            // A link that leads nowhere, which a package has whose other half is not installed.
            let Ok(metadata) = path.metadata() else { continue };
            let place = format!("{to}/{name}");
            if leave_out.contains(&name.as_str()) {
                continue;
            } else if metadata.is_dir() {
                self.walk(&path, &place, leave_out, objects);
            } else {
                if name.ends_with(".so") {
                    objects.push(path.clone());
                }
                self.put(&place, Entry::File(path));
            }
        }
    }

    fn libraries(&mut self, of: &[PathBuf]) {
        for (place, library) in parts::libraries(of) {
            self.put(&place, Entry::File(library));
        }
    }

    /// A file of this machine as it is.
    pub(crate) fn file(&mut self, path: &str) {
        let found = parts::find(path).unwrap_or_else(|| panic!("`{path}` is not installed"));
        self.put(&parts::inside(Path::new(path)), Entry::File(found));
    }

    pub(crate) fn text(&mut self, path: &str, text: impl AsRef<[u8]>) {
        self.put(path, Entry::Text(text.as_ref().to_owned(), 0o644));
    }

    /// A script, which begins with `#!`.
    pub(crate) fn script(&mut self, path: &str, text: &str) {
        self.put(path, Entry::Text(text.as_bytes().to_owned(), 0o755));
    }

    pub(crate) fn link(&mut self, path: &str, to: &str) {
        self.put(path, Entry::Link(to.to_owned()));
    }

    pub(crate) fn dir(&mut self, path: &str, mode: u32, user: u64) {
        self.put(path, Entry::Dir(mode, user));
    }

    fn put(&mut self, path: &str, entry: Entry) {
        self.entries.insert(path.to_owned(), entry);
    }

    /// By what it is known whether anything is another thing than before: texts, and of files their size and time.
    pub(crate) fn fingerprint(&self) -> String {
        let mut digest = Sha256::new();
        for (path, entry) in &self.entries {
            digest.update(path);
            match entry {
                Entry::File(file) => {
                    let metadata = file.metadata().unwrap();
                    digest.update(format!("{:?}", (metadata.len(), metadata.mtime(), metadata.mtime_nsec())));
                }
                other => digest.update(format!("{other:?}")),
            }
        }
        digest.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Writes it as a tar archive.
    pub(crate) fn write(&self, to: &Path) -> io::Result<()> {
        let mut tar = tar::Builder::new(io::BufWriter::new(fs::File::create(to)?));
        for (path, entry) in &self.entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(0);
            match entry {
                Entry::File(file) => {
                    let file = fs::File::open(file)?;
                    header.set_size(file.metadata()?.len());
                    header.set_mode(file.metadata()?.permissions().mode() & 0o755);
                    tar.append_data(&mut header, path, file)?;
                }
                Entry::Text(text, mode) => {
                    header.set_size(text.len() as u64);
                    header.set_mode(*mode);
                    tar.append_data(&mut header, path, text.as_slice())?;
                }
                Entry::Link(target) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_mode(0o777);
                    tar.append_link(&mut header, path, target)?;
                }
                Entry::Dir(mode, user) => {
                    header.set_entry_type(tar::EntryType::Directory);
                    header.set_mode(*mode);
                    header.set_uid(*user);
                    header.set_gid(*user);
                    tar.append_data(&mut header, format!("{path}/"), io::empty())?;
                }
            }
        }
        tar.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    }
}
