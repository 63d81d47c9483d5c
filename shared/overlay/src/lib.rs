//! Plans the network data path: desired, observed, diff, plan; no I/O.
