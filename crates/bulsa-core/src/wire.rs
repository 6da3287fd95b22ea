//! The versioned types that cross a socket or a disk.
