//! Building with `docker buildx build`.
//!
//! Owns: the command's words, and passing its output on. Never: puts the value of a build argument where other users
//! of the machine can read it, unless the name would change what the command itself does.

use std::{path::Path, process::Stdio, time::Duration};

use bulsa_core::spec::container::{Build, BuildSecret};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

use super::{BuildError, Order, SILENCE_MAX, Voice};

/// How long `docker buildx version` may take.
const VERSION_MAX: Duration = Duration::from_secs(10);
/// A line is read up to so many bytes; what is longer is cut there.
const READ_MAX: u64 = 64 << 10;

/// Whether the Docker CLI and its plugin are installed.
pub(super) async fn is_there() -> bool {
    let mut command = Command::new("docker");
    command.args(["buildx", "version"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let status = timeout(VERSION_MAX, command.kill_on_drop(true).status()).await;
    matches!(status, Ok(Ok(status)) if status.success())
}

/// Builds; gives the image's id.
pub(super) async fn build(order: &Order<'_>, voice: &mut Voice) -> Result<Option<String>, BuildError> {
    let unusable =
        |voice: &Voice, error: &dyn ToString| voice.unusable("`docker buildx build`", error.to_string());
    let directory = tempfile::tempdir().map_err(|error| voice.unusable("a temporary directory", error))?;
    let id_file = directory.path().join("id");
    let (words, variables) = words(order, &id_file);
    let mut command = Command::new("docker");
    command.args(words).envs(variables);
    command.env("DOCKER_HOST", format!("unix://{}", order.socket.display())).env_remove("DOCKER_CONTEXT");
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| unusable(voice, &error))?;
    let dockerfile = order.build.dockerfile_inline.clone().unwrap_or_default();
    let fed = feed(&mut child, dockerfile);
    tokio::join!(fed, listen(&mut child, voice)).1.map_err(|detail| voice.failed(&detail))?;
    let status = child.wait().await.map_err(|error| unusable(voice, &error))?;
    if !status.success() {
        return Err(voice.failed(&format!("`docker buildx build` ended with {status}")));
    }
    // An older plugin that writes no file: the name is enough.
    Ok(std::fs::read_to_string(&id_file).ok().map(|id| id.trim().to_owned()).filter(|id| !id.is_empty()))
}

/// The inline Dockerfile, or nothing.
fn feed(child: &mut Child, text: String) -> impl Future<Output = ()> + use<> {
    let stdin = child.stdin.take();
    async move {
        if let Some(mut stdin) = stdin {
            // A command that doesn't read it has ended, and says why itself.
            stdin.write_all(text.as_bytes()).await.ok();
        }
    }
}

/// Passes lines on until the output ends.
async fn listen(child: &mut Child, voice: &mut Voice) -> Result<(), String> {
    let Some(output) = child.stderr.take() else { return Ok(()) };
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = (&mut output).take(READ_MAX);
        match timeout(SILENCE_MAX, limited.read_until(b'\n', &mut line)).await {
            Ok(Ok(0)) => return Ok(()),
            Ok(Ok(_)) => voice.say(&String::from_utf8_lossy(&line)).await,
            Ok(Err(error)) => return Err(format!("its output can't be read: {error}")),
            Err(_) => return Err(format!("nothing was heard for {} s", SILENCE_MAX.as_secs())),
        }
    }
}

/// The command's words and the variables that hold build arguments.
fn words(order: &Order<'_>, id_file: &Path) -> (Vec<String>, Vec<(String, String)>) {
    let build = order.build;
    let mut words: Vec<String> =
        ["buildx", "build", "--load", "--progress=plain"].iter().map(|word| (*word).to_owned()).collect();
    let mut variables = Vec::new();
    let mut add = |flag: &str, value: &str| words.extend([flag.to_owned(), value.to_owned()]);
    add("--iidfile", &id_file.display().to_string());
    for tag in std::iter::once(order.tag).chain(build.tags.iter().map(String::as_str)) {
        add("--tag", tag);
    }
    if build.dockerfile_inline.is_some() {
        add("--file", "-");
    } else if let Some(file) = &build.dockerfile {
        let file =
            if order.is_remote() { Path::new(file).into() } else { Path::new(&build.context).join(file) };
        add("--file", &file.display().to_string());
    }
    for (name, value) in &build.args {
        if is_the_commands_own(name) {
            add("--build-arg", &format!("{name}={value}"));
        } else {
            add("--build-arg", name);
            variables.push((name.clone(), value.clone()));
        }
    }
    for (flag, pairs) in [("--label", &build.labels), ("--build-context", &build.additional_contexts)] {
        for (name, value) in pairs {
            add(flag, &format!("{name}={value}"));
        }
    }
    for (secret, variable) in secrets(build) {
        add("--secret", &secret);
        variables.extend(variable);
    }
    for (name, limit) in &build.ulimits {
        add("--ulimit", &format!("{name}={}:{}", limit.soft, limit.hard));
    }
    for (name, address) in &build.extra_hosts {
        add("--add-host", &format!("{name}:{address}"));
    }
    for (flag, values) in lists(build) {
        for value in values {
            add(flag, value);
        }
    }
    let shm_size = build.shm_size.map(|size| size.to_string());
    for (flag, value) in [
        ("--target", build.target.as_deref()),
        ("--network", build.network.as_deref()),
        ("--platform", order.platform()),
        ("--shm-size", shm_size.as_deref()),
        ("--provenance", build.provenance.as_deref()),
        ("--sbom", build.sbom.as_deref()),
        ("--allow", build.privileged.then_some("security.insecure")),
    ] {
        if let Some(value) = value {
            // In one word: some of these flags take their value only so.
            words.push(format!("{flag}={value}"));
        }
    }
    for (flag, is_on) in [("--no-cache", build.no_cache), ("--pull", build.pull)] {
        if is_on {
            words.push(flag.to_owned());
        }
    }
    words.push("--".to_owned());
    words.push(build.context.clone());
    (words, variables)
}

