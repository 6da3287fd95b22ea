//! Images that everybody knows: backing services and reverse proxies.
//!
//! Owns: the table behind the role `shared`. A name counts as the last part of an image's path, whoever made the
//! image: `redis`, `bitnami/redis`, `registry.example/mirror/redis:7`.

/// What a known image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::compose) enum Known {
    /// It keeps data, or looks after what others keep: `what` it is.
    Backing(&'static str),
    /// A reverse proxy that is never an application itself.
    Proxy,
    /// A web server that is a reverse proxy where there are apps behind it.
    WebServer,
}

/// Caches and key-value stores.
const CACHES: &[&str] = &[
    "redis",
    "redis-stack",
    "redis-stack-server",
    "redismod",
    "valkey",
    "keydb",
    "dragonfly",
    "memcached",
    "garnet",
    "sentinel",
    "redis-sentinel",
    "redis-cluster",
];
/// SQL databases, and what pools their connections.
const SQL: &[&str] = &[
    "postgres",
    "postgresql",
    "postgis",
    "timescaledb",
    "timescaledb-ha",
    "pgvector",
    "paradedb",
    "pgbouncer",
    "mysql",
    "mysql-server",
    "mariadb",
    "percona",
    "percona-server",
    "cockroach",
    "yugabyte",
    "tidb",
    "mssql/server",
    "azure-sql-edge",
    "oracle-xe",
    "oracle-free",
    "firebird",
    "proxysql",
    "cloudnative-pg",
];
/// Document, graph and wide-column stores.
const DOCUMENTS: &[&str] = &[
    "mongo",
    "mongodb",
    "mongodb-community-server",
    "ferretdb",
    "couchdb",
    "couchbase",
    "rethinkdb",
    "arangodb",
    "neo4j",
    "cassandra",
    "scylla",
    "surrealdb",
    "dgraph",
    "orientdb",
    "ravendb",
];
/// Search, and its own dashboards.
const SEARCH: &[&str] = &[
    "elasticsearch",
    "opensearch",
    "kibana",
    "opensearch-dashboards",
    "logstash",
    "solr",
    "meilisearch",
    "typesense",
    "zincsearch",
    "qdrant",
    "weaviate",
    "chroma",
    "milvus",
    "vespa",
];
/// Queues and brokers.
const QUEUES: &[&str] = &[
    "rabbitmq",
    "kafka",
    "cp-kafka",
    "cp-zookeeper",
    "cp-schema-registry",
    "zookeeper",
    "nats",
    "nats-streaming",
    "redpanda",
    "pulsar",
    "activemq",
    "activemq-classic",
    "activemq-artemis",
    "artemis",
    "eclipse-mosquitto",
    "mosquitto",
    "emqx",
    "beanstalkd",
    "nsq",
    "kafka-ui",
    "elasticmq-native",
];
/// Object stores and stand-ins for a cloud's services.
const OBJECTS: &[&str] =
    &["minio", "seaweedfs", "garage", "localstack", "azurite", "fake-gcs-server", "fake-s3"];
