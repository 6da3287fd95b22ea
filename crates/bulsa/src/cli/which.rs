//! Which project a command means that deploys none.
//!
//! Owns: that choice, from what the user named (`-p`, `-f`, the directory that they stand in) and from what runs. Never:
//! takes another project than the named one because that happens to be the only one that runs.

use bulsa_core::{
    compose::{
        self, LoadInput, ReadError, SourceFile,
        diagnostic::{Diagnostics, nearest},
        tree,
    },
    wire::api::Snapshot,
};
use serde_json::{Map, Value, json};

use super::{context::Context, project};
use crate::report::CommandError;

/// The variable that names a project, in the environment or in a `.env`.
const NAME_VARIABLE: &str = "COMPOSE_PROJECT_NAME";

/// What a command does with its project.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It shows something. While the file here has a mistake that hides its project's name, the only project will do.
    Look,
    /// It changes something, and so never guesses.
    Change,
}

/// How a project was named without `-p`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Named {
    name: String,
    /// What names it: `compose.yaml`.
    by: String,
}

/// The project that a command means: that of `-p`, else that of the compose file which is named or is here or above, else
/// the only one that runs.
///
/// # Errors
/// Where that is none or doesn't run; the error says which ones do.
pub(super) fn project(
    context: &Context<'_>,
    snapshot: &Snapshot,
    purpose: Purpose,
) -> Result<String, CommandError> {
    let running: Vec<&str> = snapshot.projects.iter().map(|project| project.name.as_str()).collect();
    match &context.project {
        Some(name) if running.contains(&name.as_str()) => Ok(name.clone()),
        Some(name) => Err(not_running(format!("the daemon runs no project `{name}`"), name, &running)),
        None => {
            let files = &context.files;
            let is_asked_for = !files.files.is_empty() || files.project_directory.is_some();
            // A file that was asked for is no guess.
            let purpose = if is_asked_for { Purpose::Change } else { purpose };
            choose(named_here(context), &running, purpose)
        }
    }
}

fn choose(
    named: Result<Option<Named>, CommandError>,
    running: &[&str],
    purpose: Purpose,
) -> Result<String, CommandError> {
    match (named, running) {
        (_, []) => {
            let error = CommandError::user("the daemon runs no project");
            Err(error.hint("start one with `bulsa up` or `bulsa run`"))
        }
        (Ok(Some(Named { name, .. })), _) if running.contains(&name.as_str()) => Ok(name),
        (Ok(Some(Named { name, by })), _) => {
            Err(not_running(format!("the daemon doesn't run `{name}`, the project of {by}"), &name, running))
        }
        (Ok(None), [only]) => Ok((*only).to_owned()),
        (Ok(None), _) => {
            let text = format!("the daemon runs {} projects: {}", running.len(), running.join(", "));
            Err(CommandError::user(text).hint("say which one with `-p NAME`"))
        }
        (Err(_), [only]) if purpose == Purpose::Look => Ok((*only).to_owned()),
        (Err(mut error), _) => {
            error.message = format!("can't tell which project is meant: {}", error.message);
            Err(error.hint(format!("say it with `-p NAME`; the daemon runs {}", list(running))))
        }
    }
}

/// The project that was named isn't among those that run.
fn not_running(text: String, name: &str, running: &[&str]) -> CommandError {
    if running.is_empty() {
        return CommandError::user(text).hint("start one with `bulsa up` or `bulsa run`");
    }
    let error = CommandError::user(format!("{text}; it runs {}", list(running)));
    match nearest(name, running.iter().copied()) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error,
    }
    .hint("another project is named with `-p NAME`")
}

fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The project of the files that are named, or are here or above; `None` where there are none.
fn named_here(context: &Context<'_>) -> Result<Option<Named>, CommandError> {
    let (args, here) = (&context.files, context.directory.as_path());
    let (found, dotenvs) = project::find_all(args, here, &context.env)?;
    let Some(found) = found else {
        if args.project_directory.is_some() {
            return Err(project::no_file(args, here));
        }
        let name = project::with_dotenvs(&context.env, &dotenvs).remove(NAME_VARIABLE);
        let by = || dotenvs.last().map_or_else(|| NAME_VARIABLE.to_owned(), |file| file.path.clone());
        return Ok(name.filter(|name| !name.is_empty()).map(|name| Named { name, by: by() }));
    };
    let files = project::read_all(&found, here)?;
    let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
    let by = paths.join(" and ");
    let mut mistakes = Diagnostics::default();
    let names: Vec<SourceFile> = files.iter().filter_map(|file| only_name(file, &mut mistakes)).collect();
    if mistakes.has_errors() {
        return Err(CommandError::user(format!("{by} can't be read")).cause(mistakes));
    }
    let mut read = |_: &str| Err(ReadError::NotFound);
    let loaded = compose::load(LoadInput {
        here: here.to_string_lossy().into_owned(),
        env: context.env.clone(),
        dotenvs,
        ..LoadInput::new(names, &found.directory.to_string_lossy(), &mut read)
    });
    match loaded.spec {
        Some(spec) => Ok(Some(Named { name: spec.project, by })),
        None => {
            let error = CommandError::user(format!("{by} doesn't give the project a name"));
            // Their places are in the shortened text.
            let texts = loaded.diagnostics.list().iter().map(|one| one.message.clone());
            Err(texts.fold(error, CommandError::cause))
        }
    }
}

