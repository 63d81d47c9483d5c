//! What is decided about volumes: which options there are, when a snapshot is due, which are kept, when a volume
//! may be detached, and what a removal does. No clock, no file, no engine: time and what was observed are arguments.
//!
//! ```text
//! docker volume create -o ...  --> options --> VolumeOptions --+
//!                                                              +--> VolumeRecord (what the process keeps)
//! Mount, Unmount, containers   --> holds   --> detach or wait --+
//! the time                     --> schedule, retention, trash --> what to do now
//! a pool's figures             --> capacity --> announce, refuse
//! ```

pub mod capacity;
pub mod holds;
pub mod note;
pub mod options;
pub mod record;
pub mod retention;
pub mod schedule;

pub use options::{OptionFault, OptionFaults, VolumeOptions};
pub use record::{SnapshotRecord, VolumeRecord};
