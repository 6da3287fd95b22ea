//! The environment that a replica is started with.
//!
//! Owns: which variables a replica finds, and whose value wins. Never: reads the environment of the running process;
//! the caller passes it in.
//!
//! Later layers win:
//!
//! 1. The base: `PATH`, `LANG`, `LC_ALL`, `TZ`, `TMPDIR` of the agent and nothing else of it, so that a service gets
//!    the same environment whoever started the daemon; `HOME`, `USER`, `LOGNAME` of the account it runs as.
//!    (`bulsa run` is a wrapper around one command, so it puts its caller's whole environment in the spec.)
//! 2. The service's own, from the file.
//! 3. `PORT`, where the service has a port: it is where the proxy sends traffic, so it is ours even if the file sets
//!    it. Without a port `PORT` is left as the file has it.
//! 4. `BULSA_*`: who the replica is, and where the other services are reached through the proxy. With `heartbeat`
//!    systemd's `NOTIFY_SOCKET` and `WATCHDOG_USEC`.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use bulsa_core::ids::ReplicaId;

use super::{
    TASK_VARIABLE,
    heartbeat::{PERIOD_VARIABLE, SOCKET_VARIABLE},
    user::Account,
};

/// The search path where the agent itself has none.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What of the agent's environment a replica inherits.
const INHERITED: [&str; 5] = ["PATH", "LANG", "LC_ALL", "TZ", "TMPDIR"];

/// What of the agent's environment describes its account: inherited where the replica runs as the same one.
const OF_ACCOUNT: [&str; 3] = ["HOME", "USER", "LOGNAME"];

/// Who a replica is and what it is told of the world.
#[derive(Clone, Debug)]
pub struct Surroundings<'a> {
    /// The replica.
    pub replica: &'a ReplicaId,
    /// The value of [`TASK_VARIABLE`], by which its processes are found again.
    pub task: &'a str,
    /// The UUID that stays the same while its workers die and come back.
    pub instance: &'a str,
    /// The port that it must listen on; `None` for a service without ports.
    pub port: Option<u16>,
    /// Where the proxy listens for each routed service.
    pub routes: &'a BTreeMap<String, SocketAddr>,
    /// How the replica reaches this host: [`Ipv4Addr::LOCALHOST`], or the host's side of its own network namespace.
    pub host: IpAddr,
    /// Where it sends its heartbeat, and how often at least.
    pub heartbeat: Option<(String, Duration)>,
}

/// Layer 1: the base, from the agent's environment and the account (`None`: the agent's own).
///
/// A variable that isn't UTF-8 is left out.
pub fn base(
    agent: impl IntoIterator<Item = (OsString, OsString)>,
    account: Option<&Account>,
) -> BTreeMap<String, String> {
    let mut base: BTreeMap<String, String> = agent
        .into_iter()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| {
            INHERITED.contains(&name.as_str()) || (account.is_none() && OF_ACCOUNT.contains(&name.as_str()))
        })
        .collect();
    base.entry("PATH".to_owned()).or_insert_with(|| DEFAULT_PATH.to_owned());
    if let Some(account) = account {
        base.insert("HOME".to_owned(), account.home.clone());
        if let Some(name) = &account.name {
            base.insert("USER".to_owned(), name.clone());
            base.insert("LOGNAME".to_owned(), name.clone());
        }
    }
    base
}

/// All four layers.
#[must_use]
pub fn build(
    base: BTreeMap<String, String>,
    of_service: &BTreeMap<String, String>,
    around: &Surroundings<'_>,
) -> BTreeMap<String, String> {
    let mut environment = base;
    environment.extend(of_service.iter().map(|(name, value)| (name.clone(), value.clone())));
    let mut set = |name: &str, value: String| environment.insert(name.to_owned(), value);
    if let Some(port) = around.port {
        set("PORT", port.to_string());
    }
    set("BULSA_RELEASE", around.replica.release.to_string());
    set("BULSA_SERVICE", around.replica.service.clone());
    set("BULSA_REPLICA", around.replica.name());
    set("BULSA_INSTANCE", around.instance.to_owned());
    set(TASK_VARIABLE, around.task.to_owned());
    if let Some((socket, period)) = &around.heartbeat {
        set(SOCKET_VARIABLE, socket.clone());
        set(PERIOD_VARIABLE, period.as_micros().to_string());
    }
    // In reverse, so that of two services with one variable the first by name keeps it, as `url_clashes` says.
    for (service, listening) in around.routes.iter().rev() {
        set(&url_variable(service), url(*listening, around.host));
    }
    environment
}

/// The variable that tells where `service` is: `BULSA_URL_MY_API` for `my-api`.
#[must_use]
pub fn url_variable(service: &str) -> String {
    let upper = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    format!("BULSA_URL_{}", service.chars().map(upper).collect::<String>())
}

/// Pairs of services that share a [`url_variable`]: the first of each pair has it, the second gets none.
#[must_use]
pub fn url_clashes<'a>(services: impl IntoIterator<Item = &'a str>) -> Vec<(&'a str, &'a str)> {
    let mut names: Vec<&str> = services.into_iter().collect();
    names.sort_unstable();
    let mut owners: BTreeMap<String, &str> = BTreeMap::new();
    let mut clashes = Vec::new();
    for name in names {
        match owners.get(&url_variable(name)) {
            Some(owner) => clashes.push((*owner, name)),
            None => {
                owners.insert(url_variable(name), name);
            }
        }
    }
    clashes
}

