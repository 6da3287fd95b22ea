//! The versioned types that cross a socket or a disk.

pub mod api;
pub mod credentials;
pub mod spec;
