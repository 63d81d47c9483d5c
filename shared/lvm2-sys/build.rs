//! Links liblvm2cmd, of Debian's package liblvm2-dev, dynamically.

use std::io::Write;

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "cargo:rustc-link-lib=dylib=lvm2cmd")?;
    writeln!(out, "cargo:rerun-if-changed=build.rs")
}
