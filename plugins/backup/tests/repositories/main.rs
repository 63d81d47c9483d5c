//! The worker against real repositories, with restic beside it: what one writes, the other reads.
#![cfg(test)]

mod damage;
mod devices;
mod faults;
mod locks;
mod object_store;
mod place;
mod restic;
mod trees;