/// A file with nothing in it but the project's name and a service that is no mistake: others in the rest don't matter.
fn only_name(file: &SourceFile, mistakes: &mut Diagnostics) -> Option<SourceFile> {
    let root = tree::parse(&file.path, &file.text, mistakes)?;
    let mut shortened = Map::from_iter([("services".to_owned(), json!({ "x": { "command": "x" } }))]);
    if let Some(name) = root.get("name") {
        // What is no text stays something that the loader refuses.
        let name = name.scalar().map_or(Value::Bool(true), |scalar| Value::from(scalar.value.as_str()));
        shortened.insert("name".to_owned(), name);
    }
    // JSON is YAML.
    Some(SourceFile { path: file.path.clone(), text: Value::Object(shortened).to_string() })
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs, path::Path};

    use super::{
        super::args::{FileArgs, Global},
        *,
    };
    use crate::output::{Manner, captured};

    fn by(name: &str) -> Result<Option<Named>, CommandError> {
        Ok(Some(Named { name: name.to_owned(), by: "compose.yaml".to_owned() }))
    }

    #[test]
    fn a_project_that_is_named_is_never_replaced_by_the_only_one_that_runs() {
        for purpose in [Purpose::Look, Purpose::Change] {
            let error = choose(by("shop"), &["blog"], purpose).unwrap_err();
            assert_eq!(
                error.message,
                "the daemon doesn't run `shop`, the project of compose.yaml; it runs `blog`"
            );
            assert!(error.hints[0].contains("-p NAME"), "{error:?}");
            assert_eq!(choose(by("shop"), &["blog", "shop"], purpose).as_deref(), Ok("shop"));
            assert_eq!(choose(Ok(None), &["blog"], purpose).as_deref(), Ok("blog"));
            assert!(choose(Ok(None), &["blog", "shop"], purpose).unwrap_err().hints[0].contains("-p NAME"));
            assert!(choose(by("shop"), &[], purpose).unwrap_err().message.contains("runs no project"));
        }
        assert_eq!(
            choose(by("shpo"), &["shop"], Purpose::Look).unwrap_err().hints[0],
            "did you mean `shop`?"
        );
    }

    #[test]
    fn with_a_file_that_cannot_be_read_only_looking_takes_the_only_project() {
        let unreadable = || Err(CommandError::user("can't read the compose file x.yaml").cause("denied"));
        assert_eq!(choose(unreadable(), &["blog"], Purpose::Look).as_deref(), Ok("blog"));
        let error = choose(unreadable(), &["blog"], Purpose::Change).unwrap_err();
        assert!(
            error.message.contains("which project is meant: can't read the compose file x.yaml"),
            "{error:?}"
        );
        assert_eq!(error.hints, ["say it with `-p NAME`; the daemon runs `blog`"]);
        assert!(choose(unreadable(), &["blog", "shop"], Purpose::Look).is_err());
    }

    /// What names the project in `here`, with these files and variables.
    fn named(here: &Path, files: &[&str], env: &[(&str, &str)]) -> Result<Option<Named>, CommandError> {
        let args = FileArgs { files: files.iter().map(Into::into).collect(), ..FileArgs::default() };
        let env: BTreeMap<String, String> =
            env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let (mut printer, ..) = captured::printer(Manner::default());
        let global = Global { state_dir: Some(here.join("state")), ..Global::default() };
        let context =
            Context::from_parts(global, args, &mut printer, (env, here.to_path_buf()), None).unwrap();
        named_here(&context)
    }

    #[test]
    fn a_name_is_read_whatever_else_is_wrong_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let here = dir.path().canonicalize().unwrap().join("My.Shop");
        fs::create_dir(&here).unwrap();
        let name = |files: &[&str], env: &[(&str, &str)]| {
            named(&here, files, env).map(|named| named.map(|named| (named.name, named.by)))
        };
        let of = |name: &str, by: &str| Ok(Some((name.to_owned(), by.to_owned())));
        fs::write(here.join("compose.yaml"), "services: {web: {restrat: 1, image: '${GONE:?}'}}\n").unwrap();
        assert_eq!(name(&[], &[]), of("myshop", "compose.yaml"));
        fs::write(here.join("compose.override.yaml"), "name: ${SHOP:-blog}\nservices: 7\n").unwrap();
        assert_eq!(name(&[], &[]), of("blog", "compose.yaml and compose.override.yaml"));
        assert_eq!(name(&[], &[("SHOP", "shop2")]), of("shop2", "compose.yaml and compose.override.yaml"));
        assert_eq!(name(&["compose.yaml"], &[]), of("myshop", "compose.yaml"));
        assert_eq!(name(&[], &[("COMPOSE_FILE", "compose.yaml")]), of("myshop", "compose.yaml"));
        fs::write(here.join(".env"), "COMPOSE_PROJECT_NAME=store\n").unwrap();
        assert_eq!(name(&[], &[]), of("store", "compose.yaml and compose.override.yaml"));
        fs::remove_file(here.join(".env")).unwrap();

        for (text, said) in [
            ("name: [a]\n", "doesn't give the project a name"),
            ("name: '...'\n", "doesn't give the project a name"),
            ("name: shop\n\tx", "can't be read"),
        ] {
            fs::write(here.join("bad.yaml"), text).unwrap();
            let error = name(&["bad.yaml"], &[]).unwrap_err();
            assert!(error.message == format!("bad.yaml {said}") && !error.causes.is_empty(), "{error:?}");
        }
        assert!(name(&["none.yaml"], &[]).unwrap_err().message.contains("none.yaml"));
    }

    #[test]
    fn without_a_file_only_a_dotenv_can_name_a_project() {
        let dir = tempfile::tempdir().unwrap();
        // Something above the temporary directory may hold a file; then there is nothing to see here.
        if named(dir.path(), &[], &[]) != Ok(None) {
            return;
        }
        fs::write(dir.path().join(".env"), "COMPOSE_PROJECT_NAME=shop\n").unwrap();
        let by = Some(Named { name: "shop".to_owned(), by: ".env".to_owned() });
        assert_eq!(named(dir.path(), &[], &[]), Ok(by));
    }
}
