//! Finding and reading a project's files.
//!
//! Owns: where Compose looks for files, `.env`, and the one call into the loader. Never: knows what a key means.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use bulsa_core::{
    compose::{self, LoadInput, Loaded, ReadError},
    spec::Spec,
    wire::api::SourceFile,
};

use super::{args::FileArgs, context::Context};
use crate::report::CommandError;

/// The names that Compose looks for, in its order.
const FILE_NAMES: &[&str] = &["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];
/// Each name's companion that Compose merges in by itself.
const OVERRIDE_NAMES: &[&str] = &[
    "compose.override.yaml",
    "compose.override.yml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
];
/// A file is at most this long, in bytes.
const FILE_MAX_BYTES: u64 = 4 << 20;

/// A project as its files say it should be.
pub(super) struct Project {
    pub(super) spec: Spec,
    pub(super) sources: Vec<SourceFile>,
    pub(super) loaded: Loaded,
}

/// The files of a project, and what they are seen from.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    files: Vec<PathBuf>,
    directory: PathBuf,
}

/// Reads the project that the flags, or the working directory, name. Every mistake in it is shown at once.
pub(super) fn load(args: &FileArgs, context: &mut Context<'_>) -> Result<Project, CommandError> {
    let found = find(args, &context.directory, &context.env)?;
    let mut sources = Vec::with_capacity(found.files.len());
    for file in &found.files {
        sources.push(read_source(file, &context.directory)?);
    }
    let dotenv = read_dotenv(args, &found.directory, &context.directory)?;
    let loaded = parse(&sources, dotenv, &found.directory, context);
    let mistakes =
        loaded.diagnostics.list().iter().filter(|d| d.severity == compose::diagnostic::Severity::Error);
    let mistakes = mistakes.count() + loaded.diagnostics.omitted();
    let Some(spec) = loaded.spec.clone() else {
        let noun = if mistakes == 1 { "mistake" } else { "mistakes" };
        let names: Vec<&str> = sources.iter().map(|source| source.path.as_str()).collect();
        let error =
            CommandError::user(format!("{mistakes} {noun} in {}; nothing was started", names.join(" and ")));
        return Err(error.cause(&loaded.diagnostics));
    };
    if !loaded.diagnostics.list().is_empty() {
        context.printer.remark(&loaded.diagnostics.to_string())?;
    }
    Ok(Project { spec, sources, loaded })
}

/// The one call into the loader.
fn parse(
    sources: &[SourceFile],
    dotenv: Option<SourceFile>,
    directory: &Path,
    context: &Context<'_>,
) -> Loaded {
    let file =
        |source: &SourceFile| compose::SourceFile { path: source.path.clone(), text: source.text.clone() };
    let mut read = |path: &str| match read_text(Path::new(path)) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(ReadError::NotFound),
        Err(error) => Err(ReadError::Other(error.to_string())),
    };
    compose::load(LoadInput {
        files: sources.iter().map(file).collect(),
        project_dir: directory.to_string_lossy().into_owned(),
        project_name: context.project.clone(),
        env: context.env.clone(),
        dotenv: dotenv.as_ref().map(file),
        read: &mut read,
    })
}

/// The name of the project whose file is here or above; for choosing among those that run, so mistakes don't matter.
pub(super) fn name_here(context: &Context<'_>) -> Option<String> {
    let found = find(&context.files, &context.directory, &context.env).ok()?;
    let sources: Vec<SourceFile> = found
        .files
        .iter()
        .map(|file| read_source(file, &context.directory))
        .collect::<Result<_, _>>()
        .ok()?;
    let dotenv = read_dotenv(&context.files, &found.directory, &context.directory).ok()?;
    parse(&sources, dotenv, &found.directory, context).spec.map(|spec| spec.project)
}

/// `-f`, else `COMPOSE_FILE`, else the nearest directory upwards with a file of a known name.
fn find(args: &FileArgs, here: &Path, env: &BTreeMap<String, String>) -> Result<Found, CommandError> {
    let named = if args.files.is_empty() { from_environment(env) } else { args.files.clone() };
    if let Some(first) = named.first() {
        let path = here.join(first);
        let directory = if first.as_os_str() == "-" { here } else { path.parent().unwrap_or(here) };
        return Ok(Found { directory: tidy(directory), files: named });
    }
    for directory in here.ancestors() {
        let there =
            |names: &[&str]| names.iter().map(|name| directory.join(name)).find(|path| path.is_file());
        if let Some(file) = there(FILE_NAMES) {
            // Compose would merge this one in without being told; so it must not be passed over in silence.
            let files =
                [file].into_iter().chain(there(OVERRIDE_NAMES)).map(|path| short(&path, here)).collect();
            return Ok(Found { files, directory: directory.to_path_buf() });
        }
    }
    Err(CommandError::user(format!("there is no compose file in {} or above it", here.display()))
        .cause(format!("looked for {}", FILE_NAMES.join(", ")))
        .hint("name one with `-f FILE`, or keep a single program alive with `bulsa run -- CMD`"))
}

