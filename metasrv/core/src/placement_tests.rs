//! Goal: regions go where the policy says, the explanation is the policy, and rebalancing comes to rest. Method: tables;
//! random fleets, compared with a search that looks at everything.

use proptest::prelude::*;

use super::*;

fn candidate(node: u64, regions: usize) -> Candidate {
    Candidate::new(NodeId(node), regions)
}

fn labelled(node: u64, regions: usize, zone: &str, host: &str) -> Candidate {
    Candidate { zone: zone.to_owned(), host: host.to_owned(), ..candidate(node, regions) }
}

fn chosen(candidates: &[Candidate], count: usize) -> Vec<u64> {
    choose(candidates, count).unwrap().into_iter().map(|node| node.0).collect()
}

fn group(held: &[(u64, usize)]) -> Group {
    held.iter().map(|&(node, count)| (NodeId(node), count)).collect()
}

fn spread_out(candidates: &[Candidate], held: &[(u64, usize)], count: usize) -> Vec<u64> {
    let (mut placer, mut group) = (Placer::new(candidates), group(held));
    (0..count).map(|_| placer.place_in_group(&mut group, None).unwrap().0).collect()
}

#[test]
fn the_node_with_the_fewest_regions_is_chosen_region_by_region() {
    assert_eq!(chosen(&[candidate(1, 3), candidate(2, 0), candidate(3, 1)], 5), [2, 2, 3, 2, 3]);
}

#[test]
fn equal_nodes_are_chosen_in_the_order_of_their_ids() {
    assert_eq!(chosen(&[candidate(3, 0), candidate(1, 0), candidate(2, 0)], 4), [1, 2, 3, 1]);
}

#[test]
fn without_nodes_nothing_is_placed() {
    assert_eq!(choose(&[], 1), Err(NotEnough));
    assert_eq!(choose(&[], 0), Ok(vec![]));
    assert_eq!(choose(&[Candidate { weight: 0, ..candidate(1, 0) }], 1), Err(NotEnough));
}

#[test]
fn moves_under_way_count_as_done() {
    let busy = Candidate { incoming: 3, ..candidate(1, 0) };
    let leaving = Candidate { outgoing: 3, ..candidate(2, 4) };
    assert_eq!(chosen(&[busy, leaving, candidate(3, 2)], 4), [2, 2, 3, 1]);
}

#[test]
fn a_node_of_twice_the_weight_gets_twice_the_regions() {
    let strong = Candidate { weight: 200, ..candidate(2, 0) };
    assert_eq!(chosen(&[candidate(1, 0), strong], 6), [2, 1, 2, 2, 1, 2]);
}

#[test]
fn a_node_whose_restart_is_announced_takes_nothing_until_it_is_over() {
    let restarting = Candidate { is_restarting: true, ..candidate(1, 0) };
    assert_eq!(restarting.exclusion(None), Some(Exclusion::Restarting));
    assert_eq!(chosen(&[restarting.clone(), candidate(2, 50)], 2), [2, 2]);
    let lost = Candidate { reach: Reach::Lost, ..restarting.clone() };
    let cordoned = Candidate { duty: Duty::Cordoned, ..restarting.clone() };
    assert_eq!(lost.exclusion(None), Some(Exclusion::Lost));
    assert_eq!(cordoned.exclusion(None), Some(Exclusion::Cordoned), "that does not end by itself");
    let explained = explain(std::slice::from_ref(&restarting), &Group::new(), None);
    assert_eq!(explained[0].outcome.to_string(), "excluded: its restart is announced");
    let moves = rebalance(&[restarting, candidate(2, 50), candidate(3, 50)], &Limits::default());
    assert_eq!(moves, [], "loads are not evened out with one that is about to end");
}

