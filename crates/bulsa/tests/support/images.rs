//! Images for tests, each of real programs. An image is made once per change of what is in it: its tag is its
//! fingerprint, and its archive lies beside the build, so that a further Engine only has to load it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::{
    engine::Engine,
    parts,
    rootfs::{Rootfs, USER},
};

/// Every image of the tests is `bulsa-test/NAME:FINGERPRINT`.
const REPOSITORY: &str = "bulsa-test";
/// Older images of one name that stay: another build's tests may be using them just now.
const OLDER_KEPT: usize = 3;

/// Redis without its protection against clients from elsewhere.
const REDIS_START: &str = "#!/bin/sh\ncase \"$1\" in\n  --version | -v) exec /usr/bin/redis-server \"$@\" ;;\n\
    \x20 *) exec /usr/bin/redis-server \"$@\" --protected-mode no ;;\nesac\n";

/// What an image is made of.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) name: &'static str,
    pub(crate) rootfs: Rootfs,
    /// As in a Dockerfile: `CMD […]`, `ENV A=b`, `EXPOSE 80`, `USER app`, `HEALTHCHECK …`.
    pub(crate) config: Vec<String>,
}

/// An image of these programs of the machine, each at its own place and with its libraries, and of further files.
pub(crate) fn from_programs(name: &'static str, programs: &[&str], files: &[(&str, &str)]) -> Image {
    let mut rootfs = Rootfs::new();
    programs.iter().for_each(|program| rootfs.program(program));
    files.iter().for_each(|(path, text)| rootfs.text(path, text));
    Image { name, rootfs, config: vec!["ENV PATH=/usr/local/bin:/usr/bin:/usr/sbin".to_owned()] }
}

