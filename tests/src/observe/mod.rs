//! What an operator looks at, and what calls one: the dashboard, the alert rules, the runbook, held against the binaries.
//!
//! | file | what |
//! | --- | --- |
//! | `dashboard.rs` | the dashboard: rows, panels, and the JSON that Grafana reads |
//! | `panels.rs` | every panel: what it asks, and what it shows |
//! | `queries.rs` | whether a query asks for metrics and labels that exist |
//! | `runbook.rs` | whether each alert has its section, and the section what it must have |
//! | `prometheus.rs` | promtool, and a Prometheus of one's own for a test |

pub mod dashboard;
pub mod panels;
pub mod prometheus;
pub mod queries;
pub mod runbook;
