//! What is ours in the kernel: the overlay's namespace, links in the host's namespace, nftables
//! tables. All of it is known by its name; nothing else is touched.

use std::process::Command;

use drover_daemon::Settings;
use nix::mount::{MntFlags, umount2};
use nix::net::if_::if_nameindex;

use super::Done;

/// The name of our nftables tables.
const TABLE: &str = "drover";

/// Removes it.
pub(super) async fn remove(settings: &Settings, done: &mut Done) {
    remove_namespace(settings, done);
    remove_tables(done);
    remove_links(done).await;
}

/// Lets go of the overlay's namespace. With the last holder gone the kernel removes it, and every
/// device in it with its other end.
fn remove_namespace(settings: &Settings, done: &mut Done) {
    let path = settings.overlay_namespace();
    if !path.exists() {
        return;
    }
    // Mounted more than once after a start that was cut short.
    while umount2(&path, MntFlags::MNT_DETACH).is_ok() {}
    match std::fs::remove_file(&path) {
        Ok(()) => done.removed("removed the overlay's network namespace"),
        Err(error) => done.left(format!("`{}` is still there: {error}", path.display())),
    }
}

fn remove_tables(done: &mut Done) {
    let listed = match Command::new("nft").args(["list", "tables"]).output() {
        Ok(listed) => String::from_utf8_lossy(&listed.stdout).into_owned(),
        // Without the program there never was a table of ours.
        Err(_) => return,
    };
    for family in our_tables(&listed) {
        let deleted = Command::new("nft")
            .args(["delete", "table", family, TABLE])
            .output();
        match deleted {
            Ok(output) if output.status.success() => {
                done.removed(format!("removed the nftables table `{family} {TABLE}`"));
            }
            Ok(output) => {
                let reason = String::from_utf8_lossy(&output.stderr);
                let reason = reason
                    .lines()
                    .next()
                    .unwrap_or("no reason given")
                    .to_owned();
                done.left(format!(
                    "the nftables table `{family} {TABLE}` is still there: {reason}"
                ));
            }
            Err(error) => done.left(format!("nft cannot be run: {error}")),
        }
    }
}

/// The families in which a table of ours is listed.
fn our_tables(listed: &str) -> Vec<&str> {
    let tables = listed
        .lines()
        .filter_map(|line| line.trim().strip_prefix("table "));
    let ours = tables.filter_map(|table| table.split_once(' '));
    ours.filter(|(_, name)| *name == TABLE)
        .map(|(family, _)| family)
        .collect()
}

async fn remove_links(done: &mut Done) {
    let links = match if_nameindex() {
        Ok(links) => links,
        Err(errno) => return done.left(format!("the links cannot be listed: {}", errno.desc())),
    };
    let named = links
        .iter()
        .map(|link| (link.index(), link.name().to_string_lossy().into_owned()));
    let ours: Vec<(u32, String)> = named.filter(|(_, name)| is_ours(name)).collect();
    if ours.is_empty() {
        return;
    }
    let (connection, handle, _) = match rtnetlink::new_connection() {
        Ok(parts) => parts,
        Err(error) => return done.left(format!("no netlink socket: {error}")),
    };
    let connection = tokio::spawn(connection);
    for (index, name) in ours {
        let deleted = handle.link().del(index).execute().await;
        match deleted {
            Ok(()) => done.removed(format!("removed link `{name}`")),
            // The other end of a pair has gone with its first, or with its namespace.
            Err(_) if nix::net::if_::if_nametoindex(name.as_str()).is_err() => {}
            Err(error) => done.left(format!("link `{name}` is still there: {error}")),
        }
    }
    connection.abort();
}

/// Whether a link of the host's namespace has a name that only we give: the end of the pair to the
/// overlay, an endpoint that the engine has not taken, a device on its way into the overlay.
fn is_ours(name: &str) -> bool {
    let digits = |rest: &str, length: usize| {
        rest.len() == length
            && rest
                .bytes()
                .all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase())
    };
    let number = |rest: &str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
    matches!(name, "dvr-root" | "dvr-direct")
        || name
            .strip_prefix("dvr")
            .is_some_and(|rest| digits(rest, 10))
        || name.strip_prefix("dvx").is_some_and(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_we_give_are_ours() {
        for ours in [
            "dvr-root",
            "dvr-direct",
            "dvr0123456789",
            "dvrabcdef0123",
            "dvx17",
        ] {
            assert!(is_ours(ours), "{ours}");
        }
        for other in [
            "dvr",
            "dvr0",
            "dvrider0",
            "dvr01234567890",
            "dvx",
            "dvx1a",
            "docker0",
            "eth0",
            "br-0123",
        ] {
            assert!(!is_ours(other), "{other}");
        }
    }

    #[test]
    fn only_tables_of_our_name_are_ours() {
        let listed = "table ip nat\ntable inet drover\ntable netdev drover\ntable ip drover-test\n";
        assert_eq!(our_tables(listed), ["inet", "netdev"]);
        assert!(our_tables("").is_empty());
    }
}
