//! Goal: no region is taken while somebody may write to it. Method: the table of `failover.rs`, row by row; random facts
//! against each requirement by itself.

use proptest::prelude::*;

use super::*;

pub(super) const WAIT: Duration = Duration::from_millis(5_050);
pub(super) const EPOCH: Epoch = Epoch(4);

pub(super) fn at(millis: u64) -> BootTime {
    BootTime::from_millis(millis)
}

pub(super) fn process(epoch: u64) -> Incarnation {
    Incarnation { epoch, nonce: 7 }
}

fn tenure() -> Tenure {
    Tenure { incarnation: process(10), region: RegionId(1), epoch: EPOCH }
}

/// Granted at 3 s in this term; earlier terms are over at 2 s.
fn evidence() -> Evidence {
    Evidence {
        last_grant: Some(at(3_000)),
        grant_wait: WAIT,
        settled_at: at(2_000),
        certificate: None,
        stopped: None,
        fenced: None,
    }
}

fn released(evidence: &Evidence, now: u64) -> Release {
    release(Some(process(10)), RegionId(1), EPOCH, evidence, at(now))
}

pub(super) fn allowed(by: Ground) -> Release {
    Release::Allowed { by }
}

pub(super) fn reaped(epoch: u64) -> Option<Certificate> {
    Some(Certificate { ended: process(epoch), proof: Proof::Reaped })
}

#[test]
fn without_proof_it_waits_for_the_last_grant_and_for_earlier_terms() {
    let not_before = |at, why| Release::NotBefore { at, why };
    let table = [
        // last grant, settled at, free at, what is waited for
        (Some(3_000), 2_000, 8_050, Wait::OwnGrant),
        (Some(3_000), 8_050, 8_050, Wait::OwnGrant),
        (Some(3_000), 8_051, 8_051, Wait::EarlierTerms),
        (None, 2_000, 2_000, Wait::EarlierTerms),
        (Some(3_000), 0, 8_050, Wait::OwnGrant),
    ];
    for (last_grant, settled_at, free_at, why) in table {
        let evidence = Evidence { last_grant: last_grant.map(at), settled_at: at(settled_at), ..evidence() };
        assert_eq!(released(&evidence, 0), not_before(at(free_at), why), "{evidence:?}");
        assert_eq!(released(&evidence, free_at - 1), not_before(at(free_at), why), "{evidence:?}");
        assert_eq!(released(&evidence, free_at), allowed(Ground::RanOut), "{evidence:?}");
    }
    let nothing = Evidence { last_grant: None, settled_at: BootTime::ZERO, ..evidence() };
    assert_eq!(released(&nothing, 0), allowed(Ground::RanOut));
}

#[test]
fn a_certificate_of_this_process_allows_it_at_once() {
    let lock =
        |ended, by| Some(Certificate { ended: process(ended), proof: Proof::LockTaken { by: process(by) } });
    let newer = Proof::LockTaken { by: process(11) };
    assert_eq!(
        released(&Evidence { certificate: reaped(10), ..evidence() }, 3_000),
        allowed(Ground::Ended(Proof::Reaped)),
    );
    assert_eq!(
        released(&Evidence { certificate: lock(10, 11), ..evidence() }, 3_000),
        allowed(Ground::Ended(newer)),
    );
    let other_nonce = Certificate { ended: Incarnation { epoch: 10, nonce: 8 }, proof: Proof::Reaped };
    for certificate in [reaped(9), reaped(11), lock(9, 11), lock(10, 10), Some(other_nonce)] {
        let release = released(&Evidence { certificate, ..evidence() }, 8_049);
        assert!(matches!(release, Release::NotBefore { .. }), "{certificate:?}");
    }
}

