//! Data to stdout, everything else to stderr.
//!
//! A [`Row`] is one struct for all formats: serde makes the JSON of it, its columns make the table. There are no
//! colours, so that a terminal, a file and `NO_COLOR` get the same bytes.

use std::io::{ErrorKind, Write};

use comfy_table::{Table, presets};
use metasrv::clock::wall_clock_ms;
use serde::Serialize;

use crate::cli::Format;
use crate::exit::{Exit, Failure};

/// A column of a table.
pub struct Column<R> {
    /// Its heading.
    pub title: &'static str,
    /// Which formats have it.
    pub shown: Shown,
    /// A row's cell; the second argument is the present in milliseconds since 1970, for ages.
    pub cell: fn(&R, u64) -> String,
}

/// Which formats have a column.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shown {
    /// `table` and `wide`.
    Always,
    /// `wide` alone.
    Wide,
}

/// One item of a list. The names of its fields are a contract.
pub trait Row: Serialize + Sized + 'static {
    /// Its columns, from left to right.
    const COLUMNS: &'static [Column<Self>];
}

/// Prints a list: an array in JSON, an object per line in JSON lines.
pub fn print_list<R: Row>(rows: &[R], format: Format) -> Result<(), Failure> {
    print(&listed(rows, format)?)
}

/// A list as it is printed.
pub fn listed<R: Row>(rows: &[R], format: Format) -> Result<String, Failure> {
    list(rows, format, wall_clock_ms())
}

/// Prints one thing: an object in JSON, on one line in JSON lines, a table of one row for people.
pub fn print_one<R: Row>(row: &R, format: Format) -> Result<(), Failure> {
    match format {
        Format::Json | Format::Jsonl => print(&document(row, format)?),
        Format::Table | Format::Wide => print(&table(std::slice::from_ref(row), format, wall_clock_ms())),
    }
}

/// One thing as it is printed where it is more than a row: an object in JSON, and a page for people, which the second
/// argument makes of it; its second argument is the present in milliseconds since 1970.
pub fn shown<D: Serialize>(
    value: &D,
    page: impl FnOnce(&D, u64) -> String,
    format: Format,
) -> Result<String, Failure> {
    match format {
        Format::Json | Format::Jsonl => document(value, format),
        Format::Table | Format::Wide => Ok(page(value, wall_clock_ms())),
    }
}

/// A row as a page: each column on a line of its own, also those that tables have in wide only.
pub fn page<R: Row>(row: &R, now_ms: u64) -> Vec<(&'static str, String)> {
    R::COLUMNS.iter().map(|column| (column.title, (column.cell)(row, now_ms))).collect()
}

/// One thing as JSON.
pub fn document<D: Serialize>(value: &D, format: Format) -> Result<String, Failure> {
    let text = match format {
        Format::Jsonl => serde_json::to_string(value),
        _ => serde_json::to_string_pretty(value),
    };
    text.map(|text| text + "\n")
        .map_err(|error| Failure::new(Exit::Failed, format!("the answer cannot be written as JSON: {error}")))
}

/// A table for people.
pub fn table<R: Row>(rows: &[R], format: Format, now_ms: u64) -> String {
    let shown = |column: &&Column<R>| column.shown == Shown::Always || format == Format::Wide;
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(R::COLUMNS.iter().filter(shown).map(|column| column.title));
    for row in rows {
        table.add_row(R::COLUMNS.iter().filter(shown).map(|column| (column.cell)(row, now_ms)));
    }
    lines(&table)
}

/// Pairs of a name and a value, one below the other.
pub fn facts(facts: &[(&str, String)]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    for (name, value) in facts {
        table.add_row([*name, value.as_str()]);
    }
    lines(&table)
}

/// Writes data to stdout. A reader that closed its end, such as `head`, has all it wants.
pub fn print(text: &str) -> Result<(), Failure> {
    print_on(text).map(drop)
}

/// The same for a command that goes on: says whether somebody still reads.
pub fn print_on(text: &str) -> Result<bool, Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::new(Exit::Failed, format!("cannot write to stdout: {error}"))),
        Ok(()) => Ok(true),
    }
}

/// Says something to the person at the terminal. `eprintln!` would panic if nobody reads stderr any more.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn list<R: Row>(rows: &[R], format: Format, now_ms: u64) -> Result<String, Failure> {
    match format {
        Format::Json => document(&rows, format),
        Format::Jsonl => rows.iter().map(|row| document(row, format)).collect(),
        Format::Table | Format::Wide => Ok(table(rows, format, now_ms)),
    }
}

/// Without the blanks that fill the last column, and the one before the first.
fn lines(table: &Table) -> String {
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.strip_prefix(' ').unwrap_or(&line).trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Fruit {
        name: &'static str,
        weight: u64,
    }

    impl Row for Fruit {
        const COLUMNS: &'static [Column<Fruit>] = &[
            Column { title: "NAME", shown: Shown::Always, cell: |fruit, _| fruit.name.to_owned() },
            Column { title: "WEIGHT", shown: Shown::Wide, cell: |fruit, _| fruit.weight.to_string() },
            Column { title: "NOW", shown: Shown::Always, cell: |_, now| now.to_string() },
        ];
    }

    const BASKET: [Fruit; 2] = [Fruit { name: "fig", weight: 7 }, Fruit { name: "mango", weight: 300 }];

    fn listed(rows: &[Fruit], format: Format) -> String {
        list(rows, format, 9).expect("these can be written")
    }

    #[test]
    fn tables_are_columns_and_wide_ones_have_more_of_them() {
        assert_eq!(listed(&BASKET, Format::Table), "NAME   NOW\nfig    9\nmango  9\n");
        assert_eq!(listed(&BASKET, Format::Wide), "NAME   WEIGHT  NOW\nfig    7       9\nmango  300     9\n");
        assert_eq!(listed(&[], Format::Table), "NAME  NOW\n");
    }

    #[test]
    fn json_is_an_array_and_json_lines_are_objects() {
        let parsed: serde_json::Value = serde_json::from_str(&listed(&BASKET, Format::Json)).unwrap();
        assert_eq!(parsed[1]["weight"], 300);
        assert_eq!(listed(&[], Format::Json), "[]\n");
        let lines = listed(&BASKET, Format::Jsonl);
        assert_eq!(lines, "{\"name\":\"fig\",\"weight\":7}\n{\"name\":\"mango\",\"weight\":300}\n");
        assert_eq!(listed(&[], Format::Jsonl), "");
    }

    #[test]
    fn facts_stand_below_each_other() {
        let text = facts(&[("LEADER", "m1".to_owned()), ("TERM", "7".to_owned())]);
        assert_eq!(text, "LEADER  m1\nTERM    7\n");
    }
}
