//! The `nft` program: scripts in, listings out. Elements of plain sets come and go without it
//! ([`Elements`]).
//!
//! Rules are never read back: a table carries a digest of its rules in the name of an empty chain.
//! Elements are, from the JSON listing, in the writing that we use ourselves.

mod element;
mod transaction;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use drover_overlay::{Element, ElementChange, Place, Set, Table, TableFamily, TableName, name};
use serde_json::Value;

use crate::error::Error;
use crate::namespace::Namespace;
pub(crate) use transaction::{Elements, Outcome, commit, request, socket};

const PLACES: [&str; 4] = ["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft", "/bin/nft"];
const DIGEST: &str = "digest-";

/// The program, found once.
#[derive(Debug, Clone)]
pub(crate) struct Nft {
    program: PathBuf,
}

impl Nft {
    /// Finds the program.
    pub(crate) fn find() -> Result<Self, Error> {
        let found = PLACES.iter().map(Path::new).find(|path| path.exists());
        found
            .map(|path| Self {
                program: path.to_owned(),
            })
            .ok_or(Error::NftMissing)
    }

    /// Runs a script in a namespace: all of it, or nothing of it.
    pub(crate) async fn run(
        &self,
        namespace: &Namespace,
        script: String,
        action: impl FnOnce() -> String,
    ) -> Result<(), Error> {
        let output = self.output(namespace, &["-f", "-"], script).await?;
        if output.status.success() {
            return Ok(());
        }
        Err(Error::Nft {
            action: action(),
            stderr: text(&output.stderr),
        })
    }

    async fn output(
        &self,
        namespace: &Namespace,
        arguments: &'static [&'static str],
        input: String,
    ) -> Result<Output, Error> {
        let program = self.program.clone();
        let ran = namespace
            .run(move || spawn(&program, arguments, &input))
            .await;
        let failed = |source| Error::NftRun {
            program: self.program.clone(),
            source,
        };
        ran.and_then(|output| output).map_err(failed)
    }

    /// Our tables in a namespace.
    pub(crate) async fn tables(
        &self,
        namespace: &Namespace,
        place: Place,
    ) -> Result<BTreeMap<TableName, Table>, Error> {
        // The root namespace has other people's tables too, of other families most of all.
        let listings: &[&'static [&'static str]] = match place {
            Place::Overlay => &[&["-j", "list", "ruleset"]],
            Place::Root => &[
                &["-j", "list", "ruleset", "inet"],
                &["-j", "list", "ruleset", "netdev"],
            ],
        };
        let mut tables = BTreeMap::new();
        for arguments in listings {
            let output = self.output(namespace, arguments, String::new()).await?;
            if !output.status.success() {
                let stderr = text(&output.stderr);
                return Err(Error::Nft {
                    action: "list its tables".to_owned(),
                    stderr,
                });
            }
            let listing: Value = serde_json::from_slice(&output.stdout).map_err(Error::Listing)?;
            read_listing(&listing, place, &mut tables);
        }
        Ok(tables)
    }

    /// What the counters of our tables in a namespace have counted: packets, by name, of all tables together.
    pub(crate) async fn counters(
        &self,
        namespace: &Namespace,
    ) -> Result<BTreeMap<String, u64>, Error> {
        let arguments = &["-j", "list", "counters"];
        let output = self.output(namespace, arguments, String::new()).await?;
        if !output.status.success() {
            let stderr = text(&output.stderr);
            return Err(Error::Nft {
                action: "list its counters".to_owned(),
                stderr,
            });
        }
        let listing = serde_json::from_slice(&output.stdout).map_err(Error::Listing)?;
        Ok(read_counters(&listing))
    }
}

fn spawn(program: &Path, arguments: &[&str], input: &str) -> io::Result<Output> {
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(input.as_bytes()) {
            // It ended early, and its status says why.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
            _ => {}
        }
    }
    child.wait_with_output()
}

fn text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('^'));
    lines.take(4).collect::<Vec<_>>().join("; ")
}

/// The script that puts a table in the place of the one that is there.
pub(crate) fn write_table(name: &TableName, table: &Table) -> String {
    let mut script = format!(
        "table {name}\ndelete table {name}\ntable {name} {{\n{}",
        table.body
    );
    script.push_str(&format!("\tchain {DIGEST}{} {{ }}\n}}\n", table.digest));
    for (set, elements) in &table.sets {
        script.push_str(&elements_line("add", name, set, elements));
    }
    script
}