fn url(listening: SocketAddr, host: IpAddr) -> String {
    let everywhere = listening.ip().is_unspecified();
    // Only an isolated replica has another `host`, and its own loopback isn't the one that the proxy listens on.
    let isolated = host != IpAddr::V4(Ipv4Addr::LOCALHOST);
    let ip = if everywhere || (isolated && listening.ip().is_loopback()) { host } else { listening.ip() };
    format!("http://{}", SocketAddr::new(ip, listening.port()))
}

#[cfg(test)]
mod tests {
    use bulsa_core::ids::ReleaseId;

    use super::*;

    fn agent() -> Vec<(OsString, OsString)> {
        [("PATH", "/bin"), ("HOME", "/home/me"), ("TZ", "Asia/Seoul"), ("SECRET", "x"), ("USER", "me")]
            .map(|(name, value)| (name.into(), value.into()))
            .to_vec()
    }

    fn built(of_service: &[(&str, &str)], port: Option<u16>, host: IpAddr) -> BTreeMap<String, String> {
        let replica = ReplicaId { release: ReleaseId(3), service: "web".to_owned(), ordinal: 2, attempt: 7 };
        let routes = BTreeMap::from([
            ("web".to_owned(), "0.0.0.0:8080".parse().unwrap()),
            ("my-api".to_owned(), "192.0.2.7:81".parse().unwrap()),
            ("v6".to_owned(), "[::]:82".parse().unwrap()),
            ("inner".to_owned(), "127.0.0.1:83".parse().unwrap()),
        ]);
        let around = Surroundings {
            replica: &replica,
            task: "shop/web-r3-2.7",
            instance: "4d2c",
            port,
            routes: &routes,
            host,
            heartbeat: port.map(|_| ("/run/notify.sock".to_owned(), Duration::from_secs(30))),
        };
        let own = of_service.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        build(base(agent(), None), &own, &around)
    }

    const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn a_replica_learns_who_it_is_and_where_the_others_are() {
        let environment = built(&[("NODE_ENV", "production")], Some(20_001), LOCAL);
        let expected = [
            ("BULSA_INSTANCE", "4d2c"),
            ("BULSA_RELEASE", "r3"),
            ("BULSA_REPLICA", "web-r3-2"),
            ("BULSA_SERVICE", "web"),
            ("BULSA_TASK", "shop/web-r3-2.7"),
            ("BULSA_URL_INNER", "http://127.0.0.1:83"),
            ("BULSA_URL_MY_API", "http://192.0.2.7:81"),
            ("BULSA_URL_V6", "http://127.0.0.1:82"),
            ("BULSA_URL_WEB", "http://127.0.0.1:8080"),
            ("HOME", "/home/me"),
            ("NODE_ENV", "production"),
            ("NOTIFY_SOCKET", "/run/notify.sock"),
            ("PATH", "/bin"),
            ("PORT", "20001"),
            ("TZ", "Asia/Seoul"),
            ("USER", "me"),
            ("WATCHDOG_USEC", "30000000"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(environment, BTreeMap::from(expected));
    }

    #[test]
    fn port_is_ours_only_where_the_service_has_one() {
        assert_eq!(built(&[("PORT", "3000")], Some(20_001), LOCAL)["PORT"], "20001");
        assert_eq!(built(&[("PORT", "3000")], None, LOCAL)["PORT"], "3000");
        assert!(!built(&[], None, LOCAL).contains_key("PORT"));
    }

    #[test]
    fn the_file_wins_over_the_base_and_never_over_bulsas_own() {
        let environment = built(&[("PATH", "/opt/bin"), ("BULSA_RELEASE", "r9")], None, LOCAL);
        assert_eq!(environment["PATH"], "/opt/bin");
        assert_eq!(environment["BULSA_RELEASE"], "r3");
    }

    #[test]
    fn an_isolated_replica_reaches_the_proxy_through_its_gateway() {
        let environment = built(&[], None, "100.64.0.1".parse().unwrap());
        assert_eq!(environment["BULSA_URL_WEB"], "http://100.64.0.1:8080");
        assert_eq!(environment["BULSA_URL_INNER"], "http://100.64.0.1:83");
        assert_eq!(environment["BULSA_URL_MY_API"], "http://192.0.2.7:81");
    }

    #[test]
    fn another_account_has_its_own_home_and_name() {
        let account = Account {
            uid: 33,
            gid: 33,
            groups: vec![],
            name: Some("www".to_owned()),
            home: "/var/www".to_owned(),
        };
        let base = base(agent(), Some(&account));
        assert_eq!((&*base["HOME"], &*base["USER"], &*base["LOGNAME"]), ("/var/www", "www", "www"));
        assert!(!base.contains_key("SECRET"));
    }

    #[test]
    fn an_agent_without_a_path_gives_the_usual_one() {
        assert_eq!(base([], None)["PATH"], DEFAULT_PATH);
    }

    #[test]
    fn services_that_share_a_variable_are_named() {
        assert_eq!(url_clashes(["b", "a_b", "a-b", "a.b"]), [("a-b", "a.b"), ("a-b", "a_b")]);
        let replica = ReplicaId { release: ReleaseId(1), service: "x".to_owned(), ordinal: 1, attempt: 1 };
        let routes = BTreeMap::from([
            ("a-b".to_owned(), "0.0.0.0:1".parse().unwrap()),
            ("a_b".to_owned(), "0.0.0.0:2".parse().unwrap()),
        ]);
        let around = Surroundings {
            replica: &replica,
            task: "",
            instance: "",
            port: None,
            routes: &routes,
            host: LOCAL,
            heartbeat: None,
        };
        assert_eq!(build(BTreeMap::new(), &BTreeMap::new(), &around)["BULSA_URL_A_B"], "http://127.0.0.1:1");
    }
}
