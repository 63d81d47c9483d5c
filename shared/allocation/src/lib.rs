//! Decides which pool, block and address is given; no I/O.
