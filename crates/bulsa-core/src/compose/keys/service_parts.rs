//! The mappings below a service, without `deploy`.

use super::{
    Later::Soon,
    service::{GRANTED, ULIMITS},
    shape::{
        Field, Identity, LABELS, NAMES, ONE_OR_MORE, OPTIONS, Object, Shape, Short,
        Show::{Given, OrEmpty, OrNull},
        TEXTS, VARIABLES, both, docker, needless, refused,
    },
};

const fn object(title: &'static str, place: &'static str, fields: &'static [Field]) -> Object {
    Object { title, place, fields, required: &[], extensions: true }
}

const fn strict(title: &'static str, place: &'static str, fields: &'static [Field]) -> Object {
    Object { title, place, fields, required: &[], extensions: false }
}

/// `services.*.blkio_config`
pub(super) const BLKIO: Object = strict(
    "Block I/O",
    "services.*.blkio_config",
    &[
        docker("device_read_bps", Shape::List(&Shape::Object(&BLKIO_RATE), Identity::None)),
        docker("device_read_iops", Shape::List(&Shape::Object(&BLKIO_RATE), Identity::None)),
        docker("device_write_bps", Shape::List(&Shape::Object(&BLKIO_RATE), Identity::None)),
        docker("device_write_iops", Shape::List(&Shape::Object(&BLKIO_RATE), Identity::None)),
        docker("weight", Shape::Int),
        docker("weight_device", Shape::List(&Shape::Object(&BLKIO_WEIGHT), Identity::None)),
    ],
);
/// A bound of one device.
pub(in super::super) const BLKIO_RATE: Object = strict(
    "Block I/O, a rate",
    "services.*.blkio_config.device_*[]",
    &[docker("path", Shape::Text).show(Given), docker("rate", Shape::Bytes).show(Given)],
);
/// The weight of one device.
pub(in super::super) const BLKIO_WEIGHT: Object = strict(
    "Block I/O, a weight",
    "services.*.blkio_config.weight_device[]",
    &[docker("path", Shape::Text).show(Given), docker("weight", Shape::Int).show(Given)],
);
/// `services.*.build`
pub(super) const BUILD: Object = object(
    "Build",
    "services.*.build",
    &[
        docker("additional_contexts", Shape::Short(Short::FullPairs, &Shape::Map(&Shape::Label))),
        docker("args", VARIABLES),
        docker("cache_from", TEXTS),
        docker("cache_to", TEXTS),
        docker("context", Shape::Text),
        docker("dockerfile", Shape::Text),
        docker("dockerfile_inline", Shape::Text),
        docker("entitlements", TEXTS),
        docker("extra_hosts", Shape::ExtraHosts),
        docker("isolation", Shape::Text),
        docker("labels", LABELS),
        docker("network", Shape::Text),
        docker("no_cache", Shape::Bool),
        refused("no_cache_filter", ONE_OR_MORE, Soon),
        docker("platforms", TEXTS),
        docker("privileged", Shape::Bool),
        docker("provenance", Shape::Word),
        docker("pull", Shape::Bool),
        docker("sbom", Shape::Word),
        docker("secrets", Shape::List(&GRANTED, Identity::None)),
        docker("shm_size", Shape::Bytes),
        docker("ssh", Shape::Short(Short::Ssh, &Shape::Map(&Shape::OrNull(&Shape::Word)))),
        docker("tags", NAMES),
        docker("target", Shape::Text),
        docker("ulimits", ULIMITS),
    ],
);
/// `services.*.credential_spec`
pub(super) const CREDENTIAL_SPEC: Object = object(
    "Credential spec",
    "services.*.credential_spec",
    &[docker("config", Shape::Text), docker("file", Shape::Text), docker("registry", Shape::Text)],
);
/// `services.*.depends_on.*`
pub(super) const DEPENDENCY: Object = object(
    "A dependency, long form",
    "services.*.depends_on.*",
    &[
        both(
            "condition",
            Shape::Choice(&["service_started", "service_healthy", "service_completed_successfully"]),
        ),
        both("required", Shape::Bool).show(Given),
        both("restart", Shape::Bool),
    ],
);
/// `services.*.develop`
pub(super) const DEVELOP: Object = object(
    "Develop",
    "services.*.develop",
    &[both("watch", Shape::List(&Shape::Object(&WATCH), Identity::None))],
);
/// `services.*.develop.watch[]`
pub(super) const WATCH: Object = Object {
    required: &[
        ("action", "action: rebuild, sync, restart, sync+restart or sync+exec"),
        ("path", "path: a directory"),
    ],
    ..object(
        "Watch",
        "services.*.develop.watch[]",
        &[
            both("action", Shape::Choice(&["rebuild", "sync", "restart", "sync+restart", "sync+exec"]))
                .show(Given),
            needless("exec", Shape::Object(&WATCH_EXEC)).show(OrEmpty),
            both("ignore", ONE_OR_MORE),
            both("include", ONE_OR_MORE),
            needless("initial_sync", Shape::Bool),
            both("path", Shape::Text).show(Given),
            needless("target", Shape::Text),
        ],
    )
};
/// `services.*.develop.watch[].exec`
pub(super) const WATCH_EXEC: Object = object(
    "The command of a watch",
    "services.*.develop.watch[].exec",
    &[
        needless("command", Shape::Command).show(OrNull),
        needless("environment", VARIABLES),
        needless("privileged", Shape::Bool),
        needless("user", Shape::Text),
        needless("working_dir", Shape::Text),
    ],
);
/// `services.*.devices[]`, long form
pub(super) const DEVICE: Object = Object {
    required: &[("source", "source: a device of the host"), ("target", "target: a device of the container")],
    ..object(
        "A device, long form",
        "services.*.devices[]",
        &[docker("permissions", Shape::Text), docker("source", Shape::Text), docker("target", Shape::Text)],
    )
};
/// `services.*.env_file[]`, long form
pub(super) const ENV_FILE: Object = Object {
    required: &[("path", "path: a file")],
    ..strict(
        "An environment file, long form",
        "services.*.env_file[]",
        &[both("format", Shape::Text), both("path", Shape::Text), both("required", Shape::Bool)],
    )
};
/// `services.*.extends`, long form
pub(super) const EXTENDS: Object = Object {
    required: &[("service", "service: the name of a service")],
    ..strict(
        "Extends, long form",
        "services.*.extends",
        &[both("file", Shape::Text), both("service", Shape::Text)],
    )
};
/// `services.*.secrets[]` and `services.*.configs[]`, long form
pub(super) const GRANT: Object = object(
    "A secret or config of a service, long form",
    "services.*.secrets[]",
    &[
        docker("gid", Shape::Text),
        docker("mode", Shape::Mode).show(Given),
        docker("source", Shape::Text),
        docker("target", Shape::Text),
        docker("uid", Shape::Text),
    ],
);
/// `services.*.healthcheck`
pub(super) const HEALTHCHECK: Object = object(
    "Health check",
    "services.*.healthcheck",
    &[
        both("disable", Shape::Bool),
        both("interval", Shape::Duration).show(Given),
        both("retries", Shape::Int).show(Given),
        both("start_interval", Shape::Duration).show(Given),
        both("start_period", Shape::Duration).show(Given),
        both("test", Shape::Test),
        both("timeout", Shape::Duration).show(Given),
    ],
);
/// `services.*.post_start[]` and `services.*.pre_stop[]`
pub(super) const HOOK: Object = object("A hook", "services.*.post_start[]", HOOK_FIELDS);
const HOOK_FIELDS: &[Field] = &[
    docker("command", Shape::Command).show(OrNull),
    docker("environment", VARIABLES),
    docker("privileged", Shape::Bool),
    docker("user", Shape::Text),
    docker("working_dir", Shape::Text),
];
/// `services.*.pre_start[]`
pub(super) const PRE_START: Object = object(
    "A hook before the start",
    "services.*.pre_start[]",
    &[
        docker("command", Shape::Command).show(OrNull),
        docker("environment", VARIABLES),
        docker("image", Shape::Text),
        docker("per_replica", Shape::Bool),
        docker("privileged", Shape::Bool),
        docker("user", Shape::Text),
        docker("working_dir", Shape::Text),
    ],
);
/// `services.*.logging`
pub(super) const LOGGING: Object =
    object("Logging", "services.*.logging", &[docker("driver", Shape::Text), docker("options", OPTIONS)]);
