//! `services.*.deploy` and what is below it.

use super::{
    Later::Swarm,
    shape::{
        Field, Identity, LABELS, Object, Shape,
        Show::{Given, OrEmpty},
        TEXTS, both, docker, noted, refused,
    },
};

const fn object(title: &'static str, place: &'static str, fields: &'static [Field]) -> Object {
    Object { title, place, fields, required: &[], extensions: true }
}

/// `services.*.deploy`
pub(super) const DEPLOY: Object = object(
    "Deploy",
    "services.*.deploy",
    &[
        noted("endpoint_mode", Shape::Text),
        noted("labels", LABELS),
        docker("mode", Shape::Text),
        noted("placement", Shape::Object(&PLACEMENT)).show(OrEmpty),
        both("replicas", Shape::Int).show(Given),
        both("resources", Shape::Object(&RESOURCES)).show(OrEmpty),
        docker("restart_policy", Shape::Object(&RESTART_POLICY)).show(Given),
        noted("rollback_config", Shape::Object(&UPDATE)).show(Given),
        docker("update_config", Shape::Object(&UPDATE)).show(Given),
    ],
);
/// `services.*.deploy.placement`
pub(super) const PLACEMENT: Object = object(
    "Placement",
    "services.*.deploy.placement",
    &[
        docker("constraints", TEXTS),
        docker("max_replicas_per_node", Shape::Int),
        docker("preferences", Shape::List(&Shape::Object(&PREFERENCE), Identity::None)),
    ],
);
/// `services.*.deploy.placement.preferences[]`
pub(super) const PREFERENCE: Object = object(
    "A placement preference",
    "services.*.deploy.placement.preferences[]",
    &[docker("spread", Shape::Text)],
);
/// `services.*.deploy.resources`
pub(super) const RESOURCES: Object = object(
    "Resources",
    "services.*.deploy.resources",
    &[
        both("limits", Shape::Object(&LIMITS)).show(Given),
        both("reservations", Shape::Object(&RESERVATIONS)).show(Given),
    ],
);
/// `services.*.deploy.resources.limits`
pub(super) const LIMITS: Object = object(
    "Limits",
    "services.*.deploy.resources.limits",
    &[both("cpus", Shape::Float), both("memory", Shape::Bytes), both("pids", Shape::Int)],
);
/// `services.*.deploy.resources.reservations`
pub(super) const RESERVATIONS: Object = object(
    "Reservations",
    "services.*.deploy.resources.reservations",
    &[
        noted("cpus", Shape::Float),
        docker("devices", Shape::List(&Shape::Object(&DEVICE_REQUEST), Identity::None)),
        refused("generic_resources", Shape::List(&Shape::Object(&GENERIC_RESOURCE), Identity::None), Swarm),
        docker("memory", Shape::Bytes),
    ],
);
/// `services.*.deploy.resources.reservations.devices[]` and `services.*.gpus[]`
pub(super) const DEVICE_REQUEST: Object = object(
    "A request for devices",
    "services.*.deploy.resources.reservations.devices[]",
    &[
        docker("capabilities", TEXTS),
        docker("count", Shape::DeviceCount),
        docker("device_ids", TEXTS),
        docker("driver", Shape::Text),
        docker("options", LABELS),
    ],
);
/// `services.*.deploy.resources.reservations.generic_resources[]`
pub(super) const GENERIC_RESOURCE: Object = object(
    "A generic resource",
    "services.*.deploy.resources.reservations.generic_resources[]",
    &[docker("discrete_resource_spec", Shape::Object(&DISCRETE_RESOURCE)).show(Given)],
);
/// `services.*.deploy.resources.reservations.generic_resources[].discrete_resource_spec`
pub(super) const DISCRETE_RESOURCE: Object = object(
    "A discrete resource",
    "services.*.deploy.resources.reservations.generic_resources[].discrete_resource_spec",
    &[docker("kind", Shape::Text).show(Given), docker("value", Shape::Int).show(Given)],
);
/// `services.*.deploy.restart_policy`
pub(super) const RESTART_POLICY: Object = object(
    "Restart policy",
    "services.*.deploy.restart_policy",
    &[
        docker("condition", Shape::Text),
        noted("delay", Shape::Duration).show(Given),
        docker("max_attempts", Shape::Int).show(Given),
        noted("window", Shape::Duration).show(Given),
    ],
);
/// `services.*.deploy.update_config` and `services.*.deploy.rollback_config`
pub(super) const UPDATE: Object = object(
    "Update and rollback",
    "services.*.deploy.update_config",
    &[
        docker("delay", Shape::Duration),
        noted("failure_action", Shape::Text),
        noted("max_failure_ratio", Shape::Float),
        noted("monitor", Shape::Duration),
        docker("order", Shape::Choice(&["start-first", "stop-first"])),
        docker("parallelism", Shape::Int).show(Given),
    ],
);
