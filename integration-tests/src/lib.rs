//! The lab: real engines on several hosts, on one machine.
//!
//! A host of the lab is a set of namespaces (mount, net, pid, uts, ipc) with a root file system of a Debian
//! suite, its own `/run` and disk, and its own `dockerd`. Hosts hang on a bridge in a further namespace; nothing is made
//! in the machine's own. Everything that runs in a host ends with the host's first process, which ends with
//! the process that made the lab.
//!
//! - [`lab`], [`host`], [`network`]: the machine parts;
//! - [`engine`], [`drover`], [`container`], [`traffic`], [`asking`], [`records`]: what runs on a host;
//! - [`load`], [`inject`], [`sniff`]: what travels between hosts, and what is seen of it;
//! - [`module`]: what the kernel can be made to lack, in a virtual machine;
//! - [`scenario`]: what a scenario needs, and how scenarios are run and reported;
//! - [`measure`], [`call`]: what the benchmarks in `src/bin` have in common.

pub mod asking;
pub mod boot;
pub mod cache;
pub mod call;
pub mod container;
pub mod drover;
pub mod engine;
pub mod fio;
pub mod host;
pub mod inject;
pub mod interrupt;
pub mod lab;
pub mod load;
pub mod measure;
pub mod measured_path;
pub mod module;
pub mod network;
pub mod process;
pub mod records;
pub mod scenario;
pub mod sniff;
pub mod traffic;
pub mod wait;
