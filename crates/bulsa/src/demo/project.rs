//! The project that the demo deploys: one service, five versions of it.

use std::{fmt::Write as _, path::Path, time::Duration};

/// The project's name.
pub(crate) const NAME: &str = "demo";
/// The service's name.
pub(crate) const SERVICE: &str = "web";
/// Workers.
pub(crate) const WORKERS: u32 = 2;
/// How long the app takes before it listens.
pub(crate) const APP_START: Duration = Duration::from_millis(150);
/// How long a new release may take to get healthy: a minute's show can't wait for the usual two minutes.
pub(crate) const GATE: Duration = Duration::from_secs(5);
/// How long a new release is watched: usually a minute.
pub(crate) const BAKE: Duration = Duration::from_secs(3);
/// When the crashing version crashes, counted from its first request.
const CRASH_AFTER: Duration = Duration::from_millis(800);

/// What a version is meant to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Character {
    /// It serves.
    Good,
    /// It never gets healthy.
    Broken,
    /// It gets healthy, and crashes once users come.
    Crashing,
}

/// One version of the service.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Version {
    pub(crate) name: &'static str,
    pub(crate) character: Character,
}

impl Version {
    /// The compose file that makes it. `port` is where it is published, on loopback.
    pub(crate) fn compose(&self, exe: &Path, port: u16) -> String {
        // A JSON string is a YAML string; a lone $ would be a variable.
        let exe = serde_json::Value::from(exe.to_string_lossy()).to_string().replace('$', "$$");
        let extra = match self.character {
            Character::Good => String::new(),
            Character::Broken => "\n      DEMO_BROKEN: \"1\"".to_owned(),
            Character::Crashing => {
                format!("\n      DEMO_CRASH_AFTER_TRAFFIC_MS: \"{}\"", CRASH_AFTER.as_millis())
            }
        };
        let mut text = format!("name: {NAME}\nx-bulsa:\n  keep: {{ releases: 2, warm: 10m }}\nservices:\n");
        // Writing to a String can't fail.
        write!(
            text,
            "  {SERVICE}:
    command: [{exe}, \"__demo-app\"]
    ports: [\"127.0.0.1:{port}:3000\"]
    environment:
      DEMO_VERSION: \"{name}\"
      DEMO_START_MS: \"{start}\"{extra}
    deploy: {{ replicas: {WORKERS} }}
    x-bulsa:
      probe: {{ path: /health, interval: 1s, timeout: 500ms, rise: 2, fall: 2 }}
      gate: {{ timeout: {gate}s }}
      bake: {{ time: {bake}s }}
      drain: {{ stagger: 2s }}
",
            name = self.name,
            start = APP_START.as_millis(),
            gate = GATE.as_secs(),
            bake = BAKE.as_secs(),
        )
        .ok();
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_names_version_port_and_what_is_wrong_with_it() {
        let version = Version { name: "v4", character: Character::Crashing };
        let text = version.compose(Path::new("/opt/a \"b\" $c/bulsa"), 8080);
        assert!(text.contains(r#"command: ["/opt/a \"b\" $$c/bulsa", "__demo-app"]"#), "{text}");
        assert!(text.contains("ports: [\"127.0.0.1:8080:3000\"]"), "{text}");
        assert!(text.contains("DEMO_VERSION: \"v4\""), "{text}");
        assert!(text.contains("DEMO_CRASH_AFTER_TRAFFIC_MS: \"800\""), "{text}");
        assert!(!text.contains("DEMO_BROKEN"), "{text}");
    }
}
