//! Whether what is stored fits together: `metactl fsck`. Everything is read at one revision, so that what is found was so at
//! one moment; nothing is changed.
//!
//! | file | what is checked |
//! | --- | --- |
//! | `check.rs` | each key follows the scheme, and its record can be read |
//! | `check/ground.rs` | what the records are compared with: terms, nodes, region ids |
//! | `check/record.rs` | each record alone against that ground |
//! | `check/procedures.rs` | procedures against routes, and against each other |
//!
//! Only what never holds in a sound store is a finding, not even for a moment while a leader is at work: what it changes in two
//! transactions is not expected to fit in between.
//!
//! It costs memory for all that is stored, once: about 30 MB for 100,000 regions.

mod ground;
mod procedures;
mod record;
#[cfg(test)]
mod tests;

use metasrv_proto::admin::{CheckStoreResponse, Finding};
use tonic::Status;

use crate::keys::Keys;
use crate::store::{Page, Store};
use ground::Ground;
use record::Checked;

/// The most that one answer names; one more says how many there are.
const MOST: usize = 1_000;

/// Reads everything and checks it.
///
/// # Errors
/// `UNAVAILABLE` where the store cannot be read. What is found is no error.
pub async fn check_store(store: &dyn Store, keys: &Keys) -> Result<CheckStoreResponse, Status> {
    let page = store.list(&keys.all()).await;
    let page =
        page.map_err(|error| Status::unavailable(format!("what is stored cannot be read: {error}")))?;
    Ok(check(keys, &page))
}

fn check(keys: &Keys, page: &Page) -> CheckStoreResponse {
    let mut findings = Findings::default();
    let ground = Ground::of(keys, page, &mut findings);
    let mut checked = Checked::new(keys, &ground, &mut findings);
    for stored in &page.records {
        checked.record(stored);
    }
    let Checked { routes, procedures, .. } = checked;
    procedures::check(&ground, &routes, &procedures, &mut findings);
    CheckStoreResponse {
        revision: u64::try_from(page.revision).unwrap_or_default(),
        records: u64::try_from(page.records.len()).unwrap_or(u64::MAX),
        findings: findings.into_list(),
    }
}

/// What does not fit, in the order in which it was found.
#[derive(Default)]
struct Findings {
    named: Vec<Finding>,
    unnamed: usize,
}

impl Findings {
    fn add(&mut self, key: &str, what: impl Into<String>) {
        if self.named.len() < MOST {
            self.named.push(Finding { key: key.to_owned(), what: what.into() });
        } else {
            self.unnamed = self.unnamed.saturating_add(1);
        }
    }

    fn into_list(self) -> Vec<Finding> {
        let Findings { mut named, unnamed } = self;
        if unnamed > 0 {
            named.push(Finding { key: String::new(), what: format!("{unnamed} more were found") });
        }
        named
    }
}
