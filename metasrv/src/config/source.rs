//! Where a setting's value comes from: flag, environment variable, file, default. The first that speaks decides.
//!
//! An unknown key in the file is an error: a misspelt key that is ignored is a setting that silently does not hold.
//! An unknown `METASRV_…` variable is an error only where it nearly is a known one, since orchestrators put variables
//! of their own (`METASRV_SERVICE_HOST`) into every process next to a service called `metasrv`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::Value as Toml;

use super::Problem;
use super::setting::{CONFIG_VARIABLE, Flags, SETTINGS, Setting};

/// Where a value came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// The command line.
    Flag,
    /// This environment variable.
    Environment(String),
    /// This file.
    File(PathBuf),
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Flag => f.write_str("flag"),
            Source::Environment(variable) => write!(f, "environment {variable}"),
            Source::File(path) => write!(f, "file {}", path.display()),
            Source::Default => f.write_str("default"),
        }
    }
}

/// A setting's text, and where it came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Value {
    /// As it was written.
    pub text: String,
    /// By whom.
    pub source: Source,
}

/// Every setting that has a value.
#[derive(Clone, Default, Debug)]
pub struct Settings {
    values: BTreeMap<&'static str, Value>,
}

impl Settings {
    /// The value of a setting.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.values.get(name)
    }

    /// Sets what follows from other settings, where nobody set it.
    pub fn derive(&mut self, name: &'static str, text: String) {
        self.values.entry(name).or_insert(Value { text, source: Source::Default });
    }

    /// How a problem names a setting: with its value and where that came from.
    pub fn subject(&self, name: &str) -> String {
        match self.get(name) {
            Some(Value { text, source }) => format!("{name} = {text:?} ({source})"),
            None => name.to_owned(),
        }
    }
}

/// The value that holds for every setting, and what is wrong already.
pub fn resolve(
    flags: &Flags,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> (Settings, Vec<Problem>) {
    let mut problems = Vec::new();
    let mut settings = Settings::default();
    for setting in SETTINGS {
        if let Some(default) = setting.default {
            settings.derive(setting.name, default.to_owned());
        }
    }
    let variables = read_environment(environment, &mut problems);
    let path = flags.config.clone().or_else(|| variables.get(CONFIG_VARIABLE).map(PathBuf::from));
    if let Some(path) = path {
        for (name, text) in read_file(&path, &mut problems) {
            settings.values.insert(name, Value { text, source: Source::File(path.clone()) });
        }
    }
    for setting in SETTINGS {
        let variable = setting.variable();
        if let Some(text) = variables.get(&variable) {
            let value = Value { text: text.clone(), source: Source::Environment(variable) };
            settings.values.insert(setting.name, value);
        }
        if let Some(text) = flags.values.get(setting.name) {
            settings.values.insert(setting.name, Value { text: text.clone(), source: Source::Flag });
        }
    }
    (settings, problems)
}

/// The `METASRV_…` variables that mean something. An empty one counts as absent, as is usual for the environment.
fn read_environment(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    problems: &mut Vec<Problem>,
) -> BTreeMap<String, String> {
    /// Edits between a misspelt variable and the one that was meant.
    const NEARLY: usize = 2;
    let mut known: Vec<String> = SETTINGS.iter().map(Setting::variable).collect();
    known.push(CONFIG_VARIABLE.to_owned());
    let mut variables = BTreeMap::new();
    for (name, value) in environment {
        let Some(name) = name.to_str().filter(|name| name.starts_with("METASRV_")) else { continue };
        let subject = format!("environment variable {name}");
        if known.iter().any(|known| known == name) {
            match value.into_string() {
                Ok(text) if text.is_empty() => {}
                Ok(text) => {
                    variables.insert(name.to_owned(), text);
                }
                Err(_) => problems.push(Problem { subject, rule: "is not valid UTF-8".to_owned() }),
            }
        } else if let Some(meant) =
            known.iter().find(|known| strsim::damerau_levenshtein(known, name) <= NEARLY)
        {
            problems.push(Problem { subject, rule: format!("is not known; did you mean {meant}?") });
        }
    }
    variables
}

fn read_file(path: &Path, problems: &mut Vec<Problem>) -> BTreeMap<&'static str, String> {
    let mut values = BTreeMap::new();
    let subject = format!("file {}", path.display());
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            problems.push(Problem { subject, rule: format!("cannot be read: {error}") });
            return values;
        }
    };
    let table = match text.parse::<toml::Table>() {
        Ok(table) => table,
        Err(error) => {
            problems
                .push(Problem { subject, rule: format!("is not TOML: {}", error.to_string().trim_end()) });
            return values;
        }
    };
    for (key, value) in table {
        let subject = format!("{key} (file {})", path.display());
        let Some(setting) = Setting::named(&key) else {
            let rule = match suggestion(&key) {
                Some(meant) => format!("is not a setting; did you mean {meant}?"),
                None => "is not a setting; `metasrv config show` lists them all".to_owned(),
            };
            problems.push(Problem { subject, rule });
            continue;
        };
        match text_of(&value) {
            Some(text) => {
                values.insert(setting.name, text);
            }
            None => {
                let rule = format!("must be text in quotes ({}), not {}", setting.value, value.type_str());
                problems.push(Problem { subject, rule });
            }
        }
    }
    values
}

