//! `bulsa config --json`: the resolved file in the shape of `docker compose config --format json`.
//!
//! Owns: that shape, for the keys that are supported, so that the two outputs can be compared. Networks, which Compose
//! adds to every service, are left out: processes have none.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{
    Loaded, duration,
    model::{Healthcheck, Service},
    scalar,
    tree::{Kind, Node},
};

/// The resolved file; `null` where it had mistakes.
#[must_use]
pub fn config_json(loaded: &Loaded) -> Value {
    let Some(project) = &loaded.project else {
        return Value::Null;
    };
    let services = project.services.iter().map(|(name, one)| (name.clone(), service(one))).collect();
    let mut out = Map::new();
    out.insert("name".to_owned(), json!(project.name));
    out.insert("services".to_owned(), Value::Object(services));
    out.extend(project.extensions.iter().map(|(key, value)| (key.clone(), value.clone())));
    escaped(Value::Object(out))
}

/// `$` is printed as `$$`, so that the output is a compose file again.
fn escaped(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(text.replace('$', "$$")),
        Value::Array(items) => Value::Array(items.into_iter().map(escaped).collect()),
        Value::Object(map) => Value::Object(
            map.into_iter().map(|(key, value)| (key.replace('$', "$$"), escaped(value))).collect(),
        ),
        other => other,
    }
}

/// Adds a key where there is a value.
fn put(out: &mut Map<String, Value>, key: &str, value: Option<Value>) {
    if let Some(value) = value {
        out.insert(key.to_owned(), value);
    }
}

fn time(time: Option<Duration>) -> Option<Value> {
    time.map(|time| json!(duration::format(time)))
}

fn service(service: &Service) -> Value {
    let mut out = Map::new();
    out.insert("command".to_owned(), json!(service.command));
    out.insert("entrypoint".to_owned(), json!(service.entrypoint));
    put(&mut out, "environment", (!service.environment.is_empty()).then(|| json!(service.environment)));
    put(&mut out, "working_dir", service.working_dir.as_ref().map(|dir| json!(dir)));
    put(&mut out, "user", service.user.as_ref().map(|user| json!(user)));
    put(&mut out, "ports", (!service.ports.is_empty()).then(|| ports(service)));
    put(&mut out, "healthcheck", service.healthcheck.as_ref().map(healthcheck));
    put(&mut out, "depends_on", (!service.depends_on.is_empty()).then(|| depends_on(service)));
    put(
        &mut out,
        "deploy",
        service.deploy.as_ref().map(|deploy| {
            let mut out = Map::new();
            put(&mut out, "replicas", deploy.replicas.map(|replicas| json!(replicas)));
            // Compose prints these two always.
            put(&mut out, "resources", Some(json!({})));
            put(&mut out, "placement", Some(json!({})));
            Value::Object(out)
        }),
    );
    put(&mut out, "scale", service.scale.map(|scale| json!(scale)));
    put(&mut out, "stop_signal", service.stop_signal.as_ref().map(|(name, _)| json!(name)));
    put(&mut out, "stop_grace_period", time(service.stop_grace_period));
    put(&mut out, "restart", service.restart.as_ref().map(|(policy, _)| json!(policy)));
    Value::Object(out)
}

fn ports(service: &Service) -> Value {
    let ports = service.ports.iter().map(|port| {
        let mut out = Map::new();
        put(&mut out, "name", port.name.as_ref().map(|name| json!(name)));
        put(&mut out, "mode", Some(json!(port.mode)));
        put(&mut out, "host_ip", port.host_ip.map(|ip| json!(ip.to_string())));
        put(&mut out, "target", Some(json!(port.target)));
        put(&mut out, "published", port.published.map(|published| json!(published.to_string())));
        put(&mut out, "protocol", Some(json!("tcp")));
        Value::Object(out)
    });
    Value::Array(ports.collect())
}

fn healthcheck(check: &Healthcheck) -> Value {
    let mut out = Map::new();
    put(&mut out, "test", check.test.as_ref().map(|test| json!(test)));
    put(&mut out, "timeout", time(check.timeout));
    put(&mut out, "interval", time(check.interval));
    put(&mut out, "retries", check.retries.map(|retries| json!(retries)));
    put(&mut out, "start_period", time(check.start_period));
    put(&mut out, "start_interval", time(check.start_interval));
    put(&mut out, "disable", check.disable.filter(|disable| *disable).map(|disable| json!(disable)));
    Value::Object(out)
}

fn depends_on(service: &Service) -> Value {
    use crate::spec::Condition;
    let entries = service.depends_on.iter().map(|(name, dependency)| {
        let condition = match dependency.condition {
            Condition::Started => "service_started",
            Condition::Healthy => "service_healthy",
            Condition::Completed => "service_completed_successfully",
        };
        (name.clone(), json!({ "condition": condition, "required": dependency.required }))
    });
    Value::Object(entries.collect())
}

/// A piece of the tree as JSON, for the keys that are printed as they are.
pub(super) fn verbatim(node: &Node) -> Value {
    match &node.kind {
        Kind::Scalar(scalar) => match scalar.resolve() {
            scalar::Value::Null => Value::Null,
            scalar::Value::Bool(b) => json!(b),
            scalar::Value::Int(n) => {
                i64::try_from(n).map_or_else(|_| json!(u64::try_from(n).ok()), |n| json!(n))
            }
            scalar::Value::Float(n) => json!(n),
            scalar::Value::Text(text) => json!(text),
        },
        Kind::Sequence(items) => Value::Array(items.iter().map(verbatim).collect()),
        Kind::Mapping(entries) => {
            Value::Object(entries.iter().map(|entry| (entry.key.clone(), verbatim(&entry.value))).collect())
        }
    }
}
