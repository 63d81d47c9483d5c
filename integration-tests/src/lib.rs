//! The lab: real engines, several hosts, a real kernel.
