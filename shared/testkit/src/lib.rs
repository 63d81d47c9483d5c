//! Test helpers: a fake engine, capability probe, namespace guards.
