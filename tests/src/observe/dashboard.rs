//! The dashboard as code: panels are declared in `panels.rs`, and become the JSON that Grafana reads, deploy/grafana/metasrv.json.
//!
//! The file is kept in the repository, because compose and Kubernetes mount it. A test compares the two; `UPDATE_GOLDEN=1`
//! writes it anew.

use serde_json::{Value, json};

use super::panels::{ROWS, Row};

/// The width of a row, in Grafana's units.
const WIDTH: u64 = 24;

/// How a panel shows what it asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// One number.
    Number,
    /// Lines over time.
    Lines,
}

/// Whether a healthy cluster that is used has an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen {
    /// It has.
    Always,
    /// Only after something went wrong, or was asked for.
    Rarely,
}

/// One panel.
#[derive(Clone, Copy, Debug)]
pub struct Panel {
    /// Its title.
    pub title: &'static str,
    /// How it shows it.
    pub shape: Shape,
    /// Grafana's name of the unit.
    pub unit: &'static str,
    /// What to make of it, in a sentence.
    pub about: &'static str,
    /// What it asks, and how each line is called. `@` stands for the choice of the job, `[~]` for the interval of a rate.
    pub queries: &'static [(&'static str, &'static str)],
    /// Whether there is always an answer.
    pub seen: Seen,
}

/// A query as Grafana sends it, with its variables.
pub fn expression(query: &str) -> String {
    query.replace('@', "job=\"$job\"").replace("[~]", "[$__rate_interval]")
}

/// The same as Prometheus takes it: this job, this interval.
pub fn resolved(expression: &str, job: &str, interval: &str) -> String {
    expression.replace("$job", job).replace("$__rate_interval", interval)
}

/// The whole dashboard.
pub fn dashboard() -> Value {
    let mut panels = Vec::new();
    let (mut id, mut top) = (0, 0);
    for Row { title, panels: of_row } in ROWS {
        id += 1;
        panels.push(json!({
            "id": id, "type": "row", "title": title, "collapsed": false, "panels": [],
            "gridPos": {"x": 0, "y": top, "w": WIDTH, "h": 1},
        }));
        top += 1;
        let (mut left, mut height) = (0, 0);
        for panel in *of_row {
            let (w, h) = match panel.shape {
                Shape::Number => (4, 4),
                Shape::Lines => (8, 8),
            };
            if left + w > WIDTH || (height != 0 && height != h) {
                (left, top) = (0, top + height);
            }
            height = h;
            id += 1;
            panels.push(rendered(panel, id, json!({"x": left, "y": top, "w": w, "h": h})));
            left += w;
        }
        top += height;
    }
    json!({
        "uid": "metasrv",
        "title": "metasrv",
        "description": "Replicas of metasrv, as their own metrics show them. Made by tests/src/observe/dashboard.rs.",
        "tags": ["metasrv"],
        "schemaVersion": 39,
        "version": 1,
        "editable": true,
        "timezone": "browser",
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [
            {
                "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus",
                "hide": 0, "includeAll": false, "multi": false,
            },
            {
                "name": "job", "label": "Job", "type": "query", "datasource": source(),
                "query": {"query": "label_values(metasrv_build_info, job)", "refId": "job"},
                "current": {"text": "metasrv", "value": "metasrv"},
                "refresh": 2, "sort": 1, "hide": 0, "includeAll": false, "multi": false,
            },
        ]},
        "annotations": {"list": [{
            "name": "New terms", "datasource": source(), "enable": true, "iconColor": "orange",
            "expr": expression("changes(max(metasrv_term{@})[1m:10s]) > 0"), "titleFormat": "a new term",
        }]},
        "panels": panels,
    })
}

fn source() -> Value {
    json!({"type": "prometheus", "uid": "${datasource}"})
}

fn rendered(panel: &Panel, id: u64, place: Value) -> Value {
    let targets: Vec<Value> = panel
        .queries
        .iter()
        .zip('A'..='Z')
        .map(|((query, legend), letter)| {
            json!({
                "refId": letter.to_string(), "datasource": source(), "expr": expression(query),
                "legendFormat": legend, "instant": panel.shape == Shape::Number, "range": panel.shape == Shape::Lines,
            })
        })
        .collect();
    let (kind, options) = match panel.shape {
        Shape::Number => (
            "stat",
            json!({
                "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": false},
                "colorMode": "none", "graphMode": "none", "textMode": "auto",
            }),
        ),
        Shape::Lines => (
            "timeseries",
            json!({
                "legend": {"displayMode": "list", "placement": "bottom", "showLegend": true},
                "tooltip": {"mode": "multi", "sort": "desc"},
            }),
        ),
    };
    json!({
        "id": id, "type": kind, "title": panel.title, "description": panel.about, "datasource": source(),
        "gridPos": place, "targets": targets, "options": options,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
    })
}

/// Every expression of a dashboard, with the title of its panel.
pub fn expressions(dashboard: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let annotations = dashboard.pointer("/annotations/list").and_then(Value::as_array);
    for annotation in annotations.into_iter().flatten() {
        found.push((text(annotation, "name"), text(annotation, "expr")));
    }
    for panel in dashboard["panels"].as_array().into_iter().flatten() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            found.push((text(panel, "title"), text(target, "expr")));
        }
    }
    found
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}