/// Each secret's flag, and the variable that it names. Such a variable has a name of ours, since its own could change
/// what the command does.
fn secrets(build: &Build) -> Vec<(String, Option<(String, String)>)> {
    let one = |(at, (id, secret)): (usize, (&String, &BuildSecret))| match secret {
        BuildSecret::File(path) => (format!("id={id},src={path}"), None),
        BuildSecret::Variable(name) => {
            let ours = format!("BULSA_BUILD_SECRET_{at}");
            let value = build.variables.get(name).cloned().unwrap_or_default();
            (format!("id={id},type=env,env={ours}"), Some((ours, value)))
        }
    };
    build.secrets.iter().enumerate().map(one).collect()
}

fn lists(build: &Build) -> [(&'static str, &[String]); 4] {
    [
        ("--cache-from", &build.cache_from),
        ("--cache-to", &build.cache_to),
        ("--ssh", &build.ssh),
        ("--allow", &build.entitlements),
    ]
}

/// Whether a variable of this name would change what the command does.
fn is_the_commands_own(name: &str) -> bool {
    let starts = ["DOCKER_", "BUILDX_", "BUILDKIT_", "LD_", "SSH_", "OTEL_", "XDG_", "GO"];
    ["PATH", "HOME", "TMPDIR"].contains(&name)
        || name.to_ascii_uppercase().ends_with("_PROXY")
        || starts.iter().any(|start| name.starts_with(start))
        || name.is_empty()
        || name.contains(['=', '\0'])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bulsa_core::spec::container::Ulimit;

    use super::*;

    fn words_for(build: &Build) -> (String, Vec<(String, String)>) {
        let none = BTreeMap::new();
        let (service, tag, socket) = ("web", "shop-web", Path::new("/"));
        let order = Order { service, build, tag, platform: None, socket, credentials: &none };
        let (words, variables) = words(&order, Path::new("/tmp/id"));
        (words.join(" "), variables)
    }

    #[test]
    fn every_key_has_its_flag() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let build = Build {
            context: "/srv/shop".to_owned(),
            dockerfile: Some("docker/D".to_owned()),
            args: [pair("TOKEN", "hush"), pair("BUILDKIT_INLINE_CACHE", "1")].into(),
            target: Some("prod".to_owned()),
            labels: [pair("l", "v")].into(),
            cache_from: vec!["shop:cache".to_owned()],
            cache_to: vec!["type=inline".to_owned()],
            additional_contexts: [pair("base", "../base")].into(),
            extra_hosts: vec![pair("db", "10.0.0.1")],
            network: Some("host".to_owned()),
            no_cache: true,
            pull: true,
            platforms: vec!["linux/amd64".to_owned()],
            privileged: true,
            shm_size: Some(1024),
            ssh: vec!["default".to_owned()],
            secrets: [
                ("npm".to_owned(), BuildSecret::File("/home/ann/.npmrc".to_owned())),
                ("token".to_owned(), BuildSecret::Variable("PATH".to_owned())),
            ]
            .into(),
            variables: [pair("PATH", "hush too")].into(),
            tags: vec!["shop:also".to_owned()],
            ulimits: [("nofile".to_owned(), Ulimit { soft: 1, hard: 2 })].into(),
            entitlements: vec!["network.host".to_owned()],
            provenance: Some("false".to_owned()),
            sbom: Some("false".to_owned()),
            dockerfile_inline: None,
            isolation: None,
        };
        let (words, variables) = words_for(&build);
        let expected = [pair("TOKEN", "hush"), pair("BULSA_BUILD_SECRET_1", "hush too")];
        assert_eq!(variables, expected);
        assert!(!words.contains("hush"));
        insta::assert_snapshot!(words.replace(" --", "\n--"), @r"
        buildx build
        --load
        --progress=plain
        --iidfile /tmp/id
        --tag shop-web
        --tag shop:also
        --file /srv/shop/docker/D
        --build-arg BUILDKIT_INLINE_CACHE=1
        --build-arg TOKEN
        --label l=v
        --build-context base=../base
        --secret id=npm,src=/home/ann/.npmrc
        --secret id=token,type=env,env=BULSA_BUILD_SECRET_1
        --ulimit nofile=1:2
        --add-host db:10.0.0.1
        --cache-from shop:cache
        --cache-to type=inline
        --ssh default
        --allow network.host
        --target=prod
        --network=host
        --platform=linux/amd64
        --shm-size=1024
        --provenance=false
        --sbom=false
        --allow=security.insecure
        --no-cache
        --pull
        -- /srv/shop
        ");
    }

    #[test]
    fn an_inline_dockerfile_comes_through_a_pipe() {
        let build = Build {
            context: "https://example.com/shop.git".to_owned(),
            dockerfile_inline: Some("FROM scratch".to_owned()),
            ..Build::default()
        };
        let (words, _) = words_for(&build);
        assert!(words.contains("--file - ") && words.ends_with("-- https://example.com/shop.git"), "{words}");
    }
}
