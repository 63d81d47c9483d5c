//! The replicated store (embedded, etcd) and durable local tables.
