//! The worker against real repositories, with restic beside it: what one writes, the other reads.
#![cfg(test)]

mod bad_targets;
mod damage;
mod devices;
mod faults;
mod locks;
mod object_store;
mod place;
mod restic;
mod servers;
mod trees;
