//! Finding and reading a project's files.
//!
//! Owns: where Compose looks for files, `.env`, and the one call into the loader. Never: knows what a key means.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use bulsa_core::{
    compose::{
        self, LoadInput, Loaded, ReadError,
        diagnostic::{Diagnostic, Diagnostics},
        dotenv,
        files::MAX_FILES,
    },
    spec::Spec,
    wire::api::SourceFile,
};

use super::{
    args::FileArgs,
    context::Context,
    sources::{Seen, absolute},
};
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
pub(super) const FILE_MAX_BYTES: u64 = 4 << 20;

/// A project as its files say it should be.
pub(super) struct Project {
    pub(super) spec: Spec,
    /// Every file that it was read from.
    pub(super) sources: Vec<SourceFile>,
    pub(super) loaded: Loaded,
}

/// The files of a project, and what they are seen from.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) files: Vec<PathBuf>,
    pub(super) directory: PathBuf,
}

/// Reads the project that the flags, or the working directory, name. `services` are those that the command line names:
/// they are on whatever their profiles are. Every mistake in the files is shown at once.
pub(super) fn load(
    args: &FileArgs,
    services: &[String],
    context: &mut Context<'_>,
) -> Result<Project, CommandError> {
    let Read { files, seen, loaded } = read(args, services, context)?;
    let Some(spec) = loaded.spec.clone() else { return Err(mistakes(&files, &loaded)) };
    if !loaded.diagnostics.list().is_empty() {
        context.printer.remark(&loaded.diagnostics.to_string())?;
    }
    Ok(Project { spec, sources: seen.with(&files, &context.directory), loaded })
}

/// Reads the project as Compose would: what only Bulsa can't do, or what isn't on this host, is remarked and no more.
pub(super) fn resolve(args: &FileArgs, context: &mut Context<'_>) -> Result<Loaded, CommandError> {
    let Read { files, loaded, .. } = read(args, &[], context)?;
    let is_mistake =
        |one: &Diagnostic| one.severity == compose::diagnostic::Severity::Error && !one.only_here;
    if loaded.tree.is_none() || loaded.diagnostics.list().iter().any(is_mistake) {
        return Err(mistakes(&files, &loaded));
    }
    if !loaded.diagnostics.list().is_empty() {
        context.printer.remark(&loaded.diagnostics.to_string())?;
    }
    Ok(loaded)
}

fn mistakes(files: &[compose::SourceFile], loaded: &Loaded) -> CommandError {
    let errors =
        loaded.diagnostics.list().iter().filter(|d| d.severity == compose::diagnostic::Severity::Error);
    let count = errors.count() + loaded.diagnostics.omitted();
    let noun = if count == 1 { "mistake" } else { "mistakes" };
    let names: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
    let error = CommandError::user(format!("{count} {noun} in {}; nothing was started", names.join(" and ")));
    error.cause(&loaded.diagnostics)
}

/// What was read, and what came of it.
struct Read {
    files: Vec<compose::SourceFile>,
    /// The other files.
    seen: Seen,
    loaded: Loaded,
}

/// Finds and reads the files, and gives them to the loader.
fn read(args: &FileArgs, services: &[String], context: &Context<'_>) -> Result<Read, CommandError> {
    let here = context.directory.as_path();
    let (found, dotenvs) = find_all(args, here, &context.env)?;
    let found = found.ok_or_else(|| no_file(args, here))?;
    let files = read_all(&found, here)?;
    let mut seen = Seen::default();
    if env_files(args, &context.env).is_empty() && !without_dotenv(&context.env)? {
        // It may come later, and then says something.
        seen.note(&found.directory.join(".env").to_string_lossy(), None);
    }
    for file in &dotenvs {
        seen.note(&absolute(&file.path, here), Some(file.text.as_bytes()));
    }
    let mut read = |path: &str| {
        let bytes = File::open(path).and_then(read_bytes);
        seen.note(path, bytes.as_deref().ok());
        bytes
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => ReadError::NotFound,
                _ => ReadError::Other(error.to_string()),
            })
            .and_then(|bytes| {
                String::from_utf8(bytes).map_err(|error| ReadError::NotText(error.into_bytes()))
            })
    };
    let loaded = compose::load(LoadInput {
        here: here.to_string_lossy().into_owned(),
        project_name: context.project.clone(),
        env: context.env.clone(),
        dotenvs,
        profiles: args.profiles.clone(),
        services: services.to_vec(),
        is_executable,
        ..LoadInput::new(files.clone(), &found.directory.to_string_lossy(), &mut read)
    });
    Ok(Read { files, seen, loaded })
}