fn from_environment(env: &BTreeMap<String, String>) -> Vec<PathBuf> {
    let separator =
        env.get("COMPOSE_PATH_SEPARATOR").filter(|text| !text.is_empty()).map_or(":", String::as_str);
    let list = env.get("COMPOSE_FILE").map_or("", String::as_str);
    list.split(separator).filter(|part| !part.is_empty()).map(PathBuf::from).collect()
}

/// A file in the working directory is shown by its name alone.
fn short(path: &Path, here: &Path) -> PathBuf {
    path.strip_prefix(here).unwrap_or(path).to_path_buf()
}

/// Without `.` and `..`, as far as that needs no look at links.
fn tidy(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_path_buf())
}

fn read_source(file: &Path, here: &Path) -> Result<SourceFile, CommandError> {
    let path = file.to_string_lossy().into_owned();
    let text = if path == "-" { read_bounded(io::stdin().lock()) } else { read_text(&here.join(file)) };
    let text =
        text.map_err(|error| CommandError::user(format!("can't read the compose file {path}")).cause(error))?;
    Ok(SourceFile { path, text })
}

/// `--env-file`, which must be there, or `.env` in the project's directory, which need not.
fn read_dotenv(args: &FileArgs, directory: &Path, here: &Path) -> Result<Option<SourceFile>, CommandError> {
    let path = args.env_file.as_ref().map_or_else(|| directory.join(".env"), |file| here.join(file));
    match read_text(&path) {
        Ok(text) => Ok(Some(SourceFile { path: short(&path, here).to_string_lossy().into_owned(), text })),
        Err(error) if error.kind() == io::ErrorKind::NotFound && args.env_file.is_none() => Ok(None),
        Err(error) => {
            Err(CommandError::user(format!("can't read the env file {}", path.display())).cause(error))
        }
    }
}

fn read_text(path: &Path) -> io::Result<String> {
    read_bounded(File::open(path)?)
}

fn read_bounded(from: impl Read) -> io::Result<String> {
    let mut text = String::new();
    from.take(FILE_MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_MAX_BYTES {
        return Err(io::Error::other(format!("it is longer than {} MiB", FILE_MAX_BYTES >> 20)));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn names(found: &Found) -> Vec<String> {
        found.files.iter().map(|file| file.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn files_are_looked_for_upwards_in_composes_order_with_their_override() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b");
        fs::create_dir_all(&deep).unwrap();
        let env = BTreeMap::new();
        let error = find(&FileArgs::default(), &deep, &env).map(|found| names(&found));
        // Something above the temporary directory may hold one; then there is nothing to see here.
        if let Err(error) = error {
            assert!(error.hints[0].contains("-f FILE"), "{error:?}");
        }
        fs::write(dir.path().join("docker-compose.yml"), "").unwrap();
        fs::write(dir.path().join("compose.yaml"), "").unwrap();
        fs::write(dir.path().join("compose.override.yml"), "").unwrap();
        let found = find(&FileArgs::default(), dir.path(), &env).unwrap();
        assert_eq!(names(&found), ["compose.yaml", "compose.override.yml"]);
        let above = find(&FileArgs::default(), &deep, &env).unwrap();
        assert_eq!(above.directory, dir.path());
    }

    #[test]
    fn flags_win_over_compose_file_and_give_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let here = dir.path().canonicalize().unwrap();
        fs::create_dir(here.join("sub")).unwrap();
        let env = BTreeMap::from([("COMPOSE_FILE".to_owned(), "sub/x.yaml:y.yaml".to_owned())]);
        let found = find(&FileArgs::default(), &here, &env).unwrap();
        assert_eq!(
            (names(&found), found.directory.clone()),
            (vec!["sub/x.yaml".into(), "y.yaml".into()], here.join("sub"))
        );
        let args = FileArgs { files: vec!["z.yaml".into()], env_file: None };
        let found = find(&args, &here, &env).unwrap();
        assert_eq!((names(&found), found.directory), (vec!["z.yaml".into()], here));
    }

    #[test]
    fn a_dotenv_need_not_be_there_unless_it_was_named() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read_dotenv(&FileArgs::default(), dir.path(), dir.path()).unwrap(), None);
        let args = FileArgs { files: Vec::new(), env_file: Some("prod.env".into()) };
        let error = read_dotenv(&args, dir.path(), dir.path()).unwrap_err();
        assert!(error.message.contains("prod.env"), "{error:?}");
        fs::write(dir.path().join("prod.env"), "A=1").unwrap();
        assert_eq!(read_dotenv(&args, dir.path(), dir.path()).unwrap().unwrap().text, "A=1");
    }

    #[test]
    fn a_file_beyond_the_limit_is_not_read_into_memory() {
        let error = read_bounded(io::repeat(b'#')).unwrap_err();
        assert!(error.to_string().contains("4 MiB"), "{error}");
    }
}