/// The demo's app on port 3000, whose character its environment decides (`DEMO_…`).
pub(crate) fn app() -> Image {
    let mut image = from_programs("app", &[], &[]);
    image.rootfs.program_at(&stripped(Path::new(env!("CARGO_BIN_EXE_bulsa"))), "usr/bin/bulsa");
    image.with(&["ENV PORT=3000 DEMO_HOST=0.0.0.0", "EXPOSE 3000", r#"CMD ["bulsa", "__demo-app"]"#])
}

/// A shell and the usual small programs.
pub(crate) fn busybox() -> Image {
    from_programs("busybox", &[], &[]).with(&[r#"CMD ["sh"]"#])
}

/// As the official image: port 6379, everything in `/data`.
pub(crate) fn redis() -> Option<Image> {
    let programs = ["usr/bin/redis-server", "usr/bin/redis-cli"];
    parts::have(&programs).then(|| {
        let mut image = from_programs("redis", &programs, &[]);
        image.rootfs.dir("data", 0o755, USER);
        // The official image is built to answer other containers whatever its command is.
        image.rootfs.script("usr/local/bin/redis-server", REDIS_START);
        image.with(&["USER app", "WORKDIR /data", "VOLUME /data", "EXPOSE 6379", r#"CMD ["redis-server"]"#])
    })
}

/// Node.js with Express, the Redis client and WebSockets (Debian's packages of them).
pub(crate) fn node() -> Option<Image> {
    let modules = ["express", "redis", "ws"].map(|name| format!("usr/share/nodejs/{name}"));
    if !parts::have(&modules.each_ref().map(String::as_str)) || !parts::have(&["usr/bin/node"]) {
        return None;
    }
    let mut image = from_programs("node", &["usr/bin/node"], &[]);
    for module in module_directories() {
        image.rootfs.tree(&module, &["test", "tests", "docs", "examples"]);
    }
    Some(image.with(&["ENV NODE_PATH=/usr/share/nodejs", "WORKDIR /app", r#"CMD ["node"]"#]))
}

/// The directories of the modules and of everything that they load, as Node itself finds them.
fn module_directories() -> Vec<String> {
    const LIST: &str = "for (const name of ['express', 'redis', 'ws']) require(name);
        const root = /^(.*\\/nodejs\\/(?:@[^/]+\\/)?[^/]+)\\//;
        const all = Object.keys(require.cache).map((file) => root.exec(file)).filter(Boolean);
        console.log([...new Set(all.map((found) => found[1]))].join('\\n'));";
    let roots = [parts::find("usr/share/nodejs/redis").unwrap(), PathBuf::from("/usr/share/nodejs/x")];
    let roots = roots.map(|path| path.parent().unwrap().display().to_string());
    // A package of ours finds those of the system through NODE_PATH.
    let listed = Command::new("/usr/bin/node").args(["-e", LIST]).env("NODE_PATH", roots.join(":")).output();
    let listed = listed.unwrap();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let text = String::from_utf8(listed.stdout).unwrap();
    text.lines().map(|line| format!("/{}", parts::inside(Path::new(line)))).collect()
}

/// Python with its standard library, and psycopg for Postgres where that is to be had.
pub(crate) fn python() -> Option<Image> {
    const LEFT_OUT: &[&str] =
        &["test", "tests", "idlelib", "turtledemo", "lib2to3", "ensurepip", "pydoc_data", "dist-packages"];
    if !parts::have(&["usr/bin/python3"]) {
        return None;
    }
    let program = fs::canonicalize("/usr/bin/python3").unwrap();
    let version = program.file_name().unwrap().to_str().unwrap().to_owned();
    let mut image = from_programs("python", &[program.to_str().unwrap()], &[]);
    image.rootfs.link("usr/bin/python3", &version);
    image.rootfs.link("usr/bin/python", &version);
    let config =
        format!("config-{}-{}-linux-gnu", version.trim_start_matches("python"), std::env::consts::ARCH);
    image.rootfs.tree(&format!("usr/lib/{version}"), &[LEFT_OUT, &[config.as_str()]].concat());
    let library = format!("usr/lib/{}-linux-gnu/libpq.so.5", std::env::consts::ARCH);
    if parts::find("usr/lib/python3/dist-packages/psycopg").is_some() && parts::find(&library).is_some() {
        image.rootfs.tree("usr/lib/python3/dist-packages/psycopg", &[]);
        image.rootfs.file("usr/lib/python3/dist-packages/typing_extensions.py");
        image.rootfs.program(&library);
        // Python asks it where a library is.
        image.rootfs.program("sbin/ldconfig");
        image.rootfs.text("etc/ld.so.conf", format!("/usr/lib/{}-linux-gnu\n", std::env::consts::ARCH));
        image.rootfs.file("etc/ld.so.cache");
    }
    Some(image.with(&["ENV PYTHONUNBUFFERED=1", "WORKDIR /app", r#"CMD ["python3"]"#]))
}

/// As the official image: `POSTGRES_USER`, `POSTGRES_PASSWORD`, `POSTGRES_DB`; port 5432, a volume for the data.
pub(crate) fn postgres() -> Option<Image> {
    const START: &str = include_str!("postgres-start.sh");
    let version =
        (13..30).rev().find(|n| parts::find(&format!("usr/lib/postgresql/{n}/bin/postgres")).is_some());
    let Some(version) = version else {
        parts::have(&["usr/lib/postgresql/15/bin/postgres"]);
        return None;
    };
    let bin = format!("usr/lib/postgresql/{version}/bin");
    let programs = ["postgres", "initdb", "pg_ctl", "pg_isready", "psql"].map(|name| format!("{bin}/{name}"));
    let mut image = from_programs("postgres", &programs.each_ref().map(String::as_str), &[]);
    // Compiling queries to machine code is for big databases, and takes 100 MB.
    let jit = ["llvmjit.so", "bitcode", "pgxs"];
    image.rootfs.tree(&format!("usr/lib/postgresql/{version}/lib"), &jit);
    image.rootfs.tree(&format!("usr/share/postgresql/{version}"), &["man", "extension"]);
    for extension in ["plpgsql.control", "plpgsql--1.0.sql"] {
        image.rootfs.file(&format!("usr/share/postgresql/{version}/extension/{extension}"));
    }
    image.rootfs.tree("usr/share/zoneinfo/Etc", &[]);
    image.rootfs.tree("usr/lib/locale/C.utf8", &[]);
    image.rootfs.script("usr/local/bin/postgres-start", START);
    image.rootfs.dir("var/lib/postgresql", 0o755, USER);
    image.rootfs.dir("var/lib/postgresql/data", 0o700, USER);
    image.rootfs.dir("var/run/postgresql", 0o1777, USER);
    let path =
        format!("ENV PATH=/usr/local/bin:/{bin}:/usr/bin PGDATA=/var/lib/postgresql/data LANG=C.UTF-8");
    let volume = "VOLUME /var/lib/postgresql/data";
    Some(image.with(&[path.as_str(), "USER app", volume, "EXPOSE 5432", r#"CMD ["postgres-start"]"#]))
}

/// Java 17, which compiles a source file by itself: `java Main.java`.
pub(crate) fn java() -> Option<Image> {
    let home = format!("usr/lib/jvm/java-17-openjdk-{}", debian_architecture());
    if !parts::have(&[&format!("{home}/lib/modules")]) {
        return None;
    }
    let mut image = from_programs("java", &[&format!("{home}/bin/java")], &[]);
    let development =
        ["jmods", "include", "man", "docs", "src.zip", "ct.sym", "legal", "libjawt.so", "libawt_xawt.so"];
    image.rootfs.tree(&home, &development);
    // The compiler needs it to compile for this very version.
    if parts::find(&format!("{home}/lib/ct.sym")).is_some() {
        image.rootfs.file(&format!("{home}/lib/ct.sym"));
    }
    let compiler = "#!/bin/sh\nexec java -m jdk.compiler/com.sun.tools.javac.Main \"$@\"\n";
    image.rootfs.script("usr/local/bin/javac", compiler);
    let path = format!("ENV JAVA_HOME=/{home} PATH=/{home}/bin:/usr/local/bin:/usr/bin");
    Some(image.with(&[path.as_str(), "WORKDIR /app", r#"CMD ["java", "-version"]"#]))
}

/// As the official image: port 80, `/etc/nginx/conf.d/*.conf`, the log on the container's output.
pub(crate) fn nginx() -> Option<Image> {
    const CONFIG: &str = "user root;\nevents {}\nerror_log /dev/stderr;\npid /run/nginx.pid;\n\
        http {\n  include mime.types;\n  access_log /dev/stdout;\n  include /etc/nginx/conf.d/*.conf;\n}\n";
    const SITE: &str = "server { listen 80; location / { root /usr/share/nginx/html; } }\n";
    parts::have(&["usr/sbin/nginx", "etc/nginx/mime.types"]).then(|| {
        let files = [("etc/nginx/nginx.conf", CONFIG), ("etc/nginx/conf.d/default.conf", SITE)];
        let mut image = from_programs("nginx", &["usr/sbin/nginx"], &files);
        image.rootfs.file("etc/nginx/mime.types");
        image.rootfs.text("usr/share/nginx/html/index.html", "<h1>It works</h1>\n");
        for dir in ["var/lib/nginx", "var/log/nginx"] {
            image.rootfs.dir(dir, 0o755, 0);
        }
        image.with(&["EXPOSE 80", r#"CMD ["nginx", "-g", "daemon off;"]"#])
    })
}

fn debian_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The program without what only a debugger reads: a third of the size. As it is where there is no `strip`.
fn stripped(program: &Path) -> PathBuf {
    let small = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("app-{}", std::process::id()));
    let done = Command::new("strip").arg("-p").arg("-o").arg(&small).arg(program).status();
    if !done.is_ok_and(|status| status.success()) {
        return program.to_owned();
    }
    // Tests run side by side: whoever is last puts the same file there.
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("app");
    fs::rename(&small, &place).unwrap();
    place
}

impl Image {
    /// Further lines of configuration.
    pub(crate) fn with(mut self, lines: &[&str]) -> Self {
        self.config.extend(lines.iter().map(|line| (*line).to_owned()));
        self
    }

    /// Makes sure that the Engine has it; gives its whole name.
    pub(crate) fn load(&self, engine: &Engine) -> String {
        let mut fingerprint = self.rootfs.fingerprint();
        fingerprint.push_str(&crate::support::short_hash(&self.config.join("\n")));
        let name = format!("{REPOSITORY}/{}:{fingerprint}", self.name);
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("images");
        fs::create_dir_all(&directory).unwrap();
        // One at a time over all test processes: the second one finds it made.
        let lock = fs::File::create(directory.join("lock")).unwrap();
        lock.lock().unwrap();
        if engine.try_docker(&["image", "inspect", &name]).is_err() {
            let archive = directory.join(format!("{}-{fingerprint}.tar", self.name));
            if !archive.exists() {
                self.forget_older(&directory);
                let unfinished = archive.with_extension("unfinished");
                self.rootfs.write(&unfinished).unwrap();
                fs::rename(&unfinished, &archive).unwrap();
            }
            let mut words = vec!["import"];
            words.extend(self.config.iter().flat_map(|line| ["--change", line.as_str()]));
            words.extend([archive.to_str().unwrap(), &name]);
            engine.docker(&words);
            engine.forget_images(&format!("{REPOSITORY}/{}", self.name), OLDER_KEPT);
        }
        name
    }

    /// Removes archives of what this image was earlier.
    fn forget_older(&self, directory: &Path) {
        let prefix = format!("{}-", self.name);
        for entry in fs::read_dir(directory).unwrap().flatten() {
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix)) {
                fs::remove_file(entry.path()).ok();
            }
        }
    }
}
