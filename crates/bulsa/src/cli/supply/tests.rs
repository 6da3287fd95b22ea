use bulsa_core::{
    compose::{self, LoadInput, ReadError},
    wire::api::{ServiceState, ServiceView},
};

use super::*;
use crate::{cli::images::service_words, report::ExitCode};

fn spec(services: &str) -> Spec {
    let text = format!("name: shop\nservices:\n{services}");
    let files = vec![compose::SourceFile { path: "compose.yaml".to_owned(), text }];
    let mut read = |_: &str| Err(ReadError::NotFound);
    let loaded = compose::load(LoadInput::new(files, "/srv/shop", &mut read));
    loaded.spec.unwrap_or_else(|| panic!("{}", loaded.diagnostics))
}

fn name(spec: &mut Spec, words: &[&str]) -> Result<(), CommandError> {
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    name_images(spec, &service_words(&words).unwrap())
}

#[test]
fn an_image_on_the_command_line_takes_the_place_of_the_files_image_and_build() {
    let mut spec = spec("  web: {build: ., pull_policy: build, ports: ['80']}\n  api: {image: 'api:1'}\n");
    name(&mut spec, &["api", "web=shop:1.5"]).unwrap();
    let web = spec.services["web"].container.as_deref().unwrap();
    assert_eq!((web.image.as_str(), &web.build, web.pull_policy), ("shop:1.5", &None, PullPolicy::Default));
    assert_eq!(spec.services["api"].container.as_deref().unwrap().image, "api:1");
}

#[test]
fn a_process_has_no_image_and_a_stranger_none_either() {
    let mut spec = spec("  web: {command: node server.js}\n");
    let error = name(&mut spec, &["web=shop:1.5"]).unwrap_err();
    assert!(error.message.contains("`web` runs as a process"), "{error:?}");
    let error = name(&mut spec, &["webb=shop:1.5"]).unwrap_err();
    assert_eq!(error.hints, ["did you mean `web`?"]);
}

#[test]
fn a_deploy_builds_what_may_have_changed_and_up_what_is_not_there() {
    use Building as B;
    use PullPolicy as P;
    let due = |building, policy, is_here, is_new| is_due(building, Role::App, policy, is_here, is_new);
    assert!(due(B::Changed, P::Default, true, false) && due(B::Changed, P::Never, true, false));
    assert!(!due(B::Missing, P::Default, true, false));
    assert!(due(B::Missing, P::Default, false, false) && due(B::Missing, P::Default, true, true));
    assert!(due(B::Missing, P::Build, true, false));
    assert!(!due(B::Changed, P::Always, false, true) && !due(B::Changed, P::Older(60), false, true));
    assert!(!due(B::Changed, P::Missing, true, true) && due(B::Changed, P::Missing, false, true));
    assert!(due(B::All, P::Always, true, false) && !due(B::Never, P::Build, false, true));
    // What no deploy touches is not built anew either.
    assert!(!is_due(B::Changed, Role::Shared, P::Build, true, false));
    assert!(is_due(B::Changed, Role::Shared, P::Default, false, false));
}

fn view(ready: u32) -> ProjectView {
    let service = ServiceView {
        name: "web".to_owned(),
        role: "app".to_owned(),
        desired: 2,
        ready,
        withheld: 0,
        state: ServiceState::Healthy,
        reason: None,
        held: None,
        urls: Vec::new(),
        restarts: 0,
        next_retry_at_ms: None,
        finding: None,
        replicas: Vec::new(),
    };
    ProjectView { name: "shop".to_owned(), live: Some(3), services: vec![service], ..ProjectView::default() }
}

#[test]
fn a_build_that_fails_exits_by_whether_the_project_serves_and_shows_the_last_lines() {
    let error = |project: Option<&ProjectView>| {
        let last = (0..40).map(|at| format!("line {at}")).collect();
        let (service, detail) = ("web".to_owned(), "a step failed".to_owned());
        build_failed(project, BuildError::Failed { service, detail, last })
    };
    let code = |project: Option<&ProjectView>| error(project).kind.exit_code();
    assert_eq!(code(None), ExitCode::UserError);
    assert_eq!(code(Some(&ProjectView::default())), ExitCode::UserError);
    assert_eq!(code(Some(&view(1))), ExitCode::DeployFailed);
    assert_eq!(code(Some(&view(0))), ExitCode::ServiceDown);
    let error = error(None);
    assert_eq!(error.message, "the image of `web` can't be built: a step failed");
    assert_eq!((error.causes.len(), error.causes.last().unwrap().as_str()), (LINES_SHOWN, "line 39"));
}

#[test]
fn names_say_what_is_deployed_once_something_is_live() {
    let spec = spec("  web: {image: 'a'}\n  api: {image: 'b'}\n");
    let names = ["api".to_owned()];
    let of = |names: &[String], project: Option<&ProjectView>| {
        deployed(&spec, names, project).map(|service| service.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(of(&[], Some(&view(1))), ["api", "web"]);
    assert_eq!(of(&names, Some(&view(1))), ["api"]);
    assert_eq!(of(&names, None), ["api", "web"]);
}

#[test]
fn the_images_that_a_dockerfile_begins_with() {
    let text = "ARG V=1\nFROM --platform=linux/amd64 r.example/base:1 AS build\nfrom node:${V}\n# FROM no\nFROM build\n";
    let how = Build { dockerfile_inline: Some(text.to_owned()), ..Build::default() };
    assert_eq!(bases(&how), ["r.example/base:1", "build"]);
    assert!(bases(&Build { context: "/nowhere".to_owned(), ..Build::default() }).is_empty());
}