/// Time series, metrics, logs and traces.
const METRICS: &[&str] = &[
    "influxdb",
    "clickhouse",
    "clickhouse-server",
    "victoria-metrics",
    "questdb",
    "prometheus",
    "alertmanager",
    "grafana",
    "grafana-oss",
    "grafana-enterprise",
    "loki",
    "promtail",
    "tempo",
    "mimir",
    "jaegertracing/all-in-one",
    "jaeger",
    "zipkin",
    "node-exporter",
    "cadvisor",
    "telegraf",
    "graphite-statsd",
    "opentelemetry-collector",
    "opentelemetry-collector-contrib",
    "fluentd",
    "fluent-bit",
    "redis_exporter",
    "postgres-exporter",
    "pushgateway",
];
/// Coordination, configuration and secrets.
const COORDINATION: &[&str] = &["etcd", "consul", "vault", "nacos-server"];
/// Tools that look at the ones above, catch mail, or look after the host.
const TOOLS: &[&str] = &[
    "adminer",
    "phpmyadmin",
    "pgadmin4",
    "mongo-express",
    "redis-commander",
    "redisinsight",
    "mailhog",
    "mailpit",
    "maildev",
    "portainer",
    "portainer-ce",
    "watchtower",
    "autoheal",
    "registry",
    "docker-socket-proxy",
];
const BACKING: &[(&str, &[&str])] = &[
    ("a cache", CACHES),
    ("a database", SQL),
    ("a database", DOCUMENTS),
    ("a search service", SEARCH),
    ("a message broker", QUEUES),
    ("an object store", OBJECTS),
    ("a store of metrics or logs", METRICS),
    ("a store of configuration", COORDINATION),
    ("a tool beside the application", TOOLS),
];
/// They do nothing but pass requests on.
const PROXIES: &[&str] = &[
    "traefik",
    "haproxy",
    "envoy",
    "nginx-proxy",
    "nginx-proxy-manager",
    "caddy-docker-proxy",
    "kong",
    "apisix",
    "acme-companion",
    "cloudflared",
    "varnish",
    "oauth2-proxy",
];
/// They may serve files by themselves as well.
const WEB_SERVERS: &[&str] =
    &["nginx", "nginx-unprivileged", "caddy", "openresty", "angie", "freenginx", "swag", "tengine"];

/// What an image is, by its name.
pub(in crate::compose) fn known(image: &str) -> Option<Known> {
    let path = path(image);
    let is = |names: &[&str]| names.iter().any(|name| ends_in(path, name));
    if is(PROXIES) {
        return Some(Known::Proxy);
    }
    if is(WEB_SERVERS) {
        return Some(Known::WebServer);
    }
    BACKING.iter().find(|(_, names)| is(names)).map(|(what, _)| Known::Backing(what))
}

/// Whether the proxy takes its routes from labels of other containers.
pub(in crate::compose) fn routes_by_labels(image: &str) -> bool {
    ["traefik", "caddy-docker-proxy"].iter().any(|name| ends_in(path(image), name))
}

fn ends_in(path: &str, name: &str) -> bool {
    path.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with('/'))
}

/// Without tag and digest; the registry stays, since only the end is looked at.
pub(in crate::compose) fn path(image: &str) -> &str {
    let name = image.split('@').next().unwrap_or(image);
    match name.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => path,
        _ => name,
    }
}

/// The tag, where there is one and no digest.
pub(in crate::compose) fn tag(image: &str) -> Option<&str> {
    if image.contains('@') {
        return None;
    }
    image.strip_prefix(path(image)).and_then(|rest| rest.strip_prefix(':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_known_by_the_end_of_its_path() {
        for (image, expected) in [
            ("redis", Some(Known::Backing("a cache"))),
            ("redis:7-alpine", Some(Known::Backing("a cache"))),
            ("docker.io/library/redis@sha256:00", Some(Known::Backing("a cache"))),
            ("localhost:5000/mirror/postgres:16", Some(Known::Backing("a database"))),
            ("mcr.microsoft.com/mssql/server:2022", Some(Known::Backing("a database"))),
            ("jaegertracing/all-in-one", Some(Known::Backing("a store of metrics or logs"))),
            ("prom/prometheus", Some(Known::Backing("a store of metrics or logs"))),
            ("elasticsearch:7.16.1", Some(Known::Backing("a search service"))),
            ("rabbitmq:3-management", Some(Known::Backing("a message broker"))),
            ("minio/minio", Some(Known::Backing("an object store"))),
            ("traefik:2.6", Some(Known::Proxy)),
            ("nginx:alpine", Some(Known::WebServer)),
            ("minio/mc", None),
            ("shop", None),
            ("myredis", None),
            ("redis/server", None),
            ("localhost:5000/shop", None),
            ("server", None),
            ("", None),
        ] {
            assert_eq!(known(image), expected, "{image}");
        }
    }

    #[test]
    fn a_tag_is_what_stands_behind_the_name() {
        for (image, expected) in [
            ("shop", None),
            ("shop:1", Some("1")),
            ("localhost:5000/shop", None),
            ("localhost:5000/shop:latest", Some("latest")),
            ("shop:1@sha256:00", None),
        ] {
            assert_eq!(tag(image), expected, "{image}");
        }
    }
}
