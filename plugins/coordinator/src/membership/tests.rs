//! Membership end to end: several hosts in this process, a real etcd, real TLS, on loopback.

mod cluster;
mod joining;
mod keys;
mod leaving;
mod restarts;
