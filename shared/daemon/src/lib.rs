//! What every Drover process shares: settings, sockets handed over, logs, signals, exit codes.
//!
//! A process is `run("drover-net", |settings, shutdown| async { ... })`: it gets settings that were
//! checked, and a shutdown that becomes `true` at SIGTERM or SIGINT. What it returns becomes its exit
//! code ([`Exit`]).
//!
//! ```text
//! flags > DROVER_* > drover.toml > defaults --> Settings --+--> main future --> Exit
//! SIGTERM, SIGINT ----------------------------> shutdown --+
//! ```

mod aside;
mod backoff;
mod exit;
mod listen;
mod run;
mod settings;
pub mod task;
mod telemetry;
mod token;

pub use aside::set_aside;
pub use backoff::Backoff;
pub use exit::Exit;
pub use listen::{ListenError, bind, listener};
pub use run::{run, run_with};
pub use settings::{
    AuthorizationSettings, BackendChoice, ClusterSettings, DEFAULT_CONFIG, EncapsulationChoice,
    EncryptionSettings, Fault, LogFormat, LogSettings, OverlaySettings, Overrides, PoolSettings,
    Settings, SettingsError, VolumeSettings,
};

pub use token::{
    AUTHORIZATION_HEADER, AUTHORIZATION_TOKEN, authorization_token, read_authorization_token,
};

/// The version of Drover, the same for every process of a build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
