//! The top of the file, and its networks, volumes, secrets, configs, models and includes.

use super::{
    Later::{Models, Swarm},
    service::SERVICE,
    shape::{
        Field, Identity, LABELS, ONE_OR_MORE, OPTIONS, Object, Shape, Short,
        Show::{Given, Never, OrEmpty},
        TEXTS, both, docker, refused,
    },
};

const fn object(title: &'static str, place: &'static str, fields: &'static [Field]) -> Object {
    Object { title, place, fields, required: &[], extensions: true }
}

/// The top of the file.
pub const TOP: Object = object(
    "The top of the file",
    "",
    &[
        docker("configs", Shape::Named(&Shape::Object(&CONFIG))),
        both("include", Shape::OrNull(&INCLUDES)).show(Never),
        refused("models", Shape::Named(&Shape::Object(&MODEL)), Models).show(Never),
        both("name", Shape::Text),
        docker("networks", Shape::Named(&Shape::OrNull(&Shape::Object(&NETWORK)))),
        docker("secrets", Shape::Named(&Shape::Object(&SECRET))),
        both("services", Shape::Named(&Shape::Object(&SERVICE))).show(Given),
        both("version", Shape::Word).show(Never),
        docker("volumes", Shape::Named(&Shape::OrNull(&Shape::Object(&VOLUME)))),
        both("x-bulsa", Shape::Any),
    ],
);

const INCLUDES: Shape = Shape::List(&Shape::Short(Short::Include, &Shape::Object(&INCLUDE)), Identity::None);

/// `networks.*`
pub(super) const NETWORK: Object = object(
    "A network",
    "networks.*",
    &[
        docker("attachable", Shape::Bool),
        docker("driver", Shape::Text),
        docker("driver_opts", OPTIONS),
        docker("enable_ipv4", Shape::Bool).show(Given),
        docker("enable_ipv6", Shape::Bool).show(Given),
        docker("external", Shape::Bool),
        docker("internal", Shape::Bool),
        docker("ipam", Shape::Object(&IPAM)).show(OrEmpty),
        docker("labels", LABELS),
        docker("name", Shape::Text),
    ],
);
/// `networks.*.ipam`
pub(super) const IPAM: Object = object(
    "Addresses of a network",
    "networks.*.ipam",
    &[
        docker("config", Shape::List(&Shape::Object(&POOL), Identity::None)),
        docker("driver", Shape::Text),
        docker("options", OPTIONS),
    ],
);
/// `networks.*.ipam.config[]`
pub(super) const POOL: Object = object(
    "A pool of addresses",
    "networks.*.ipam.config[]",
    &[
        docker("aux_addresses", OPTIONS),
        docker("gateway", Shape::Text),
        docker("ip_range", Shape::Text),
        docker("subnet", Shape::Text),
    ],
);
/// `volumes.*`
pub(super) const VOLUME: Object = object(
    "A volume",
    "volumes.*",
    &[
        docker("driver", Shape::Text),
        docker("driver_opts", OPTIONS),
        docker("external", Shape::Bool),
        docker("labels", LABELS),
        docker("name", Shape::Text),
    ],
);
/// `secrets.*`
pub(super) const SECRET: Object = object(
    "A secret",
    "secrets.*",
    &[
        refused("driver", Shape::Text, Swarm),
        refused("driver_opts", OPTIONS, Swarm),
        docker("environment", Shape::Text),
        docker("external", Shape::Bool),
        docker("file", Shape::Text),
        docker("labels", LABELS),
        docker("name", Shape::Text),
        refused("template_driver", Shape::Text, Swarm),
    ],
);
/// `configs.*`
pub(super) const CONFIG: Object = object(
    "A config",
    "configs.*",
    &[
        docker("content", Shape::Text),
        docker("environment", Shape::Text),
        docker("external", Shape::Bool),
        docker("file", Shape::Text),
        docker("labels", LABELS),
        docker("name", Shape::Text),
        refused("template_driver", Shape::Text, Swarm),
    ],
);
/// `models.*`
pub(super) const MODEL: Object = Object {
    required: &[("model", "model: the model's name")],
    ..object(
        "A model",
        "models.*",
        &[
            docker("context_size", Shape::Int),
            docker("model", Shape::Text),
            docker("name", Shape::Text),
            docker("runtime_flags", TEXTS),
        ],
    )
};
/// `include[]`, long form
pub(super) const INCLUDE: Object = Object {
    title: "An include, long form",
    place: "include[]",
    fields: &[
        both("env_file", ONE_OR_MORE),
        both("path", ONE_OR_MORE),
        both("project_directory", Shape::Text),
    ],
    required: &[],
    extensions: false,
};