#[test]
fn the_gravest_rule_excludes() {
    use {Duty::*, Reach::*};
    let table = [
        (Heard, Open, 1, None),
        (Heard, Open, 0, Some(Exclusion::NoCapacity)),
        (Heard, Cordoned, 0, Some(Exclusion::Cordoned)),
        (Heard, Draining, 100, Some(Exclusion::Draining)),
        (Suspect, Draining, 100, Some(Exclusion::Suspect)),
        (Lost, Cordoned, 0, Some(Exclusion::Lost)),
    ];
    for (reach, duty, weight, exclusion) in table {
        let candidate = Candidate { reach, duty, weight, ..candidate(1, 0) };
        assert_eq!(candidate.exclusion(None), exclusion, "{candidate:?}");
        assert_eq!(candidate.exclusion(Some(NodeId(2))), exclusion);
        assert_eq!(candidate.exclusion(Some(NodeId(1))), Some(Exclusion::Excepted));
        assert_eq!(Placer::new(std::slice::from_ref(&candidate)).place(None).is_some(), exclusion.is_none());
    }
    assert_eq!(Reach::from(&Health::Alive), Heard);
    assert_eq!(Reach::from(&Health::Suspect { phi: 9.0 }), Suspect);
    assert_eq!(Reach::from(&Health::Lost { since: crate::time::BootTime::ZERO }), Lost);
}

#[test]
fn a_group_is_spread_over_zones_then_hosts_then_nodes_whatever_the_load() {
    let fleet = [
        labelled(1, 90, "a", "a1"),
        labelled(2, 0, "a", "a1"),
        labelled(3, 50, "a", "a2"),
        labelled(4, 99, "b", "b1"),
    ];
    assert_eq!(spread_out(&fleet, &[], 6), [2, 4, 3, 4, 1, 4]);
    let drained =
        [Candidate { duty: Duty::Draining, ..fleet[0].clone() }, fleet[2].clone(), fleet[3].clone()];
    assert_eq!(
        spread_out(&drained, &[(1, 1)], 1),
        [4],
        "what a draining node holds is in its zone all the same"
    );
}

#[test]
fn a_node_without_a_host_label_is_a_host_of_its_own() {
    assert_eq!(spread_out(&[candidate(1, 0), candidate(2, 7)], &[(1, 1)], 3), [2, 1, 2]);
    let fleet = [candidate(1, 0), candidate(2, 0), labelled(3, 9, "", "x"), labelled(4, 0, "", "x")];
    assert_eq!(spread_out(&fleet[..3], &[(1, 1)], 1), [2], "2 is not on the host of 1");
    assert_eq!(spread_out(&[0, 2, 3].map(|index| fleet[index].clone()), &[(1, 1), (3, 1)], 1), [4]);
}

#[test]
fn regions_of_groups_and_others_know_of_one_another() {
    let fleet = [candidate(1, 0), candidate(2, 1), candidate(3, 9)];
    let (mut placer, mut group) = (Placer::new(&fleet), Group::new());
    assert_eq!(placer.place_in_group(&mut group, Some(NodeId(2))), Some(NodeId(1)));
    assert_eq!(placer.place_in_group(&mut group, Some(NodeId(2))), Some(NodeId(3)));
    assert_eq!(group, self::group(&[(1, 1), (3, 1)]));
    assert_eq!(placer.place(Some(NodeId(1))), Some(NodeId(2)));
    assert_eq!(placer.place(None), Some(NodeId(1)), "1 against 2: the one in the group counted");
    assert_eq!(placer.place(None), Some(NodeId(1)));
}

#[test]
fn the_explanation_names_the_rule_for_each_that_lost() {
    let fleet = [
        labelled(1, 0, "a", ""),
        labelled(2, 5, "b", "b1"),
        labelled(3, 4, "b", "b2"),
        labelled(4, 4, "b", "b2"),
        labelled(5, 0, "b", "b1"),
        Candidate { reach: Reach::Suspect, ..candidate(7, 0) },
        Candidate { duty: Duty::Cordoned, ..candidate(6, 0) },
    ];
    let explanations = explain(&fleet, &group(&[(1, 3), (5, 1)]), Some(NodeId(9)));
    let told: Vec<_> = explanations.iter().map(|e| format!("{}: {}", e.node, e.outcome)).collect();
    assert_eq!(
        told,
        [
            "3: chosen",
            "4: behind by: the lowest id among equals",
            "2: behind by: fewest regions of the group on a host",
            "5: behind by: fewest regions of the group on a host",
            "1: behind by: fewest regions of the group in a zone",
            "6: excluded: it is cordoned",
            "7: excluded: it is suspect",
        ],
    );
    let Outcome::Behind { score, .. } = explanations[3].outcome else { panic!("{explanations:?}") };
    let load = Load(1_000_000);
    assert_eq!(score, Score { in_zone: 1, on_host: 1, on_node: 1, load, node: NodeId(5) });
    assert_eq!(explain(&[], &Group::new(), None), []);
}

