//! The token by which the authorization plugin knows Drover's own calls of the Engine API.
//!
//! It lies in the run folder, for root alone, and is as old as the boot of the host. Whoever can read it is root already.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// The header that carries it, to an engine on this host alone.
pub const AUTHORIZATION_HEADER: &str = "X-Drover-Authorization";

/// The file of the token in the run folder.
pub const AUTHORIZATION_TOKEN: &str = "authorization.token";
const FILE: &str = AUTHORIZATION_TOKEN;

/// The token of this host, made when it is not there yet.
///
/// # Errors
/// When it can be neither read nor made.
pub fn authorization_token(run_dir: &Path) -> io::Result<String> {
    let path = run_dir.join(FILE);
    if let Some(token) = read_authorization_token(run_dir) {
        return Ok(token);
    }
    fs::create_dir_all(run_dir)?;
    let mut random = [0_u8; 32];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let token: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    // Whole or not at all, and the first of two stays.
    let under_way = run_dir.join(format!("{FILE}.{}", std::process::id()));
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&under_way)?;
    file.write_all(token.as_bytes())?;
    let linked = fs::hard_link(&under_way, &path);
    fs::remove_file(&under_way)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => read_authorization_token(run_dir).ok_or_else(|| {
            io::Error::other(format!("`{}` is no token: remove it", path.display()))
        }),
    }
}

/// The token of this host, if it was made.
#[must_use]
pub fn read_authorization_token(run_dir: &Path) -> Option<String> {
    let token = fs::read_to_string(run_dir.join(FILE)).ok()?;
    let token = token.trim();
    (token.len() == 64).then(|| token.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_token_is_made_once_and_is_for_root_alone() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read_authorization_token(folder.path()), None);
        let first = authorization_token(folder.path()).unwrap();
        assert_eq!(authorization_token(folder.path()).unwrap(), first);
        let mode = folder
            .path()
            .join(FILE)
            .metadata()
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
