//! What LVM and the kernel say about a pool, read.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

/// A logical volume, as `lvs` reports it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct LogicalVolume {
    #[serde(rename = "lv_name")]
    pub(super) name: String,
    #[serde(rename = "lv_tags", deserialize_with = "tags")]
    pub(super) tags: BTreeSet<String>,
    /// Bytes.
    #[serde(rename = "lv_size", deserialize_with = "number")]
    pub(super) size: u64,
    #[serde(rename = "pool_lv")]
    pub(super) pool: String,
    /// The number in its pool; of others than thin volumes empty.
    #[serde(rename = "thin_id")]
    pub(super) thin_id: String,
    #[serde(rename = "segtype")]
    pub(super) kind: String,
    #[serde(rename = "vg_name", default)]
    pub(super) group: String,
    #[serde(rename = "vg_tags", deserialize_with = "tags")]
    pub(super) group_tags: BTreeSet<String>,
}

/// A physical volume, as `pvs` reports it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct PhysicalVolume {
    /// The group it is in; empty when it is in none.
    #[serde(rename = "vg_name")]
    pub(super) group: String,
}

/// The fields of [`LogicalVolume`].
pub(super) const LOGICAL_FIELDS: &str =
    "lv_name,lv_tags,lv_size,pool_lv,thin_id,segtype,vg_name,vg_tags";

fn tags<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeSet<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let tags = text.split(',').filter(|tag| !tag.is_empty());
    Ok(tags.map(str::to_owned).collect())
}

fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    String::deserialize(deserializer)?
        .parse()
        .map_err(D::Error::custom)
}

#[derive(Deserialize)]
struct Report {
    report: Vec<Section>,
}

#[derive(Deserialize)]
struct Section {
    #[serde(default)]
    lv: Vec<serde_json::Value>,
    #[serde(default)]
    pv: Vec<serde_json::Value>,
}

/// The rows of `--reportformat json`, among which warnings can stand.
pub(super) fn rows<T: serde::de::DeserializeOwned>(
    lines: &[String],
) -> Result<Vec<T>, serde_json::Error> {
    let begin = lines.iter().position(|line| line.trim() == "{");
    let end = lines.iter().rposition(|line| line.trim() == "}");
    let text = match (begin, end) {
        (Some(begin), Some(end)) => lines.get(begin..=end).unwrap_or_default(),
        _ => lines,
    };
    let json = text
        .iter()
        .filter(|line| !line.trim_start().starts_with("WARNING"))
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join("\n");
    let report: Report = serde_json::from_str(&json)?;
    let rows = report
        .report
        .into_iter()
        .flat_map(|section| section.lv.into_iter().chain(section.pv));
    rows.map(serde_json::from_value).collect()
}

/// The status of a pool, as the kernel says it (`thin-provisioning.rst`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PoolStatus {
    /// It gave up.
    Failed,
    /// It works, or nearly so.
    Working {
        /// Blocks of metadata: used, and all.
        metadata: (u64, u64),
        /// Blocks of data: used, and all.
        data: (u64, u64),
        /// `rw`, `ro` or `out_of_data_space`.
        mode: String,
        /// Whether the metadata must be checked before the pool is activated again.
        needs_check: bool,
    },
}

impl PoolStatus {
    /// Reads the status, without sectors and target before it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split_whitespace().collect();
        if matches!(words.as_slice(), ["Fail"] | ["Error"]) {
            return Some(Self::Failed);
        }
        let mut words_left = words.iter().skip(1);
        let metadata = fraction(words_left.next()?)?;
        let data = fraction(words_left.next()?)?;
        let _held = words_left.next()?;
        let mode = words_left.next()?;
        Some(Self::Working {
            metadata,
            data,
            mode: (*mode).to_owned(),
            needs_check: words.contains(&"needs_check"),
        })
    }
}

fn fraction(text: &str) -> Option<(u64, u64)> {
    let (used, all) = text.split_once('/')?;
    Some((used.parse().ok()?, all.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_among_warnings() {
        let text = r#"  WARNING: something else
  {
      "report": [
          {
              "lv": [
                  {"lv_name":"drover", "lv_tags":"", "lv_size":"536870912", "pool_lv":"", "thin_id":"", "segtype":"thin-pool", "vg_tags":"drover.done=1,x"},
                  {"lv_name":"drover_v_1", "lv_tags":"drover,drover.ready", "lv_size":"4194304", "pool_lv":"drover", "thin_id":"7", "segtype":"thin", "vg_tags":"x"}
              ]
          }
      ]
  }"#;
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let rows: Vec<LogicalVolume> = rows(&lines).unwrap();
        assert_eq!(rows[0].kind, "thin-pool");
        assert!(rows[0].group_tags.contains("drover.done=1"));
        assert_eq!((rows[1].size, rows[1].thin_id.as_str()), (4 << 20, "7"));
        assert!(rows[1].tags.contains("drover.ready") && rows[0].tags.is_empty());
        assert!(super::rows::<LogicalVolume>(&["no report".to_owned()]).is_err());
    }

    #[test]
    fn the_status_of_a_pool_is_read() {
        let text = "1 161/2048 5/8192 - rw discard_passdown error_if_no_space - 1024";
        let good = PoolStatus::Working {
            metadata: (161, 2048),
            data: (5, 8192),
            mode: "rw".to_owned(),
            needs_check: false,
        };
        assert_eq!(PoolStatus::parse(text), Some(good));
        let text = "1 161/2048 8192/8192 77 out_of_data_space discard_passdown queue_if_no_space needs_check 1024";
        let Some(PoolStatus::Working {
            mode, needs_check, ..
        }) = PoolStatus::parse(text)
        else {
            panic!("not read");
        };
        assert!(needs_check && mode == "out_of_data_space");
        assert_eq!(PoolStatus::parse("Fail"), Some(PoolStatus::Failed));
        assert_eq!(PoolStatus::parse("1 x"), None);
    }
}
