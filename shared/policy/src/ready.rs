//! The ready roles. Nobody is in one until `authorization.toml` says so.

/// Their names and policies.
pub const ROLES: &[(&str, &str)] = &[
    ("admin", include_str!("../roles/admin.cedar")),
    ("developer", include_str!("../roles/developer.cedar")),
    ("ci-runner", include_str!("../roles/ci-runner.cedar")),
    ("reader", include_str!("../roles/reader.cedar")),
    ("updater", include_str!("../roles/updater.cedar")),
    ("backup", include_str!("../roles/backup.cedar")),
];
