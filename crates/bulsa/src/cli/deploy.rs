//! `bulsa deploy`, and what `up` and `run` share with it: sending a spec and following what becomes of it.

use std::{
    collections::{BTreeMap, VecDeque},
    pin::pin,
};

use bulsa_core::{
    spec::Spec,
    wire::{
        api::{Answer, DeployRequest, Plan, Request, SourceFile},
        credentials::Credentials,
        spec::SpecV1,
    },
};
use clap::Args;

use super::{
    args::FileArgs,
    context::{Accepted, Context, accepted},
    follow,
    images::service_words,
    later, project,
    supply::{self, Building},
};
use crate::{
    client::{Client, EventsQuery},
    output::{Cell, Printer, Table, Tone},
    report::{CommandError, ExitCode},
};

/// Make a release of the project and switch to it
#[derive(Debug, Args)]
pub(super) struct DeployArgs {
    #[command(flatten)]
    files: FileArgs,
    /// Only these services take what the file says, or this image; the others stay as they are
    #[arg(value_name = "SERVICE[=IMAGE]")]
    services: Vec<String>,
    /// Print what would be done, and do nothing
    #[arg(long)]
    plan: bool,
    /// Return once the deploy has begun
    #[arg(short, long)]
    detach: bool,
    /// Use the images that are here
    #[arg(long)]
    no_pull: bool,
    /// Build nothing [default: services with `build` are built, unless their `pull_policy` has a registry]
    #[arg(long)]
    no_build: bool,
    /// Wait for `promote` before the switch
    #[arg(long, hide = true)]
    preview: bool,
}

impl DeployArgs {
    /// Whether it only says what would be done.
    pub(super) const fn only_plans(&self) -> bool {
        self.plan
    }
}

/// So many of the newest lines about images are remembered, so that none is told twice.
const SHOWN_MAX: usize = 100;

/// What to deploy.
pub(super) struct Wanted {
    pub(super) spec: Spec,
    pub(super) sources: Vec<SourceFile>,
    pub(super) services: Vec<String>,
    pub(super) up: bool,
    pub(super) no_pull: bool,
    pub(super) credentials: BTreeMap<String, Credentials>,
}

pub(super) async fn run(args: DeployArgs, context: &mut Context<'_>) -> Result<ExitCode, CommandError> {
    if args.preview {
        return Err(later::later("`--preview`"));
    }
    let words = service_words(&args.services).map_err(|error| CommandError::user(error.to_string()))?;
    let services: Vec<String> = words.iter().map(|word| word.service.clone()).collect();
    let files = args.files.over(&context.files);
    let mut project = project::load(&files, &services, context)?;
    supply::name_images(&mut project.spec, &words)?;
    let mut wanted = Wanted {
        spec: project.spec,
        sources: project.sources,
        services,
        up: false,
        no_pull: args.no_pull,
        credentials: BTreeMap::new(),
    };
    let client = context.client().await?;
    if args.plan {
        return show_plan(&client, wanted, context).await;
    }
    let name = wanted.spec.project.clone();
    let building = if args.no_build { Building::Never } else { Building::Changed };
    let snapshot = client.snapshot().await?;
    supply::supply(&mut wanted, building, snapshot.project(&name), context).await?;
    match send(&client, wanted, context.printer).await? {
        Accepted::Begun { deploy: Some(id), text, notes } if !args.detach => {
            context.printer.remark(&text)?;
            let ended = follow::deployment(&client, context.printer, &name, id).await;
            warn_of(context.printer, &notes)?;
            ended
        }
        begun => {
            said(context, &begun)?;
            Ok(ExitCode::Done)
        }
    }
}

