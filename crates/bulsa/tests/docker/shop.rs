//! The project that most tests run: two app services, Redis, a worker and a migration.

use crate::support::{engine::Engine, images, network::free_port, project::Project};

/// A shop that runs, and what it is made of.
pub(crate) struct Shop<'a> {
    pub(crate) project: Project<'a>,
    /// The image of the app, which new versions are made from.
    pub(crate) app: String,
    redis: (String, String),
}

impl<'a> Shop<'a> {
    /// Brings it up with further variables, at version `v1`. `None` where this machine has no Redis, which is said.
    pub(crate) async fn up(engine: &'a Engine, variables: &[(&str, &str)]) -> Option<Self> {
        let redis = images::redis()?.load(engine);
        let app = images::app().load(engine);
        let mut project = Project::new(engine, include_str!("../fixtures/shop.yaml"));
        project.set("REDIS", redis);
        project.set("BUSYBOX", images::busybox().load(engine));
        project.set("API_PORT", free_port().to_string());
        for (name, value) in variables {
            project.set(name, *value);
        }
        let image = project.image("v1", &app, &[]);
        project.set("APP", image);
        project.up().await;
        let redis = project.untouched("redis");
        Some(Self { project, app, redis })
    }

    pub(crate) fn api_port(&self) -> u16 {
        self.project.variables()["API_PORT"].parse().unwrap()
    }

    /// A new image, as a build makes it, and the version that it answers with.
    pub(crate) fn build(&mut self, version: &str) {
        let image = self.project.image(version, &self.app, &[&format!("ENV BUILT={version}")]);
        self.project.set("APP", image);
        self.project.set("VERSION", version);
    }

    /// Fails the test where anybody has touched Redis since the start.
    #[track_caller]
    pub(crate) fn redis_is_untouched(&self) {
        assert_eq!(self.project.untouched("redis"), self.redis, "Redis is another one, or was restarted");
    }

    /// The containers of both app services.
    pub(crate) fn apps(&self) -> Vec<String> {
        let mut all = [self.project.containers("web"), self.project.containers("api")].concat();
        all.sort();
        all
    }
}

/// A test on the Engine of this machine, and the same on a newer one.
macro_rules! on_both_engines {
    ($name:ident) => {
        mod $name {
            use crate::support::engine::{Engine, Generation};

            #[tokio::test]
            async fn on_the_installed_engine() {
                if let Some(engine) = Engine::of(Generation::Installed) {
                    super::$name(&engine).await;
                }
            }

            #[tokio::test]
            async fn on_the_next_engine() {
                if let Some(engine) = Engine::of(Generation::Next) {
                    super::$name(&engine).await;
                }
            }
        }
    };
}
pub(crate) use on_both_engines;

/// A test of what doesn't depend on the Engine's version: on the one that is named, and with `BULSA_LONG=1` on both.
macro_rules! on_one_engine {
    ($generation:ident, $name:ident) => {
        mod $name {
            use crate::support::{
                engine::{Engine, Generation},
                is_long,
            };

            #[tokio::test]
            async fn on_one_engine() {
                let all = [Generation::Installed, Generation::Next];
                for generation in all.into_iter().filter(|one| is_long() || *one == Generation::$generation) {
                    if let Some(engine) = Engine::of(generation) {
                        super::$name(&engine).await;
                    }
                }
            }
        }
    };
}
pub(crate) use on_one_engine;
