//! The tables of the embedded store's file.

use redb::{ReadableTable, TableDefinition};

use crate::error::Result;

/// Key to the revision of its last change, its lease (0: none) and its value.
pub(super) const ENTRIES: TableDefinition<'static, &str, (u64, i64, &[u8])> =
    TableDefinition::new("entries");

/// A key and its new value; none: deleted.
type Logged<'a> = (&'a str, Option<&'a [u8]>);

/// Revision and position in its transaction to what was changed.
pub(super) const LOG: TableDefinition<'static, (u64, u32), Logged<'static>> =
    TableDefinition::new("log");

/// Lease to its time to live, milliseconds.
pub(super) const LEASES: TableDefinition<'static, i64, u64> = TableDefinition::new("leases");

/// Single numbers.
pub(super) const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");

/// In [`META`]: the store's revision. It begins at 1, as etcd's does.
pub(super) const REVISION: &str = "revision";
/// In [`META`]: the first revision that the log still has whole.
pub(super) const FIRST: &str = "first";
/// In [`META`]: the lease that was granted last.
pub(super) const LAST_LEASE: &str = "last_lease";

/// A number of [`META`].
pub(super) fn number(meta: &impl ReadableTable<&'static str, u64>, name: &str) -> Result<u64> {
    Ok(meta.get(name)?.map_or(1, |number| number.value()))
}
