//! What the process for LVM and device-mapper, `drover-lvm`, is asked, and what it answers.
//!
//! ```text
//! Request --stdin--> drover-lvm --stdout--> Answer          a line of JSON each, one after the other
//!                        |
//!                        v
//!          liblvm2cmd, /dev/mapper/control
//! ```
//!
//! The process chooses nothing: it runs what it is told, and has no record. It ends with its standard input. Of
//! processes with one lock file, one at a time does a request.

use serde::{Deserialize, Serialize};

/// One piece of work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Runs a command of LVM.
    Lvm {
        /// The command and its arguments, such as `["lvs", "--units", "b"]`.
        arguments: Vec<String>,
    },
    /// Makes thin devices snapshots of others, all at one instant: devices are suspended first, with the file systems on
    /// them brought to rest, and resumed in the end, whatever has happened.
    ThinSnapshots {
        /// The device of the pool.
        pool: String,
        /// Names of devices of device-mapper to be suspended: those of the origins. Those that are not there are passed
        /// over, as nobody can write to them.
        suspend: Vec<String>,
        /// The number of an origin, and that of a thin device which is there and not active, and whose content is lost.
        snapshots: Vec<(u32, u32)>,
    },
    /// Asks the first target of a device how it is.
    Status {
        /// The name of a device of device-mapper.
        device: String,
    },
    /// Lists the thin devices of a pool, from a snapshot of its metadata.
    ThinDevices(Metadata),
    /// Compares two thin devices of a pool, in a snapshot of its metadata.
    ThinChanges {
        /// The pool.
        #[serde(flatten)]
        metadata: Metadata,
        /// The number of the older device; without it, everything that is mapped is told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        old: Option<u32>,
        /// The number of the newer device.
        new: u32,
    },
    /// Undoes what a process that was killed has left: suspended devices are resumed, and a metadata snapshot released.
    Recover {
        /// Devices whose names begin so.
        prefix: String,
        /// Devices of the pool. Those that are not there are passed over.
        pools: Vec<String>,
    },
}

/// Where the metadata of a thin pool is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// The name of the pool's device, LVM's with `-tpool`.
    pub pool: String,
    /// The name of the device of its metadata, LVM's with `_tmeta`.
    pub metadata: String,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// What a command of LVM came to.
    Output {
        /// LVM's return code: 1 for success, 2 to 5 for failures.
        code: i32,
        /// What it printed, by line.
        lines: Vec<String>,
        /// What it complained of, by line.
        errors: Vec<String>,
    },
    /// It was done.
    Done,
    /// How the first target of a device is.
    Status {
        /// The target and its status, as the kernel says it; `None` when there is no such device.
        target: Option<TargetStatus>,
    },
    /// The thin devices of a pool.
    ThinDevices {
        /// The size of a block, bytes.
        block_size: u64,
        /// Number and mapped blocks of each.
        devices: Vec<(u32, u64)>,
    },
    /// What differs between two thin devices.
    ThinChanges {
        /// Offset and length in bytes of ranges that are in order and do not touch.
        ranges: Vec<(u64, u64)>,
    },
    /// What was left is undone.
    Recovered {
        /// Devices that were resumed.
        resumed: Vec<String>,
        /// Whether a metadata snapshot was released.
        released: bool,
    },
    /// It could not be done.
    Failed {
        /// For a person: the object, and what is wrong.
        message: String,
        /// Whether the pool's metadata is damaged.
        #[serde(default)]
        is_damage: bool,
    },
}

/// How a target of a device is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetStatus {
    /// Its type, such as `thin-pool`.
    pub kind: String,
    /// Its length, sectors of 512 bytes.
    pub sectors: u64,
    /// What it says; for `thin-pool` see the kernel's `thin-provisioning.rst`.
    pub status: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_of_a_request_and_an_answer_is_as_it_was() {
        let request = Request::ThinChanges {
            metadata: Metadata {
                pool: "vg-pool-tpool".to_owned(),
                metadata: "vg-pool_tmeta".to_owned(),
            },
            old: Some(3),
            new: 4,
        };
        let text = r#"{"do":"thin_changes","pool":"vg-pool-tpool","metadata":"vg-pool_tmeta","old":3,"new":4}"#;
        assert_eq!(serde_json::to_string(&request).unwrap(), text);
        assert_eq!(serde_json::from_str::<Request>(text).unwrap(), request);
        let answer = Answer::ThinChanges {
            ranges: vec![(0, 65_536)],
        };
        let text = r#"{"answer":"thin_changes","ranges":[[0,65536]]}"#;
        assert_eq!(serde_json::to_string(&answer).unwrap(), text);
        assert!(serde_json::from_str::<Request>(r#"{"do":"else"}"#).is_err());
    }
}