/// Text, or a list of texts, which becomes a list with commas.
fn text_of(value: &Toml) -> Option<String> {
    match value {
        Toml::String(text) => Some(text.clone()),
        Toml::Array(parts) => {
            let parts: Option<Vec<&str>> = parts.iter().map(Toml::as_str).collect();
            parts.map(|parts| parts.join(","))
        }
        _ => None,
    }
}

/// The setting that was probably meant.
fn suggestion(key: &str) -> Option<&'static str> {
    /// Below this likeness a suggestion would only confuse.
    const ALIKE: f64 = 0.8;
    let key = key.replace('_', "-").to_lowercase();
    SETTINGS
        .iter()
        .map(|setting| (strsim::jaro_winkler(&key, setting.name), setting.name))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(values: &[(&'static str, &str)], config: Option<&Path>) -> Flags {
        Flags {
            config: config.map(Path::to_owned),
            values: values.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(),
        }
    }

    fn environment(values: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        values.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn the_flag_wins_over_environment_over_file_over_default() {
        let file = file("name = \"file\"\nprefix = \"/file\"\nregion-lease = \"9s\"\n");
        let flags = flags(&[("name", "flag")], Some(file.path()));
        let environment =
            environment(&[("METASRV_NAME", "env"), ("METASRV_PREFIX", "/env"), ("METASRV_HTTP_ADDR", "")]);
        let (settings, problems) = resolve(&flags, environment);
        assert_eq!(problems, vec![]);
        let found =
            |name: &str| settings.get(name).map(|value| (value.text.as_str(), value.source.to_string()));
        assert_eq!(found("name"), Some(("flag", "flag".to_owned())));
        assert_eq!(found("prefix"), Some(("/env", "environment METASRV_PREFIX".to_owned())));
        assert_eq!(found("region-lease"), Some(("9s", format!("file {}", file.path().display()))));
        assert_eq!(found("http-addr"), Some(("127.0.0.1:3003", "default".to_owned())));
        assert_eq!(found("embedded"), None);
    }

    #[test]
    fn what_is_unknown_is_reported_with_what_was_meant() {
        let file = file(
            "grpc_addr = \"1.2.3.4:1\"\nfrobnicate = 1\nname = 3\netcd-endpoints = [\"http://a:1\", \"http://b:2\"]\n",
        );
        let environment = environment(&[
            ("METASRV_CONFIG", file.path().to_str().unwrap()),
            ("METASRV_GRPC_ADR", "x"),
            ("METASRV_SERVICE_HOST", "10.0.0.1"),
            ("METASRV_PORT_3002_TCP", "tcp://10.0.0.1:3002"),
        ]);
        let (settings, problems) = resolve(&Flags::default(), environment);
        let problems: Vec<String> = problems.iter().map(Problem::to_string).collect();
        assert_eq!(problems.len(), 4, "{problems:#?}");
        assert_eq!(
            problems[0],
            "environment variable METASRV_GRPC_ADR: is not known; did you mean METASRV_GRPC_ADDR?"
        );
        assert!(
            problems.iter().any(|p| p.starts_with("grpc_addr") && p.ends_with("did you mean grpc-addr?"))
        );
        assert!(problems.iter().any(|p| p.starts_with("frobnicate") && p.contains("is not a setting")));
        assert!(problems.iter().any(|p| p.starts_with("name") && p.contains("not integer")));
        assert_eq!(settings.get("etcd-endpoints").unwrap().text, "http://a:1,http://b:2");
    }

    #[test]
    fn a_file_that_is_missing_or_is_not_toml_is_a_problem() {
        let (_, problems) = resolve(&flags(&[], Some(Path::new("/nonexistent.toml"))), []);
        assert!(
            problems[0].to_string().starts_with("file /nonexistent.toml: cannot be read"),
            "{problems:?}"
        );
        let file = file("name = ");
        let (_, problems) = resolve(&flags(&[], Some(file.path())), []);
        assert!(problems[0].to_string().contains("is not TOML"), "{problems:?}");
    }
}
