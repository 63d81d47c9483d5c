//! Exact JSON types of Docker's plugin protocols.
