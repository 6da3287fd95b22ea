//! Why a table was refused.

use thiserror::Error;

use super::{TABLE_VERSION, TABLE_VERSION_MIN};

/// Why a table was refused. The proxy goes on with the one it has.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TableError {
    /// The form is of another version.
    #[error(
        "route table {number} has version {found}, this proxy reads versions {TABLE_VERSION_MIN} to {TABLE_VERSION}"
    )]
    Version {
        /// The table's number.
        number: u64,
        /// The version found.
        found: u32,
    },
    /// There is more of something than the limit allows.
    #[error("route table {number} has {found} {what}, at most {max} are allowed")]
    TooMany {
        /// The table's number.
        number: u64,
        /// What there is too much of.
        what: &'static str,
        /// How many were found.
        found: u64,
        /// The limit.
        max: u64,
    },
    /// A name is used twice where it must be unique.
    #[error("route table {number} names the {what} `{name}` twice")]
    Twice {
        /// The table's number.
        number: u64,
        /// What is named twice.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A route points at a service that is not there.
    #[error("route table {number}: a route of listener `{listener}` names service {service} of {services}")]
    NoSuchService {
        /// The table's number.
        number: u64,
        /// The listener's name.
        listener: String,
        /// The index that the route names.
        service: usize,
        /// The number of services in the table.
        services: usize,
    },
    /// A route's path does not begin with a slash.
    #[error("route table {number}: the path `{path}` of listener `{listener}` does not begin with `/`")]
    Path {
        /// The table's number.
        number: u64,
        /// The listener's name.
        listener: String,
        /// The path.
        path: String,
    },
    /// A route's rule cannot be followed.
    #[error("route table {number}: the route `{path}` of listener `{listener}` {what}")]
    Rule {
        /// The table's number.
        number: u64,
        /// The listener's name.
        listener: String,
        /// The route's path.
        path: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A TCP listener has no route, several, or one that asks for a host or path, which TCP does not have.
    #[error(
        "route table {number}: the TCP listener `{listener}` must have exactly one route, for every host and the path `/`"
    )]
    TcpRoute {
        /// The table's number.
        number: u64,
        /// The listener's name.
        listener: String,
    },
}
