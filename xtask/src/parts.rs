//! `cargo xtask parts`: real programs that the tests on Docker make their images of, a newer Engine, and what judges the
//! proxy.
//!
//! Owns: `parts/` in the build's directory: Debian's packages, unpacked there and not installed, so that no database or
//! web server is started by its package, and no Engine of the machine is touched. Never: fetches what is there already,
//! or gives up because something can't be had: the tests that need it say that they are skipped.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::run::{Trouble, cargo, is_program, output_of, run, say};

/// Packages that are needed with everything that they depend on, and a file by which it is seen that one is there.
const WHOLE: &[Package] = &[
    ("redis-server", "usr/bin/redis-server"),
    ("postgresql-15", "usr/lib/postgresql/15/bin/postgres"),
    ("openjdk-17-jre-headless", "usr/share/doc/openjdk-17-jre-headless"),
    ("nginx-light", "usr/sbin/nginx"),
    ("node-express", "usr/share/nodejs/express/package.json"),
    ("python3-psycopg", "usr/lib/python3/dist-packages/psycopg/__init__.py"),
    ("haproxy", "usr/sbin/haproxy"),
    ("slowhttptest", "usr/bin/slowhttptest"),
];

/// Packages that are needed alone: what else they ask for, the programs in them don't load.
const ALONE: &[Package] = &[
    ("node-redis", "usr/share/nodejs/redis/package.json"),
    ("node-generic-pool", "usr/share/nodejs/generic-pool/package.json"),
    ("node-yallist", "usr/share/nodejs/yallist/package.json"),
    ("node-ws", "usr/share/nodejs/ws/package.json"),
    ("python3-websockets", "usr/lib/python3/dist-packages/websockets/__init__.py"),
];

/// The scanner for request smuggling, and its version.
const SMUGGLEX: [&str; 2] = ["smugglex", "0.4.0"];

/// What of Debian's unstable packages makes an Engine; `runc` is the system's.
const ENGINE_PACKAGES: [&str; 4] = ["docker-compose", "docker.io", "containerd", "tini"];

/// Where a program is in those packages, and under which name it is needed.
const ENGINE_PROGRAMS: [(&str, &str); 6] = [
    ("usr/libexec/docker/cli-plugins/docker-compose", "docker-compose"),
    ("usr/sbin/dockerd", "dockerd"),
    ("usr/sbin/docker-proxy", "docker-proxy"),
    ("usr/bin/containerd", "containerd"),
    ("usr/bin/containerd-shim-runc-v2", "containerd-shim-runc-v2"),
    ("usr/bin/tini", "docker-init"),
];

/// The keys of Debian's archive: without them this is another system, and its unstable packages don't fit.
const DEBIAN_KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Gets what is missing; each part that can't be had is said.
pub(crate) fn get() -> Result<(), Trouble> {
    let parts = target_dir()?.join("parts");
    for (what, got) in [
        ("programs for tests", debian(&parts)),
        ("a newer Docker Engine", engine(&parts)),
        ("a scanner for request smuggling", smugglex(&parts)),
    ] {
        if let Err(trouble) = got {
            say(&format!("warning: {what} can't be had ({trouble}); the tests that need them are skipped"));
        }
    }
    Ok(())
}

/// The build's directory: this program is in `debug` or `release` of it.
pub(crate) fn target_dir() -> Result<PathBuf, Trouble> {
    let here = std::env::current_exe().map_err(Trouble::io("can't find this program"))?;
    let target = here.parent().and_then(Path::parent).map(Path::to_owned);
    target.ok_or_else(|| Trouble::Other(format!("{} is in no build directory", here.display())))
}

/// A package, and a file by which it is seen that it is there.
pub(crate) type Package = (&'static str, &'static str);

/// The programs for the tests.
fn debian(parts: &Path) -> Result<(), Trouble> {
    unpacked(&parts.join("debian"), &parts.join("archives"), WHOLE, ALONE)
}

/// Further packages of Debian with everything that they need, in the tree that the programs for the tests are in.
pub(crate) fn debian_too(packages: &'static [Package]) -> Result<(), Trouble> {
    // Archives of its own: `parts` may be at work beside it.
    unpacked(&debian_tree()?, &target_dir()?.join("parts/archives-too"), packages, &[])
}

/// Where Debian's packages are unpacked.
pub(crate) fn debian_tree() -> Result<PathBuf, Trouble> {
    Ok(target_dir()?.join("parts/debian"))
}

/// Debian's packages, unpacked as a tree like `/`.
fn unpacked(
    tree: &Path,
    archives: &Path,
    whole: &'static [Package],
    alone: &'static [Package],
) -> Result<(), Trouble> {
    let is_missing =
        |(_, sign): &&(&str, &str)| !tree.join(sign).exists() && !Path::new("/").join(sign).exists();
    let names = |list: &'static [Package]| list.iter().filter(is_missing).map(|(name, _)| *name);
    let (whole, alone): (Vec<_>, Vec<_>) = (names(whole).collect(), names(alone).collect());
    if whole.is_empty() && alone.is_empty() {
        return Ok(());
    }
    must_have_apt()?;
    emptied(&archives.join("partial"))?;
    run(apt(None).args(["update", "--quiet=2"]))?;
    if !whole.is_empty() {
        let mut command = apt(None);
        command.arg("--option").arg(format!("Dir::Cache::archives={}", archives.display()));
        command.args(["install", "--download-only", "--no-install-recommends", "--yes", "--quiet=2"]);
        run(command.args(&whole))?;
    }
    if !alone.is_empty() {
        run(apt(None).args(["download", "--quiet=2"]).args(&alone).current_dir(archives))?;
    }
    unpack(archives, tree)?;
    removed(archives)
}