/// `services.*.models.*`
pub(super) const MODEL_USE: Object = object(
    "A model of a service",
    "services.*.models.*",
    &[docker("endpoint_var", Shape::Text), docker("model_var", Shape::Text)],
);
/// `services.*.networks.*`
pub(super) const NETWORK_USE: Object = object(
    "A network of a service",
    "services.*.networks.*",
    &[
        docker("aliases", NAMES),
        docker("driver_opts", OPTIONS),
        docker("gw_priority", Shape::Int),
        docker("interface_name", Shape::Text),
        docker("ipv4_address", Shape::Text),
        docker("ipv6_address", Shape::Text),
        docker("link_local_ips", NAMES),
        docker("mac_address", Shape::Text),
        docker("priority", Shape::Int),
    ],
);
/// `services.*.ports[]`, long form
pub(super) const PORT: Object = Object {
    required: &[("target", "target: the port that the program listens on")],
    ..object(
        "A port, long form",
        "services.*.ports[]",
        &[
            docker("app_protocol", Shape::Text),
            both("host_ip", Shape::Text),
            both("mode", Shape::Text),
            both("name", Shape::Text),
            both("protocol", Shape::Text),
            both("published", Shape::OrNull(&Shape::Word)),
            both("target", Shape::Int).show(Given),
        ],
    )
};
/// `services.*.provider`
pub(super) const PROVIDER: Object = Object {
    required: &[("type", "type: the provider's name")],
    ..object(
        "Provider",
        "services.*.provider",
        &[
            docker(
                "options",
                Shape::Map(&Shape::Short(Short::Options, &Shape::List(&Shape::Word, Identity::None))),
            ),
            docker("type", Shape::Text),
        ],
    )
};
/// `services.*.ulimits.*`, long form
pub(in super::super) const ULIMIT: Object = Object {
    required: &[("hard", "hard: a number"), ("soft", "soft: a number")],
    ..object(
        "A limit, long form",
        "services.*.ulimits.*",
        &[docker("hard", Shape::Int), docker("soft", Shape::Int)],
    )
};
/// `services.*.volumes[]`, long form
pub(super) const VOLUME_MOUNT: Object = Object {
    required: &[
        ("type", "type: bind, volume, tmpfs, image, cluster or npipe"),
        ("target", "target: a path in the container"),
    ],
    ..object(
        "A volume of a service, long form",
        "services.*.volumes[]",
        &[
            docker("bind", Shape::Object(&MOUNT_BIND)).show(Given),
            docker("consistency", Shape::Text),
            docker("image", Shape::Object(&MOUNT_IMAGE)).show(Given),
            docker("read_only", Shape::Bool),
            docker("source", Shape::Text),
            docker("target", Shape::Text),
            docker("tmpfs", Shape::Object(&MOUNT_TMPFS)).show(Given),
            docker("type", Shape::Choice(&["bind", "volume", "tmpfs", "cluster", "npipe", "image"])),
            docker("volume", Shape::Object(&MOUNT_VOLUME)).show(Given),
        ],
    )
};
/// `services.*.volumes[].bind`
pub(super) const MOUNT_BIND: Object = object(
    "A bind mount",
    "services.*.volumes[].bind",
    &[
        docker("create_host_path", Shape::Bool),
        docker("propagation", Shape::Text),
        docker("recursive", Shape::Choice(&["enabled", "disabled", "writable", "readonly"])),
        docker("selinux", Shape::Choice(&["z", "Z"])),
    ],
);
/// `services.*.volumes[].image`
pub(super) const MOUNT_IMAGE: Object =
    object("A mounted image", "services.*.volumes[].image", &[docker("subpath", Shape::Text)]);
/// `services.*.volumes[].tmpfs`
pub(super) const MOUNT_TMPFS: Object = object(
    "Mounted memory",
    "services.*.volumes[].tmpfs",
    &[docker("mode", Shape::Int), docker("size", Shape::Bytes)],
);
/// `services.*.volumes[].volume`
pub(super) const MOUNT_VOLUME: Object = object(
    "A mounted volume",
    "services.*.volumes[].volume",
    &[docker("labels", LABELS), docker("nocopy", Shape::Bool), docker("subpath", Shape::Text)],
);
