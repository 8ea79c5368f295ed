//! Figures: a line each on standard output, and all of them in one JSON file. Their names are stable.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Number, Value};

use crate::binaries::target_directory;

/// The figures of one command.
#[derive(Default)]
pub struct Figures {
    values: BTreeMap<String, Value>,
}

impl Figures {
    /// Prints a figure and keeps it.
    pub fn add(&mut self, name: &str, value: f64, unit: &str) {
        // What has no fraction is printed without one.
        let number = if value.fract() == 0.0 {
            println!("figure {name} {value:.0} {unit}");
            Number::from_f64(value).and_then(|_| format!("{value:.0}").parse::<i64>().ok()).map(Number::from)
        } else {
            println!("figure {name} {value:.3} {unit}");
            format!("{value:.3}").parse::<f64>().ok().and_then(Number::from_f64)
        };
        self.values.insert(name.to_owned(), number.map_or(Value::Null, Value::Number));
    }

    /// Writes them to `figures/COMMAND.json` in the target directory and says where that is.
    pub fn write(&self, command: &str) -> std::io::Result<PathBuf> {
        let directory = target_directory().join("figures");
        std::fs::create_dir_all(&directory)?;
        let path = directory.join(format!("{command}.json"));
        let mut text = serde_json::to_string_pretty(&self.values)?;
        text.push('\n');
        std::fs::write(&path, text)?;
        Ok(path)
    }
}
