//! The process `drover-vol`, asked as the engine and the command line ask it, by an engine, and killed. What is about thin pools needs
//! device-mapper: `integration-tests/uml/run drover-vol/process thin::` where the kernel has none.
#![cfg(test)]

#[path = "process/auto.rs"]
mod auto;
#[path = "process/between.rs"]
mod between;
#[path = "process/databases.rs"]
mod databases;
#[path = "process/engine.rs"]
mod engine;
#[path = "process/filling.rs"]
mod filling;
#[path = "process/killed.rs"]
mod killed;
#[path = "process/late.rs"]
mod late;
#[path = "process/nobody.rs"]
mod nobody;
#[path = "process/options.rs"]
mod options;
#[path = "process/places.rs"]
mod places;
#[path = "process/plugin.rs"]
mod plugin;
#[path = "process/schedules.rs"]
mod schedules;
#[path = "process/thin.rs"]
mod thin;
#[path = "process/tracer.rs"]
mod tracer;
