//! Where settings come from, and merging them into one text a setting.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use drover_model::nearest;
use figment::providers::{Format as _, Toml};
use figment::value::{Dict, Map, Num, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::Fault;
use super::read::NAMES;

/// The configuration file that is read when none is named.
pub const DEFAULT_CONFIG: &str = "/etc/drover/drover.toml";
/// The variable that names the configuration file.
pub(super) const CONFIG_VARIABLE: &str = "DROVER_CONFIG";
/// How our variables begin.
const PREFIX: &str = "DROVER_";

/// What was said on the command line.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--config`: this file, which must be there.
    pub config: Option<PathBuf>,
    /// Settings by their dotted names, as texts.
    pub values: BTreeMap<&'static str, String>,
}

/// A setting as a text, and where it was found.
pub(super) struct Given {
    pub(super) text: String,
    pub(super) place: String,
}

/// What all sources say.
#[derive(Default)]
pub(super) struct Gathered {
    pub(super) values: BTreeMap<&'static str, Given>,
    pub(super) faults: Vec<Fault>,
}

/// The variable of a setting: `pools.prefix` is `DROVER_POOLS_PREFIX`.
pub(super) fn variable(name: &str) -> String {
    format!("{PREFIX}{}", name.replace('.', "_").to_ascii_uppercase())
}

/// The flag of a setting.
fn flag(name: &str) -> String {
    format!("--{}", name.replace(['.', '_'], "-"))
}

/// Settings as texts from one source that has no structure.
struct Layer(&'static str, Dict);

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.0)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.1.clone()))
    }
}

const FLAGS: &str = "flags";
const VARIABLES: &str = "variables";

