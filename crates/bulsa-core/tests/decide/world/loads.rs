//! What proxies have to do with replicas.

use bulsa_core::{
    decide::{Event, Load},
    ids::Generation,
};

use super::{World, id};

impl World {
    /// What the first proxy has to do with a replica.
    pub(crate) fn load(&mut self, name: &str, load: Load) {
        let generation = self.first_proxy();
        self.proxies.entry(generation).or_default().insert(id(name), load);
        self.report(generation);
        self.step();
    }

    /// The first proxy reports a replica no more: it has nothing to do with it, and has said so.
    pub(crate) fn forgets(&mut self, name: &str) {
        let generation = self.first_proxy();
        self.proxies.entry(generation).or_default().remove(&id(name));
        self.report(generation);
    }

    pub(crate) fn proxy_down(&mut self, generation: u64) {
        let generation = Generation(generation);
        self.proxies.remove(&generation);
        self.observed.apply(Event::ProxyDown(generation), self.now);
    }
}