/// Whether its owner may run the file.
fn is_executable(path: &str) -> bool {
    std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o100 != 0)
}

/// The texts of the files that were found.
pub(super) fn read_all(found: &Found, here: &Path) -> Result<Vec<compose::SourceFile>, CommandError> {
    if found.files.len() > MAX_FILES {
        let text = format!("there are {} compose files, and at most {MAX_FILES} are read", found.files.len());
        return Err(CommandError::user(text).hint("name fewer of them with `-f`"));
    }
    found.files.iter().map(|file| read_source(file, here)).collect()
}

/// The project's files and its `.env`s, in Compose's order: a `.env` beside the first `-f` (or here) may itself say
/// which files there are, and the project's directory, which follows from them, may have another one.
pub(super) fn find_all(
    args: &FileArgs,
    here: &Path,
    env: &BTreeMap<String, String>,
) -> Result<(Option<Found>, Vec<compose::SourceFile>), CommandError> {
    let named = env_files(args, env);
    let start =
        args.project_directory.as_ref().map_or_else(|| parent(&args.files, here), |dir| here.join(dir));
    let start = tidy(&start);
    let mut dotenvs = dotenvs(&named, &start, here, env)?;
    let found = find(args, here, &with_dotenvs(env, &dotenvs));
    if let Some(found) = found.as_ref().filter(|found| named.is_empty() && found.directory != start) {
        // The nearer one wins, so it comes last.
        dotenvs.splice(0..0, self::dotenvs(&named, &found.directory, here, env)?);
    }
    Ok((found, dotenvs))
}

/// The caller's variables over those of the files; mistakes in the files are named when the project is loaded.
pub(super) fn with_dotenvs(
    env: &BTreeMap<String, String>,
    dotenvs: &[compose::SourceFile],
) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for file in dotenvs {
        let lookup = |name: &str| env.get(name).cloned();
        let mut mistakes = Diagnostics::default();
        let source = (file.path.as_str(), file.text.as_str());
        dotenv::extend(&mut all, source, dotenv::Format::Compose, &lookup, &mut mistakes);
    }
    all.extend(env.iter().map(|(name, value)| (name.clone(), value.clone())));
    all
}

/// `-f`, else `COMPOSE_FILE`, else the nearest directory upwards with a file of a known name.
fn find(args: &FileArgs, here: &Path, env: &BTreeMap<String, String>) -> Option<Found> {
    let given = args.project_directory.as_ref().map(|directory| tidy(&here.join(directory)));
    let named = if args.files.is_empty() { from_environment(env) } else { args.files.clone() };
    if !named.is_empty() {
        let directory = given.unwrap_or_else(|| tidy(&parent(&named, here)));
        return Some(Found { directory, files: named });
    }
    let start = given.as_deref().unwrap_or(here);
    for directory in start.ancestors() {
        let there =
            |names: &[&str]| names.iter().map(|name| directory.join(name)).find(|path| path.is_file());
        if let Some(file) = there(FILE_NAMES) {
            let files =
                [file].into_iter().chain(there(OVERRIDE_NAMES)).map(|path| short(&path, here)).collect();
            let directory = given.clone().unwrap_or_else(|| directory.to_path_buf());
            return Some(Found { files, directory });
        }
    }
    None
}

/// Nowhere where one is looked for.
pub(super) fn no_file(args: &FileArgs, here: &Path) -> CommandError {
    let start =
        args.project_directory.as_ref().map_or_else(|| here.to_path_buf(), |dir| tidy(&here.join(dir)));
    CommandError::user(format!("there is no compose file in {} or above it", start.display()))
        .cause(format!("looked for {}", FILE_NAMES.join(", ")))
        .hint("name one with `-f FILE`, or keep a single program alive with `bulsa run -- CMD`")
}