#[test]
fn its_word_and_a_fenced_record_count_for_this_process_region_and_epoch_only() {
    let others = [
        Tenure { incarnation: process(9), ..tenure() },
        Tenure { region: RegionId(2), ..tenure() },
        Tenure { epoch: Epoch(3), ..tenure() },
        Tenure { epoch: Epoch(5), ..tenure() },
    ];
    let stopped = |tenure| Evidence { stopped: Some(tenure), ..evidence() };
    let fenced = |tenure| Evidence { fenced: Some(tenure), ..evidence() };
    assert_eq!(released(&stopped(tenure()), 3_000), allowed(Ground::Stopped));
    assert_eq!(released(&fenced(tenure()), 3_000), allowed(Ground::Fenced));
    for other in others {
        assert!(matches!(released(&stopped(other), 8_049), Release::NotBefore { .. }), "{other:?}");
        assert!(matches!(released(&fenced(other), 8_049), Release::NotBefore { .. }), "{other:?}");
    }
}

#[test]
fn where_no_process_was_ever_recorded_nobody_waits() {
    let release = release(None, RegionId(1), EPOCH, &evidence(), at(0));
    assert_eq!(release, allowed(Ground::NeverGranted));
}

prop_compose! {
    fn any_tenure()(epoch in 9_u64..12, region in 1_u64..3, under in 3_u64..6) -> Tenure {
        Tenure { incarnation: process(epoch), region: RegionId(region), epoch: Epoch(under) }
    }
}

prop_compose! {
    pub(super) fn any_evidence()(
        last_grant in proptest::option::of(0_u64..10_000), settled_at in 0_u64..20_000, wait in 0_u64..9_000,
        certificate in proptest::option::of((9_u64..12, proptest::option::of(9_u64..12))),
        stopped in proptest::option::of(any_tenure()), fenced in proptest::option::of(any_tenure()),
    ) -> Evidence {
        let certificate = certificate.map(|(ended, by)| {
            let proof = by.map_or(Proof::Reaped, |by| Proof::LockTaken { by: process(by) });
            Certificate { ended: process(ended), proof }
        });
        let (last_grant, settled_at) = (last_grant.map(at), at(settled_at));
        Evidence { last_grant, grant_wait: Duration::from_millis(wait), settled_at, certificate, stopped, fenced }
    }
}

proptest! {
    /// Without proof, never before any single requirement; with proof of the end, at once.
    #[test]
    fn never_earlier_than_any_requirement(evidence in any_evidence(), now in 0_u64..30_000) {
        let proved = evidence.certificate.is_some_and(|certificate| {
            certificate.ended == process(10) && certificate.proof != (Proof::LockTaken { by: process(10) })
        }) || evidence.stopped == Some(tenure()) || evidence.fenced == Some(tenure());
        let own_over = evidence.last_grant.is_none_or(|granted| at(now) >= granted + evidence.grant_wait);
        let over = own_over && at(now) >= evidence.settled_at;
        let release = released(&evidence, now);
        prop_assert_eq!(matches!(release, Release::Allowed { .. }), proved || over);
        if let Release::NotBefore { at: free_at, .. } = release {
            prop_assert!(free_at > at(now));
            let then = free_at.as_nanos() / 1_000_000;
            prop_assert_eq!(released(&evidence, then), allowed(Ground::RanOut), "and then it is");
        }
    }

    /// A later grant, a longer lease or a later settlement never shortens a wait.
    #[test]
    fn a_wait_is_only_ever_raised(evidence in any_evidence(), later in 0_u64..9_000, which in 0..3) {
        let by = Duration::from_millis(later);
        let mut more = evidence;
        match which {
            0 => more.last_grant = Some(more.last_grant.unwrap_or(BootTime::ZERO) + by),
            1 => more.grant_wait += by,
            _ => more.settled_at = more.settled_at + by,
        }
        match (released(&evidence, 0), released(&more, 0)) {
            (Release::NotBefore { at: before, .. }, Release::NotBefore { at: after, .. }) => {
                prop_assert!(after >= before);
            }
            (Release::NotBefore { .. }, after) => prop_assert!(false, "{after:?}"),
            (Release::Allowed { .. }, _) => {}
        }
    }
}
