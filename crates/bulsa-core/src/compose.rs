//! Compose files: from text to a [`crate::spec::Spec`], with every mistake named at its place.