pub(super) fn gather(
    overrides: &Overrides,
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Gathered {
    let mut gathered = Gathered::default();
    let (named_config, variables) = sort_variables(variables, &mut gathered.faults);
    let named = overrides.config.clone().or(named_config);
    if let Some(path) = named
        .as_ref()
        .filter(|path| !path.exists() || path.is_dir())
    {
        gathered.faults.push(Fault {
            setting: "config".to_owned(),
            problem: format!("is `{}`, which is no file that can be read", path.display()),
        });
    }
    let config = named.unwrap_or_else(|| DEFAULT_CONFIG.into());
    let flags = overrides.values.iter();
    let flags = flags.fold(Dict::new(), |flags, (name, text)| nest(flags, name, text));
    let file = if config.exists() {
        Figment::from(Toml::file_exact(&config))
    } else {
        Figment::new()
    };
    let merged = file
        .merge(Layer(VARIABLES, variables))
        .merge(Layer(FLAGS, flags));
    match merged.data() {
        Ok(data) => {
            for dict in data.into_values() {
                flatten(&merged, "", dict, &mut gathered);
            }
        }
        Err(errors) => gathered
            .faults
            .extend(errors.into_iter().map(|error| Fault {
                setting: "config".to_owned(),
                problem: format!(
                    "is `{}`, which is not TOML: {}",
                    config.display(),
                    error.kind
                ),
            })),
    }
    gathered
}

/// Puts `text` at the dotted `name`, which has at most one dot.
fn nest(mut into: Dict, name: &str, text: &str) -> Dict {
    let value = Value::from(text.to_owned());
    match name.split_once('.') {
        None => {
            into.insert(name.to_owned(), value);
        }
        Some((section, key)) => {
            let mut inner = match into.remove(section) {
                Some(Value::Dict(_, inner)) => inner,
                _ => Dict::new(),
            };
            inner.insert(key.to_owned(), value);
            into.insert(section.to_owned(), Value::from(inner));
        }
    }
    into
}

/// Our variables as settings, and the configuration file if one is named. Other `DROVER_` variables
/// are left alone unless they look like a slip of the pen.
fn sort_variables(
    variables: impl Iterator<Item = (OsString, OsString)>,
    faults: &mut Vec<Fault>,
) -> (Option<PathBuf>, Dict) {
    let known: BTreeMap<String, &str> = NAMES.iter().map(|name| (variable(name), *name)).collect();
    let candidates: Vec<&str> = known.keys().map(String::as_str).collect();
    let (mut config, mut settings) = (None, Dict::new());
    for (variable, value) in variables {
        let Some(variable) = variable.to_str().filter(|name| name.starts_with(PREFIX)) else {
            continue;
        };
        if value.is_empty() {
            continue;
        }
        if variable == CONFIG_VARIABLE {
            config = Some(PathBuf::from(value));
        } else if let Some(name) = known.get(variable) {
            settings = nest(settings, name, &value.to_string_lossy());
        } else if let Some(near) =
            nearest(variable, &candidates).filter(|near| is_slip(variable, near))
        {
            faults.push(Fault {
                setting: variable.to_owned(),
                problem: format!("is no variable of Drover: did you mean `{near}`"),
            });
        }
    }
    (config, settings)
}

/// Whether a name differs from another as little as by a slip of the pen.
fn is_slip(given: &str, meant: &str) -> bool {
    strsim::damerau_levenshtein(given, meant) <= 2
}

fn flatten(figment: &Figment, prefix: &str, dict: Dict, gathered: &mut Gathered) {
    for (key, value) in dict {
        let name = if prefix.is_empty() {
            key
        } else {
            format!("{prefix}.{key}")
        };
        let tag = value.tag();
        match value {
            Value::Dict(_, inner) if NAMES.iter().any(|known| is_section(known, &name)) => {
                flatten(figment, &name, inner, gathered);
            }
            other => match NAMES.iter().find(|known| **known == name) {
                Some(known) => {
                    let place = place(figment.get_metadata(tag), known);
                    let text = text_of(&other);
                    gathered.values.insert(known, Given { text, place });
                }
                None => gathered.faults.push(unknown(name)),
            },
        }
    }
}

fn is_section(known: &str, name: &str) -> bool {
    known
        .split_once('.')
        .is_some_and(|(section, _)| section == name)
}

fn unknown(name: String) -> Fault {
    let key = name.rsplit('.').next();
    // The right key in the wrong section is the likeliest slip.
    let moved = NAMES.iter().find(|known| known.rsplit('.').next() == key);
    let meant = moved.copied().or_else(|| nearest(&name, NAMES));
    let problem = match meant {
        Some(meant) => format!("is no setting, did you mean `{meant}`"),
        None => format!("is no setting; the settings are {}", NAMES.join(", ")),
    };
    Fault {
        setting: name,
        problem,
    }
}

fn place(metadata: Option<&Metadata>, name: &str) -> String {
    let Some(metadata) = metadata else {
        return "the configuration".to_owned();
    };
    match metadata.name.as_ref() {
        FLAGS => flag(name),
        VARIABLES => variable(name),
        _ => {
            let file = metadata
                .source
                .as_ref()
                .and_then(|source| source.file_path());
            file.map_or_else(|| "the file".to_owned(), |file| file.display().to_string())
        }
    }
}

/// A value as a person would write it in a variable: lists with commas.
fn text_of(value: &Value) -> String {
    match value {
        Value::String(_, text) => text.clone(),
        Value::Char(_, letter) => letter.to_string(),
        Value::Bool(_, value) => value.to_string(),
        Value::Num(_, number) => number_text(*number),
        Value::Array(_, items) => items.iter().map(text_of).collect::<Vec<_>>().join(","),
        Value::Empty(..) => String::new(),
        Value::Dict(..) => "a table".to_owned(),
    }
}

fn number_text(number: Num) -> String {
    let integer = number.to_i128().map(|number| number.to_string());
    let unsigned = || number.to_u128().map(|number| number.to_string());
    let float = || number.to_f64().map(|number| number.to_string());
    integer.or_else(unsigned).or_else(float).unwrap_or_default()
}