/// The script that changes elements in place.
pub(crate) fn change_elements(changes: &[ElementChange]) -> String {
    let mut script = String::new();
    for change in changes {
        script.push_str(&elements_line(
            "delete",
            &change.table,
            &change.set,
            &change.delete,
        ));
    }
    for change in changes {
        script.push_str(&elements_line(
            "add",
            &change.table,
            &change.set,
            &change.add,
        ));
    }
    script
}

fn elements_line(verb: &str, table: &TableName, set: &str, elements: &Set) -> String {
    if elements.is_empty() {
        return String::new();
    }
    let elements: Vec<_> = elements.iter().map(ToString::to_string).collect();
    format!(
        "{verb} element {table} {set} {{ {} }}\n",
        elements.join(", ")
    )
}

/// The script that removes a table, there or not.
pub(crate) fn delete_table(name: &TableName) -> String {
    format!("table {name}\ndelete table {name}\n")
}

fn read_listing(listing: &Value, place: Place, tables: &mut BTreeMap<TableName, Table>) {
    let objects = listing.get("nftables").and_then(Value::as_array);
    for object in objects.into_iter().flatten().filter_map(Value::as_object) {
        for (kind, object) in object {
            read_object(kind, object, place, tables);
        }
    }
}

fn read_counters(listing: &Value) -> BTreeMap<String, u64> {
    let mut counters = BTreeMap::new();
    let objects = listing.get("nftables").and_then(Value::as_array);
    for counter in objects
        .into_iter()
        .flatten()
        .filter_map(|it| it.get("counter"))
    {
        let ours = counter.get("table").and_then(Value::as_str) == Some(name::TABLE);
        let named = counter.get("name").and_then(Value::as_str);
        let packets = counter.get("packets").and_then(Value::as_u64);
        if let (true, Some(name), Some(packets)) = (ours, named, packets) {
            let sum = counters.entry(name.to_owned()).or_insert(0_u64);
            *sum = sum.saturating_add(packets);
        }
    }
    counters
}

fn read_object(
    kind: &str,
    object: &Value,
    place: Place,
    tables: &mut BTreeMap<TableName, Table>,
) -> Option<()> {
    let field = |name: &str| object.get(name).and_then(Value::as_str);
    let family = match field("family")? {
        "inet" => TableFamily::Inet,
        "bridge" => TableFamily::Bridge,
        "netdev" => TableFamily::Netdev,
        _ => return None,
    };
    let table_field = if kind == "table" { "name" } else { "table" };
    if field(table_field)? != name::TABLE {
        return None;
    }
    let table = tables.entry(TableName { place, family }).or_default();
    match kind {
        "chain" => {
            let digest = field("name")?.strip_prefix(DIGEST)?;
            table.digest = digest.to_owned();
        }
        "rule" => table.rules += 1,
        "set" | "map" => {
            let elements = object.get("elem").and_then(Value::as_array);
            let elements = elements
                .into_iter()
                .flatten()
                .filter_map(read_element)
                .collect();
            table.sets.insert(field("name")?.to_owned(), elements);
        }
        _ => {}
    }
    Some(())
}

fn read_element(element: &Value) -> Option<Element> {
    match element.as_array().map(Vec::as_slice) {
        Some([key, data]) => Some(Element {
            key: read_value(key)?,
            data: Some(read_value(data)?),
        }),
        Some(_) => None,
        None => Some(Element {
            key: read_value(element)?,
            data: None,
        }),
    }
}

fn read_value(value: &Value) -> Option<String> {
    if let Some(text) = value.as_str() {
        return Some(text.to_owned());
    }
    if let Some(number) = value.as_u64() {
        return Some(number.to_string());
    }
    let (kind, inner) = value.as_object()?.iter().next()?;
    match kind.as_str() {
        "concat" => {
            let fields = inner.as_array()?.iter().map(read_value);
            Some(fields.collect::<Option<Vec<_>>>()?.join(" . "))
        }
        "prefix" => {
            let address = inner.get("addr")?.as_str()?;
            Some(format!("{address}/{}", inner.get("len")?.as_u64()?))
        }
        "elem" => read_value(inner.get("val")?),
        _ => None,
    }
}