/// Asks for the deploy, and shows how its images are got meanwhile.
pub(super) async fn send(
    client: &Client,
    wanted: Wanted,
    printer: &mut Printer,
) -> Result<Accepted, CommandError> {
    let query =
        EventsQuery { project: Some(wanted.spec.project.clone()), after: None, last: Some(0), follow: true };
    let has_images = wanted.spec.services.values().any(|service| service.container.is_some());
    let request = request(wanted, false);
    let mut asked = pin!(client.request(&request));
    // Without the events the deploy goes on all the same, only more quietly.
    let mut events = if has_images { client.events(&query).await.ok() } else { None };
    let mut shown = VecDeque::new();
    loop {
        let Some(stream) = &mut events else { return Ok(accepted(asked.await?)?.without(&shown)) };
        tokio::select! {
            answer = &mut asked => return Ok(accepted(answer?)?.without(&shown)),
            event = stream.next() => match event {
                Ok(Some(event)) if event.kind == "image.progress" => {
                    printer.remark(&event.text)?;
                    if printer.remarks() {
                        shown.truncate(SHOWN_MAX - 1);
                        shown.push_front(event.text);
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => events = None,
            }
        }
    }
}

/// Sends a spec that has no images.
pub(super) async fn ask(client: &Client, wanted: Wanted) -> Result<Accepted, CommandError> {
    accepted(client.request(&request(wanted, false)).await?)
}

fn request(wanted: Wanted, plan: bool) -> Request {
    Request::Deploy(Box::new(DeployRequest {
        project: wanted.spec.project.clone(),
        spec: SpecV1::from(&wanted.spec),
        sources: wanted.sources,
        services: wanted.services,
        up: wanted.up,
        plan,
        no_pull: wanted.no_pull,
        credentials: wanted.credentials,
    }))
}

/// Says what an answer means when nothing is followed.
pub(super) fn said(context: &mut Context<'_>, what: &Accepted) -> Result<(), CommandError> {
    let (deploy, text, notes) = match what {
        Accepted::Begun { deploy, text, notes } => (Some(deploy), text, notes),
        Accepted::Already { text, notes } => (None, text, notes),
    };
    if context.printer.json() {
        let mut object = serde_json::json!({ "text": text, "notes": notes });
        if let (Some(deploy), Some(fields)) = (deploy, object.as_object_mut()) {
            fields.insert("deploy".to_owned(), serde_json::json!(deploy));
        }
        return context.printer.object(&object);
    }
    match deploy.copied().flatten() {
        Some(id) => context.printer.remark(&format!("{text}; follow it with `bulsa wait {id}`"))?,
        None => context.printer.remark(text)?,
    }
    warn_of(context.printer, notes)
}

/// What one should know of a deploy, whatever the manner: an image that could not be pulled may be an old one.
pub(super) fn warn_of(printer: &mut Printer, notes: &[String]) -> Result<(), CommandError> {
    notes.iter().try_for_each(|note| printer.warning(note))
}

async fn show_plan(
    client: &Client,
    wanted: Wanted,
    context: &mut Context<'_>,
) -> Result<ExitCode, CommandError> {
    match client.request(&request(wanted, true)).await? {
        Answer::Plan(plan) => {
            context.printer.data(&plan, |_| plan_text(&plan))?;
            Ok(ExitCode::Done)
        }
        answer => context.answer(answer),
    }
}

/// A plan for people.
pub(super) fn plan_text(plan: &Plan) -> String {
    let live = plan.live.map_or_else(|| "nothing is live".to_owned(), |live| format!("r{live} is live"));
    let mut text = if plan.steps.is_empty() {
        format!("{}: {live}, and nothing differs from it\n", plan.project)
    } else {
        format!("{}: {live}, r{} would be made\n\n", plan.project, plan.release)
    };
    if !plan.steps.is_empty() {
        let mut table = Table::new(&["STEP", "SERVICE", "WHAT"]);
        for step in &plan.steps {
            let service = step.service.as_deref().unwrap_or_default();
            table.row([Cell::toned(&step.action, Tone::Strong), Cell::from(service), Cell::from(&step.text)]);
        }
        text += &table.render();
    }
    for (index, note) in plan.notes.iter().enumerate() {
        if index == 0 {
            text.push('\n');
        }
        text += &format!("{} {note}\n", Tone::Warn.paint("note:"));
    }
    text
}