/// The Engine and Compose of Debian's unstable release, as programs side by side.
fn engine(parts: &Path) -> Result<(), Trouble> {
    let place = parts.join("engine");
    if ENGINE_PROGRAMS.iter().all(|(_, name)| place.join("bin").join(name).exists()) {
        return Ok(());
    }
    must_have_apt()?;
    if !Path::new(DEBIAN_KEYS).exists() {
        return Err(Trouble::Other(format!("this is no Debian: there is no {DEBIAN_KEYS}")));
    }
    let (lists, archives, tree) = (place.join("apt"), place.join("archives"), place.join("tree"));
    for directory in
        [&lists.join("lists/partial"), &lists.join("archives/partial"), &archives, &place.join("bin")]
    {
        emptied(directory)?;
    }
    let config = apt_of_its_own(&lists)?;
    run(apt(Some(&config)).args(["update", "--quiet=2"]))?;
    run(apt(Some(&config)).args(["download", "--quiet=2"]).args(ENGINE_PACKAGES).current_dir(&archives))?;
    unpack(&archives, &tree)?;
    for (from, name) in ENGINE_PROGRAMS {
        let to = place.join("bin").join(name);
        fs::copy(tree.join(from), &to)
            .map_err(Trouble::io(format!("can't copy {from} to {}", to.display())))?;
    }
    [lists, archives, tree].iter().try_for_each(|left| removed(left))
}

/// The scanner, built without optimisation: it sends some dozen requests.
fn smugglex(parts: &Path) -> Result<(), Trouble> {
    let [name, version] = SMUGGLEX;
    let place = parts.join(name);
    if place.join("bin").join(name).exists() {
        return Ok(());
    }
    let build = place.join("build");
    let mut install = cargo();
    install.args(["install", "--quiet", "--locked", "--debug", name, "--version", version]);
    run(install.arg("--root").arg(&place).arg("--target-dir").arg(&build))?;
    removed(&build)
}

/// A configuration for apt that knows only Debian's unstable release, from the mirror that this machine uses, and
/// nothing of what is installed here.
fn apt_of_its_own(directory: &Path) -> Result<PathBuf, Trouble> {
    let write = |name: &str, text: String| {
        let path = directory.join(name);
        fs::write(&path, text).map_err(Trouble::io(format!("can't write {}", path.display()))).map(|()| path)
    };
    let mirror = mirror()?;
    let list = write("sources.list", format!("deb [signed-by={DEBIAN_KEYS}] {mirror} sid main\n"))?;
    let status = write("status", String::new())?;
    let here = directory.display();
    let (list, status) = (list.display(), status.display());
    write(
        "apt.conf",
        format!(
            "Dir::Etc::sourcelist \"{list}\";\nDir::Etc::sourceparts \"/dev/null\";\nDir::State::status \"{status}\";\n\
             Dir::State::lists \"{here}/lists\";\nDir::Cache::archives \"{here}/archives\";\nDir::Cache::pkgcache \"\";\n\
             Dir::Cache::srcpkgcache \"\";\nAPT::Sandbox::User \"root\";\nAcquire::Languages \"none\";\n"
        ),
    )
}

/// Where this machine gets Debian's packages from.
fn mirror() -> Result<String, Trouble> {
    let text = output_of(Command::new("apt-get").args(["indextargets", "--format", "$(REPO_URI)"]))?;
    let is_main = |uri: &&str| uri.contains("/debian") && !uri.contains("security");
    let uri = text.lines().find(is_main).map(str::to_owned);
    uri.ok_or_else(|| Trouble::Other("apt knows no mirror of Debian".to_owned()))
}

fn must_have_apt() -> Result<(), Trouble> {
    match is_program("apt-get") && is_program("dpkg-deb") {
        true if rustix::process::geteuid().is_root() => Ok(()),
        true => Err(Trouble::Other("only root can use apt-get".to_owned())),
        false => Err(Trouble::Other("there is no apt-get here".to_owned())),
    }
}

fn apt(config: Option<&Path>) -> Command {
    let mut command = Command::new("apt-get");
    if let Some(config) = config {
        command.arg("--config-file").arg(config);
    }
    // Standard output may carry data.
    command.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()).stdout(io::stderr());
    command
}

/// Unpacks every package of a directory into one tree.
fn unpack(archives: &Path, tree: &Path) -> Result<(), Trouble> {
    let listed = fs::read_dir(archives).map_err(Trouble::io(format!("can't read {}", archives.display())))?;
    let packages = listed.flatten().map(|entry| entry.path());
    for package in packages.filter(|path| path.extension().is_some_and(|extension| extension == "deb")) {
        output_of(Command::new("dpkg-deb").arg("--extract").args([package.as_path(), tree]))?;
    }
    Ok(())
}

/// A directory that is there and has nothing in it.
fn emptied(directory: &Path) -> Result<(), Trouble> {
    removed(directory)?;
    fs::create_dir_all(directory).map_err(Trouble::io(format!("can't make {}", directory.display())))
}

fn removed(directory: &Path) -> Result<(), Trouble> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Trouble::Io { what: format!("can't remove {}", directory.display()), source: error })
        }
        _ => Ok(()),
    }
}
