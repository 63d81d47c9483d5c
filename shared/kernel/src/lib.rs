//! Applies an overlay plan to the kernel and observes it.
