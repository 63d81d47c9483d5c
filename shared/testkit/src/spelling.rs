//! Other spellings of a call: whatever it asks for, the engine takes each of them for the same.

use serde_json::{Map, Value};

/// Objects that are maps to the engine: their names are what they are.
const MAPS: &[&str] = &[
    "Labels",
    "EndpointsConfig",
    "PortBindings",
    "Sysctls",
    "DriverOpts",
    "Options",
];
/// What every object may have in it without a meaning: `null` is as good as missing.
const NOTHING: &[&str] = &["\"Hostname\":null", "\"never heard of\" : null"];
/// Versions of the API that calls are made in.
const VERSIONS: &[&str] = &["", "/v1.24", "/v1.41", "/v1.51", "/v1.55"];

/// A source of choices: each is one of some numbers, in turn.
#[derive(Debug, Clone)]
pub struct Choices {
    numbers: Vec<u8>,
    next: usize,
}

impl Choices {
    /// Choices by these numbers; with none of them each is the first.
    #[must_use]
    pub const fn new(numbers: Vec<u8>) -> Self {
        Self { numbers, next: 0 }
    }

    /// Choices by a sequence that looks random, and is the same for the same seed (splitmix64).
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        let mut state = seed;
        let numbers = std::iter::repeat_with(|| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed.to_be_bytes()[0]
        });
        Self::new(numbers.take(509).collect())
    }

    /// One of so many.
    pub fn of(&mut self, count: u8) -> u8 {
        let place = self.next.checked_rem(self.numbers.len()).unwrap_or(0);
        self.next += 1;
        let number = self.numbers.get(place).copied().unwrap_or(0);
        number.checked_rem(count).unwrap_or(0)
    }

    /// One of these; `None` when there is none.
    pub fn one<'a, T>(&mut self, among: &'a [T]) -> Option<&'a T> {
        let count = u8::try_from(among.len()).unwrap_or(u8::MAX);
        among.get(usize::from(self.of(count)))
    }
}

/// Another spelling of a URI without a version: encoded letters, a version or none, another order of parameters, the absolute form.
#[must_use]
pub fn uri(uri: &str, choices: &mut Choices) -> String {
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let version = choices.one(VERSIONS).copied().unwrap_or_default();
    let mut out = encode(&format!("{version}{path}"), choices, true);
    if !query.is_empty() {
        let mut parts: Vec<String> = query
            .split('&')
            .map(|part| {
                let (key, value) = part.split_once('=').unwrap_or((part, ""));
                let key = encode(key, choices, false);
                format!("{key}={}", encode(value, choices, true))
            })
            .collect();
        if choices.of(2) == 1 {
            parts.reverse();
        }
        out = format!("{out}?{}", parts.join("&"));
    }
    match choices.of(4) {
        0 => format!("http://elsewhere{out}"),
        1 => format!("unix+Http://a:1{out}"),
        _ => out,
    }
}

fn encode(text: &str, choices: &mut Choices, slash: bool) -> String {
    let mut out = String::new();
    for (place, letter) in text.chars().enumerate() {
        let may = letter.is_ascii_alphanumeric() || (letter == '/' && slash && place > 0);
        match choices.of(6) {
            0 if may => out.push_str(&format!("%{:02x}", u32::from(letter))),
            1 if may => out.push_str(&format!("%{:02X}", u32::from(letter))),
            _ => out.push(letter),
        }
    }
    out
}

/// Another spelling of a body: cases of names, nulls, escapes, spaces.
#[must_use]
pub fn body(value: &Value, choices: &mut Choices) -> String {
    respell(value, false, choices)
}

fn respell(value: &Value, exact: bool, choices: &mut Choices) -> String {
    match value {
        Value::Object(map) => object(map, exact, choices),
        Value::Array(list) => {
            let parts: Vec<String> = list
                .iter()
                .map(|each| respell(each, false, choices))
                .collect();
            let space = if choices.of(2) == 0 { " " } else { "" };
            format!("[{}{space}]", parts.join(" , "))
        }
        Value::String(text) => quoted(text, choices),
        other => other.to_string(),
    }
}

fn object(map: &Map<String, Value>, exact: bool, choices: &mut Choices) -> String {
    let mut members: Vec<String> = Vec::new();
    for (key, value) in map {
        let name = if exact {
            key.clone()
        } else {
            recase(key, choices)
        };
        let is_map = MAPS.contains(&key.as_str()) || key == "Option";
        let name = quoted(&name, choices);
        members.push(format!("{name}: {}", respell(value, is_map, choices)));
    }
    if !exact && let Some(nothing) = NOTHING.get(usize::from(choices.of(4))) {
        members.push((*nothing).to_owned());
    }
    format!("{{{}}}", members.join(",\n"))
}

fn recase(key: &str, choices: &mut Choices) -> String {
    key.chars()
        .map(|letter| match choices.of(6) {
            0 => letter.to_ascii_lowercase(),
            1 => letter.to_ascii_uppercase(),
            2 if letter.eq_ignore_ascii_case(&'s') => 'ſ',
            3 if letter.eq_ignore_ascii_case(&'k') => '\u{212a}',
            _ => letter,
        })
        .collect()
}

fn quoted(text: &str, choices: &mut Choices) -> String {
    let mut out = String::from("\"");
    for letter in text.chars() {
        match choices.of(8) {
            0 => out.push_str(&format!("\\u{:04x}", u32::from(letter))),
            1 if letter == '/' => out.push_str("\\/"),
            _ => out.push(letter),
        }
    }
    out.push('"');
    out
}
