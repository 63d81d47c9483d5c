//! What was recorded of four engines: single exchanges, and the order of calls of user actions.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;

use crate::Fault;

const DIRECTORY: &str = "../../integration-tests/fixtures/engine";

/// One exchange.
#[derive(Debug, Clone)]
pub struct Recording {
    /// `28.5.2-network-Join-full`.
    pub name: String,
    /// The path of the call.
    pub path: String,
    /// The request's headers.
    pub headers: Vec<(String, String)>,
    /// The request's body; `None` for an empty one.
    pub body: Option<Value>,
    /// What the recorder answered.
    pub answer: Option<Value>,
}

/// The calls of a user's action, in order of arrival.
#[derive(Debug, Clone)]
pub struct Sequence {
    /// What the user did.
    pub action: String,
    /// The calls.
    pub steps: Vec<Step>,
}

/// A call of a sequence: `NetworkDriver.Join(e1)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// `NetworkDriver.Join`.
    pub method: String,
    /// `e1`: an endpoint, an address, a pool, or the kind of plugin.
    pub argument: Option<String>,
}

impl Step {
    fn parse(text: &str) -> Self {
        let (method, argument) = match text.split_once('(') {
            Some((method, rest)) => (method, Some(rest.trim_end_matches(')').to_owned())),
            None => (text, None),
        };
        Self {
            method: method.to_owned(),
            argument,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.argument {
            Some(argument) => write!(formatter, "{}({argument})", self.method),
            None => formatter.write_str(&self.method),
        }
    }
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(DIRECTORY)
}

fn read(path: &Path) -> Result<Value, Fault> {
    let problem = |problem: String| Fault::Recording {
        path: path.to_owned(),
        problem,
    };
    let text = fs::read_to_string(path).map_err(|error| problem(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| problem(error.to_string()))
}

/// Every exchange of a kind: `network`, `ipam` or `any`.
///
/// # Errors
/// When a file cannot be read, or there is none.
pub fn recordings(kind: &str) -> Result<Vec<Recording>, Fault> {
    let directory = directory();
    let problem = |problem: String| Fault::Recording {
        path: directory.clone(),
        problem,
    };
    let mut found = Vec::new();
    for file in fs::read_dir(&directory).map_err(|error| problem(error.to_string()))? {
        let path = file.map_err(|error| problem(error.to_string()))?.path();
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if name.contains(&format!("-{kind}-")) {
            found.push(exchange(&path, name)?);
        }
    }
    found.sort_by(|left, right| left.name.cmp(&right.name));
    if found.is_empty() {
        Err(problem(format!("nothing of kind {kind}")))
    } else {
        Ok(found)
    }
}

fn exchange(path: &Path, name: String) -> Result<Recording, Fault> {
    let recording = read(path)?;
    let problem = || Fault::Recording {
        path: path.to_owned(),
        problem: "no request".to_owned(),
    };
    let part = |pointer: &str| recording.pointer(pointer).filter(|value| !value.is_null());
    let line = part("/request/line")
        .and_then(Value::as_str)
        .ok_or_else(problem)?;
    let headers = part("/request/headers")
        .and_then(Value::as_object)
        .ok_or_else(problem)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(Recording {
        name,
        path: line.split(' ').nth(1).ok_or_else(problem)?.to_owned(),
        headers: headers
            .iter()
            .map(|(name, value)| (name.clone(), text(value)))
            .collect(),
        body: part("/request/body").cloned(),
        answer: part("/response/body").cloned(),
    })
}

/// The sequences of an engine version, in the order they were recorded in.
///
/// # Errors
/// When the file cannot be read.
pub fn sequences(version: &str) -> Result<Vec<Sequence>, Fault> {
    let path = directory().join(format!("{version}-sequences.json"));
    let problem = |problem: String| Fault::Recording {
        path: path.clone(),
        problem,
    };
    let text = fs::read_to_string(&path).map_err(|error| problem(error.to_string()))?;
    let file: SequenceFile =
        serde_json::from_str(&text).map_err(|error| problem(error.to_string()))?;
    let sequence = |(action, calls): (String, Vec<String>)| Sequence {
        action,
        steps: calls.iter().map(|call| Step::parse(call)).collect(),
    };
    Ok(file.sequences.0.into_iter().map(sequence).collect())
}

#[derive(Deserialize)]
struct SequenceFile {
    sequences: InOrder,
}

/// The fields of an object in the order they are written in: later actions presume earlier ones.
struct InOrder(Vec<(String, Vec<String>)>);

impl<'de> Deserialize<'de> for InOrder {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = InOrder;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("actions with their calls")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<InOrder, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(InOrder(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}