fn moves(candidates: &[Candidate], at_most: usize, tolerance_percent: u32) -> Vec<(u64, u64)> {
    let moves = rebalance(candidates, &Limits { at_most, tolerance_percent });
    moves.into_iter().map(|step| (step.from.0, step.to.0)).collect()
}

#[test]
fn rebalancing_moves_from_the_fullest_to_the_emptiest_and_rests_within_tolerance() {
    let fleet = [candidate(1, 10), candidate(2, 0), candidate(3, 5)];
    assert_eq!(moves(&fleet, 100, 0), [(1, 2); 5]);
    assert_eq!(moves(&fleet, 100, 20), [(1, 2); 4], "6 against 4: one region, and a fifth of 5");
    assert_eq!(moves(&fleet, 100, 60), [(1, 2); 3], "7 against 3: one region, and 60 % of 5");
    assert_eq!(moves(&fleet, 2, 0), [(1, 2); 2]);
    assert_eq!(moves(&fleet, 0, 0), []);
    assert_eq!(moves(&[candidate(1, 6), candidate(2, 5)], 100, 0), [], "one region more is even");
    assert_eq!(moves(&[candidate(1, 7), candidate(2, 5)], 100, 0), [(1, 2)]);
    assert_eq!(moves(&[candidate(1, 7)], 100, 0), []);
    assert_eq!(moves(&[candidate(1, 4), candidate(2, 4), candidate(3, 0)], 2, 0), [(1, 3), (2, 3)]);
}

#[test]
fn rebalancing_takes_from_whom_it_may_and_gives_to_whom_it_may() {
    let full = candidate(1, 9);
    let empty = candidate(2, 0);
    for reach in [Reach::Suspect, Reach::Lost] {
        assert_eq!(moves(&[Candidate { reach, ..full.clone() }, empty.clone()], 9, 0), []);
        assert_eq!(moves(&[full.clone(), Candidate { reach, ..empty.clone() }], 9, 0), []);
    }
    let cordoned = |node: &Candidate| Candidate { duty: Duty::Cordoned, ..node.clone() };
    assert_eq!(moves(&[full.clone(), cordoned(&empty)], 9, 0), []);
    assert_eq!(moves(&[cordoned(&full), empty.clone()], 9, 0), [(1, 2); 4]);
    assert_eq!(moves(&[Candidate { duty: Duty::Draining, ..full.clone() }, empty.clone()], 9, 0), []);
    let left = Candidate { outgoing: 9, incoming: 9, ..full.clone() };
    assert_eq!(moves(&[left, empty.clone()], 9, 0), [], "what is not there yet cannot leave");
    let strong = Candidate { weight: 200, ..empty.clone() };
    assert_eq!(moves(&[full.clone(), strong], 9, 0), [(1, 2); 6]);
    let retired = Candidate { weight: 0, ..full.clone() };
    assert_eq!(moves(&[retired, empty], 99, 10), [(1, 2); 9], "a weight of 0 wants no regions");
}

prop_compose! {
    fn any_candidate()(
        regions in 0_usize..60, incoming in 0_usize..4, outgoing in 0_usize..4, weight in 0_u32..300,
        zone in 0_u8..3, host in 0_u8..4, reach in 0_u8..8, duty in 0_u8..8,
    ) -> Candidate {
        Candidate {
            regions, incoming, outgoing: outgoing.min(regions), weight,
            zone: ["", "a", "b"][usize::from(zone)].to_owned(),
            host: ["", "x", "y", "z"][usize::from(host)].to_owned(),
            reach: match reach { 0 => Reach::Lost, 1 => Reach::Suspect, _ => Reach::Heard },
            duty: match duty { 0 => Duty::Draining, 1 => Duty::Cordoned, _ => Duty::Open },
            ..candidate(0, 0)
        }
    }
}

