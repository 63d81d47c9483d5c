//! LVM in one's own process: liblvm2cmd (`lvm2cmd.h`), and one safe way to call it.
//!
//! The library has one state and one log for the process, is not thread-safe, changes signal handlers, and pins the
//! memory of the whole process while devices are suspended. So it belongs into a small process of its own that does
//! nothing else: `drover-lvm`.

mod command;
mod ffi;

pub use command::{Error, Lvm, Output, join};
