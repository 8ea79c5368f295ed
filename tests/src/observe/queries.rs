//! Whether a query asks for metrics that a replica has, by labels that they have.

use std::collections::{BTreeMap, BTreeSet};

/// What Prometheus itself adds, and what only a histogram's buckets have.
const ADDED: [&str; 3] = ["job", "instance", "le"];

/// The metrics that replicas announce: name and type, off a page of `/metrics`.
pub fn announced(page: &str) -> BTreeMap<String, String> {
    let lines = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    lines
        .filter_map(|line| line.split_once(' '))
        .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
        .collect()
}

/// What is wrong with this query: a sentence for each metric of ours that does not exist, and for each label that none
/// of its metrics has. `labels` are those of each metric.
pub fn findings(
    query: &str,
    announced: &BTreeMap<String, String>,
    labels: &BTreeMap<String, BTreeSet<String>>,
) -> Vec<String> {
    let mut found = Vec::new();
    let mut has: BTreeSet<&str> = ADDED.into();
    for word in words(query).filter(|word| word.starts_with("metasrv_")) {
        let name = match family(word, announced) {
            Ok(name) => name,
            Err(why) => {
                found.push(format!("{query}: {why}"));
                continue;
            }
        };
        has.extend(labels.get(name).into_iter().flatten().map(String::as_str));
    }
    for label in used(query) {
        if !has.contains(label) {
            found.push(format!("{query}: none of its metrics has a label {label}"));
        }
    }
    found
}

/// The metric that a series belongs to: a histogram's are its own name and an ending.
fn family<'a>(series: &'a str, announced: &BTreeMap<String, String>) -> Result<&'a str, String> {
    match announced.get(series).map(String::as_str) {
        Some("histogram") => {
            return Err(format!("{series} is a histogram: ask for its buckets, sum or count"));
        }
        Some(_) => return Ok(series),
        None => {}
    }
    let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| series.strip_suffix(end));
    match of_histogram.filter(|name| announced.get(*name).is_some_and(|kind| kind == "histogram")) {
        Some(name) => Ok(name),
        None => Err(format!("there is no metric {series}")),
    }
}

/// The labels by which a query selects or groups.
fn used(query: &str) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    for selector in query.split('{').skip(1).filter_map(|rest| rest.split('}').next()) {
        for matcher in selector.split("\",") {
            let label = matcher.split(['=', '!', '~']).next().unwrap_or_default().trim();
            found.insert(label);
        }
    }
    for keyword in ["by (", "on (", "by(", "on("] {
        for (at, _) in query.match_indices(keyword) {
            let before = query[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
                continue;
            }
            let list = query[at + keyword.len()..].split(')').next().unwrap_or_default();
            found.extend(list.split(',').map(str::trim));
        }
    }
    found.remove("");
    found
}

fn words(query: &str) -> impl Iterator<Item = &str> {
    query.split(|c: char| !c.is_alphanumeric() && c != '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_or_a_label_that_does_not_exist_is_found() {
        let kinds = [("metasrv_a_total", "counter"), ("metasrv_b_seconds", "histogram")];
        let announced = announced(
            &kinds.map(|(name, kind)| format!("# HELP x\n# TYPE {name} {kind}\n{name} 1\n")).concat(),
        );
        assert_eq!(announced.len(), 2);
        let labels = BTreeMap::from([("metasrv_a_total".to_owned(), BTreeSet::from(["role".to_owned()]))]);
        let wrong = |query: &str| findings(query, &announced, &labels).join("\n");
        assert_eq!(wrong("sum by (role) (rate(metasrv_a_total{job=\"x\",role!=\"a,b\"}[5m]))"), "");
        assert_eq!(wrong("histogram_quantile(0.9, sum by (le) (rate(metasrv_b_seconds_bucket[5m])))"), "");
        assert!(wrong("metasrv_a").contains("no metric metasrv_a"));
        assert!(wrong("metasrv_a_total_bucket").contains("no metric metasrv_a_total_bucket"));
        assert!(wrong("rate(metasrv_b_seconds[5m])").contains("is a histogram"));
        assert!(wrong("sum by (code) (metasrv_a_total)").contains("label code"));
        assert!(wrong("metasrv_a_total{job=\"x\",rule=\"y\"}").contains("label rule"));
        assert!(wrong("metasrv_a_total == on (inst) metasrv_a_total").contains("label inst"));
    }
}
