//! Modules of the kernel, taken away as if it had been built without them. All hosts have one kernel, so all lack them.

use std::fs;

use anyhow::{Context, Result};

use crate::process::machine;
use crate::wait;

/// The program by which the kernel loads what it lacks; without one it loads nothing
/// (`Documentation/admin-guide/sysctl/kernel.rst`).
const LOADER: &str = "/proc/sys/kernel/modprobe";

/// Modules that are not there. They can be loaded again once this is dropped, and are when somebody needs them.
#[derive(Debug)]
pub struct MissingModules {
    loader: String,
}

impl MissingModules {
    /// Unloads modules, of which nothing may be in use any more, and keeps all modules that are not there from being loaded.
    ///
    /// # Errors
    /// Fails when something goes on using one.
    pub fn unload(modules: &[&str]) -> Result<Self> {
        let loader = fs::read_to_string(LOADER).context("reading how modules are loaded")?;
        fs::write(LOADER, "\n").context("keeping modules from being loaded")?;
        let missing = Self { loader };
        for module in modules {
            // What used it is taken apart a little later.
            wait::until(
                &format!("the end of module {module}"),
                wait::seconds(3),
                || machine(&["rmmod", module]),
            )?;
        }
        Ok(missing)
    }
}

impl Drop for MissingModules {
    fn drop(&mut self) {
        // It was written to before, or there is no such file at all.
        let _restored = fs::write(LOADER, &self.loader);
    }
}