fn from_environment(env: &BTreeMap<String, String>) -> Vec<PathBuf> {
    let separator =
        env.get("COMPOSE_PATH_SEPARATOR").filter(|text| !text.is_empty()).map_or(":", String::as_str);
    let list = env.get("COMPOSE_FILE").map_or("", String::as_str);
    list.split(separator).filter(|part| !part.is_empty()).map(PathBuf::from).collect()
}

/// The directory of the first of `files` that is one; standard input is nowhere.
fn parent(files: &[PathBuf], here: &Path) -> PathBuf {
    let file = files.iter().find(|file| file.as_os_str() != "-").map(|file| here.join(file));
    file.and_then(|file| file.parent().map(Path::to_path_buf)).unwrap_or_else(|| here.to_path_buf())
}

/// A file in the working directory is shown by its name alone.
fn short(path: &Path, here: &Path) -> PathBuf {
    path.strip_prefix(here).unwrap_or(path).to_path_buf()
}

/// Without `.` and `..`, as far as that needs no look at links.
fn tidy(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_path_buf())
}

fn read_source(file: &Path, here: &Path) -> Result<compose::SourceFile, CommandError> {
    let path = file.to_string_lossy().into_owned();
    let text = if path == "-" { read_bounded(io::stdin().lock()) } else { read_text(&here.join(file)) };
    let text =
        text.map_err(|error| CommandError::user(format!("can't read the compose file {path}")).cause(error))?;
    Ok(compose::SourceFile { path, text })
}

/// The files of `--env-file`, else of `COMPOSE_ENV_FILES`, which has commas between them.
fn env_files(args: &FileArgs, env: &BTreeMap<String, String>) -> Vec<PathBuf> {
    if !args.env_files.is_empty() {
        return args.env_files.clone();
    }
    let list = env.get("COMPOSE_ENV_FILES").map_or("", String::as_str);
    list.split(',').filter(|part| !part.is_empty()).map(PathBuf::from).collect()
}

/// Those files, which must be there, or `.env` in `directory`, which need not be and can be switched off.
fn dotenvs(
    named: &[PathBuf],
    directory: &Path,
    here: &Path,
    env: &BTreeMap<String, String>,
) -> Result<Vec<compose::SourceFile>, CommandError> {
    let shown = |path: &Path| short(path, here).to_string_lossy().into_owned();
    let failed = |path: &Path, error: io::Error| {
        CommandError::user(format!("can't read the env file {}", path.display())).cause(error)
    };
    if named.is_empty() {
        let path = directory.join(".env");
        if without_dotenv(env)? || path.is_dir() {
            return Ok(Vec::new());
        }
        return match read_text(&path) {
            Ok(text) => Ok(vec![compose::SourceFile { path: shown(&path), text }]),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(failed(&path, error)),
        };
    }
    let read = |file: &PathBuf| {
        let path = here.join(file);
        let text = read_text(&path).map_err(|error| failed(&path, error))?;
        Ok(compose::SourceFile { path: shown(&path), text })
    };
    named.iter().map(read).collect()
}

/// Whether `COMPOSE_DISABLE_ENV_FILE` says that no `.env` is looked for.
fn without_dotenv(env: &BTreeMap<String, String>) -> Result<bool, CommandError> {
    match env.get("COMPOSE_DISABLE_ENV_FILE").map(String::as_str) {
        None | Some("" | "0" | "f" | "F" | "FALSE" | "false" | "False") => Ok(false),
        Some("1" | "t" | "T" | "TRUE" | "true" | "True") => Ok(true),
        Some(other) => Err(CommandError::user(format!("COMPOSE_DISABLE_ENV_FILE is {other:?}"))
            .hint("set it to `true` or `false`, or unset it")),
    }
}

fn read_text(path: &Path) -> io::Result<String> {
    read_bounded(File::open(path)?)
}

fn read_bounded(from: impl io::Read) -> io::Result<String> {
    let not_text = || io::Error::new(io::ErrorKind::InvalidData, "it doesn't hold text (UTF-8)");
    String::from_utf8(read_bytes(from)?).map_err(|_| not_text())
}

