//! The ready roles, by file: one file may be about several. Nobody is in one until `authorization.toml` says so.

/// The names of their files, and the policies in them.
pub const ROLES: &[(&str, &str)] = &[
    ("admin", include_str!("../roles/admin.cedar")),
    ("own-things", include_str!("../roles/own-things.cedar")),
    ("developer", include_str!("../roles/developer.cedar")),
    ("ci-runner", include_str!("../roles/ci-runner.cedar")),
    ("reader", include_str!("../roles/reader.cedar")),
    (
        "traefik-reader",
        include_str!("../roles/traefik-reader.cedar"),
    ),
    ("updater", include_str!("../roles/updater.cedar")),
    ("backup", include_str!("../roles/backup.cedar")),
];