fn any_fleet() -> impl Strategy<Value = Vec<Candidate>> {
    proptest::collection::vec(any_candidate(), 0..12).prop_map(|mut fleet| {
        for (node, candidate) in (1..).zip(&mut fleet) {
            candidate.node = NodeId(node);
        }
        fleet
    })
}

proptest! {
    #[test]
    fn nodes_that_began_level_end_level(nodes in 1_u64..20, count in 0_usize..200) {
        let candidates: Vec<_> = (1..=nodes).map(|node| candidate(node, 7)).collect();
        let chosen = choose(&candidates, count).unwrap();
        let placed = |node: &Candidate| chosen.iter().filter(|chosen| **chosen == node.node).count();
        let most = candidates.iter().map(placed).max().unwrap();
        let least = candidates.iter().map(placed).min().unwrap();
        prop_assert!(most - least <= 1);
    }

    /// Each choice is the best of what a search over everything finds, is explained by the same score, and is never excluded.
    #[test]
    fn the_choice_is_the_explained_one(
        fleet in any_fleet(),
        steps in proptest::collection::vec((0_u64..14, any::<bool>()), 1..40),
    ) {
        let (mut placer, mut group, mut state) = (Placer::new(&fleet), Group::new(), fleet.clone());
        for (except, grouped) in steps {
            let except = Some(NodeId(except));
            let expected = explain(&state, if grouped { &group } else { const { &Group::new() } }, except);
            let choice = match grouped {
                true => placer.place_in_group(&mut group, except),
                false => placer.place(except),
            };
            let first = expected.first().filter(|first| matches!(first.outcome, Outcome::Chosen { .. }));
            prop_assert_eq!(choice, first.map(|first| first.node));
            prop_assert_eq!(expected.len(), fleet.len());
            if let Some(node) = choice {
                let taken = state.iter_mut().find(|candidate| candidate.node == node).unwrap();
                prop_assert_eq!(taken.exclusion(except), None);
                taken.incoming += 1;
            }
        }
    }

    /// The rule that is named is the first field that differs, so that the explanation is the order itself.
    #[test]
    fn the_rule_is_the_order(a in any::<[u8; 5]>(), b in any::<[u8; 5]>()) {
        let score = |of: [u8; 5]| {
            let of = of.map(|field| usize::from(field % 3));
            let (load, node) = (Load(of[3] as u64), NodeId(of[4] as u64));
            (of, Score { in_zone: of[0], on_host: of[1], on_node: of[2], load, node })
        };
        let ((fields_a, a), (fields_b, b)) = (score(a), score(b));
        let rules = [Rule::Zone, Rule::Host, Rule::Node, Rule::Load, Rule::Tie];
        let first = (0..5).find(|&field| fields_a[field] != fields_b[field]).unwrap_or(4);
        prop_assert_eq!(a.rule_against(&b), rules[first]);
        prop_assert_eq!(a < b, fields_a[first] < fields_b[first]);
    }

    /// Rebalancing ends within its limit, makes no detours, raises no maximum, and comes to rest.
    #[test]
    fn rebalancing_comes_to_rest(fleet in any_fleet(), at_most in 0_usize..40, percent in 0_u32..50) {
        let limits = Limits { at_most, tolerance_percent: percent };
        let steps = rebalance(&fleet, &limits);
        prop_assert!(steps.len() <= at_most);
        let (mut under_way, mut done) = (fleet.clone(), fleet.clone());
        for step in &steps {
            prop_assert!(!steps.iter().any(|other| other.to == step.from), "through {}", step.from);
            let index = |node: NodeId| fleet.iter().position(|candidate| candidate.node == node).unwrap();
            under_way[index(step.from)].outgoing += 1;
            under_way[index(step.to)].incoming += 1;
            done[index(step.from)].regions -= 1;
            done[index(step.to)].regions += 1;
        }
        let highest = |fleet: &[Candidate]| {
            fleet.iter().map(|c| Load::of(c.expected(), u64::from(c.weight))).max()
        };
        prop_assert!(highest(&done) <= highest(&fleet));
        if steps.len() < at_most {
            prop_assert_eq!(rebalance(&under_way, &limits), vec![]);
            if fleet.iter().all(|candidate| candidate.incoming == 0) {
                prop_assert_eq!(rebalance(&done, &limits), vec![]);
            }
        }
    }
}
