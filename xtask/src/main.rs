//! Generated files and the long runs.
fn main() {}
