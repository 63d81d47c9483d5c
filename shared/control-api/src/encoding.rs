//! Bytes in JSON: base64 with the standard alphabet and padding.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serializer, de::Error};

/// 32 bytes.
pub(crate) mod base64_key {
    use super::{Deserializer, Error, Serializer, base64_bytes};

    pub(crate) fn serialize<S: Serializer>(key: &[u8; 32], to: S) -> Result<S::Ok, S::Error> {
        base64_bytes::serialize(key, to)
    }

    pub(crate) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<[u8; 32], D::Error> {
        let bytes = base64_bytes::deserialize(from)?;
        <[u8; 32]>::try_from(bytes.as_slice())
            .map_err(|_length| D::Error::custom("a key has 32 bytes"))
    }
}

/// Any number of bytes.
pub(crate) mod base64_bytes {
    use super::{Deserialize, Deserializer, Engine, Error, STANDARD, Serializer};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(bytes))
    }

    pub(crate) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Vec<u8>, D::Error> {
        // What is wrong with it is told without the text itself.
        let text = String::deserialize(from)?;
        STANDARD
            .decode(text)
            .map_err(|_wrong| D::Error::custom("it is not base64"))
    }
}

#[cfg(test)]
mod tests {
    use crate::fabric::{FabricEvent, PeerKey};
    use crate::record::KeyRecord;

    const RECORD: &str = r#"{"version":1,"host":"web","member":"m","generation":7,
        "public":"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=","created_at":5,"lanes":2,
        "udp_port":4788,"certificate":"PEM","signature":"AQID"}"#;

    #[test]
    fn a_key_record_is_read_and_written_in_its_form() {
        let record: KeyRecord = serde_json::from_str(RECORD).unwrap();
        assert_eq!(
            (record.public, record.signature.as_slice()),
            ([7; 32], &[1, 2, 3][..])
        );
        let compact: serde_json::Value = serde_json::from_str(RECORD).unwrap();
        assert_eq!(serde_json::to_value(&record).unwrap(), compact);
        for (right, wrong) in [
            ("BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=", "BwcH"),
            ("BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=", "*"),
            ("AQID", "AQI"),
            ("4788", "65536"),
            ("\"generation\":7", "\"generation\":-7"),
        ] {
            let wrong = RECORD.replace(right, wrong);
            serde_json::from_str::<KeyRecord>(&wrong).unwrap_err();
        }
    }

    #[test]
    fn a_line_of_the_stream_has_a_form_too() {
        let key = FabricEvent::Key(PeerKey::from(
            serde_json::from_str::<KeyRecord>(RECORD).unwrap(),
        ));
        assert_eq!(
            serde_json::to_string(&key).unwrap(),
            r#"{"event":"key","host":"web","member":"m","generation":7,"public":"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=","lanes":2,"udp_port":4788,"created_at":5}"#
        );
        let gone = FabricEvent::KeyGone {
            host: "web".parse().unwrap(),
        };
        assert_eq!(
            serde_json::to_string(&gone).unwrap(),
            r#"{"event":"key_gone","host":"web"}"#
        );
        // A coordinator of before there were keys.
        let old = r#"{"event":"reset","this_host":"web","fenced":false}"#;
        let read: FabricEvent = serde_json::from_str(old).unwrap();
        let FabricEvent::Reset { cluster, .. } = read else {
            panic!("{read:?}");
        };
        assert_eq!(cluster, "");
    }
}