fn read_bytes(from: impl io::Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_MAX_BYTES {
        return Err(io::Error::other(format!("it is longer than {} MiB", FILE_MAX_BYTES >> 20)));
    }
    Ok(bytes)
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
        let error = no_file(&FileArgs::default(), &deep);
        assert!(error.message.contains("a/b") && error.hints[0].contains("-f FILE"), "{error:?}");
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
        let args = FileArgs { files: vec!["z.yaml".into()], ..FileArgs::default() };
        let found = find(&args, &here, &env).unwrap();
        assert_eq!((names(&found), found.directory), (vec!["z.yaml".into()], here));
    }

    #[test]
    fn a_dotenv_need_not_be_there_unless_it_was_named() {
        let dir = tempfile::tempdir().unwrap();
        let here = dir.path();
        let env = BTreeMap::new();
        let texts = |named: &[&str], env: &BTreeMap<String, String>| {
            let named: Vec<PathBuf> = named.iter().map(PathBuf::from).collect();
            dotenvs(&named, here, here, env)
                .map(|files| files.into_iter().map(|f| f.text).collect::<Vec<_>>())
        };
        assert_eq!(texts(&[], &env).unwrap(), [""; 0]);
        let error = texts(&["prod.env"], &env).unwrap_err();
        assert!(error.message.contains("prod.env"), "{error:?}");
        fs::write(here.join("prod.env"), "A=1").unwrap();
        fs::write(here.join(".env"), "A=2").unwrap();
        assert_eq!(texts(&["prod.env", ".env"], &env).unwrap(), ["A=1", "A=2"]);
        assert_eq!(texts(&[], &env).unwrap(), ["A=2"]);
        let disabled =
            |value: &str| BTreeMap::from([("COMPOSE_DISABLE_ENV_FILE".to_owned(), value.to_owned())]);
        assert_eq!(texts(&[], &disabled("1")).unwrap(), [""; 0]);
        assert_eq!(texts(&[], &disabled("false")).unwrap(), ["A=2"]);
        assert!(texts(&[], &disabled("maybe")).is_err());
    }

    #[test]
    fn a_dotenv_may_name_the_files_and_those_have_one_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let here = dir.path().canonicalize().unwrap();
        fs::create_dir(here.join("sub")).unwrap();
        fs::write(here.join(".env"), "COMPOSE_FILE=sub/a.yaml,b.yaml\nCOMPOSE_PATH_SEPARATOR=,\n").unwrap();
        fs::write(here.join("sub/.env"), "A=1").unwrap();
        let (found, dotenvs) = find_all(&FileArgs::default(), &here, &BTreeMap::new()).unwrap();
        let found = found.unwrap();
        assert_eq!(names(&found), ["sub/a.yaml", "b.yaml"]);
        assert_eq!(found.directory, here.join("sub"));
        let paths: Vec<_> = dotenvs.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, ["sub/.env", ".env"]);
        let env = BTreeMap::from([("COMPOSE_ENV_FILES".to_owned(), ".env,sub/.env".to_owned())]);
        let (_, dotenvs) = find_all(&FileArgs::default(), &here, &env).unwrap();
        let paths: Vec<_> = dotenvs.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, [".env", "sub/.env"]);
    }

    #[test]
    fn a_given_project_directory_is_looked_in_and_wins() {
        let dir = tempfile::tempdir().unwrap();
        let here = dir.path().canonicalize().unwrap();
        fs::create_dir(here.join("sub")).unwrap();
        fs::write(here.join("sub/compose.yaml"), "").unwrap();
        let mut args = FileArgs { project_directory: Some("sub".into()), ..FileArgs::default() };
        let found = find(&args, &here, &BTreeMap::new()).unwrap();
        assert_eq!((names(&found), found.directory), (vec!["sub/compose.yaml".into()], here.join("sub")));
        args.files = vec!["-".into(), "x.yaml".into()];
        let found = find(&args, &here, &BTreeMap::new()).unwrap();
        assert_eq!(found.directory, here.join("sub"));
        args.project_directory = None;
        assert_eq!(find(&args, &here, &BTreeMap::new()).unwrap().directory, here);
    }

    #[test]
    fn a_file_beyond_the_limit_is_not_read_into_memory() {
        let error = read_bounded(io::repeat(b'#')).unwrap_err();
        assert!(error.to_string().contains("4 MiB"), "{error}");
    }
}
