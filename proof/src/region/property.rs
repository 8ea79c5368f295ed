//! What must always be so, and what must be seen to happen: bounds in which nobody ever leads prove nothing.
//!
//! The numbers are those of design 08.

use stateright::Property;

use super::Region;
use super::world::{Broken, World};

/// All that apply within the bounds of this model.
pub fn all(model: &Region) -> Vec<Property<Region>> {
    let happens = model.bounds.happens;
    let mut all = vec![
        Property::always("I1 one writer", |_, world: &World| writers(world).count() <= 1),
        Property::always("I2 a writer's epoch was given to its node", |model: &Region, world: &World| {
            writers(world)
                .all(|(at, epoch)| world.store.given_to(epoch).as_ref() == model.bounds.processes.get(at))
        }),
        Property::always("I2 one process per epoch", |_, world: &World| {
            let held =
                |at: usize| world.processes.get(at).map(|process| process.epoch).filter(|epoch| *epoch > 0);
            (0..world.processes.len())
                .all(|one| (0..one).all(|other| held(one).is_none() || held(one) != held(other)))
        }),
        Property::always("I3 no write without the fence", |_, world: &World| {
            world.broken != Some(Broken::WithoutFence)
        }),
        Property::always("I4 a route's epoch only rises", |_, world: &World| {
            world.broken != Some(Broken::EpochNotRaised)
        }),
        Property::always("I6 no grant after the deadline", |_, world: &World| {
            world.broken != Some(Broken::GrantedTooLate)
        }),
        Property::always("I7 no right that was not granted", |_, world: &World| {
            world.broken != Some(Broken::NotGranted)
        }),
        Property::always("I7 no right outlives what the leader waits for", |_, world: &World| {
            world.broken != Some(Broken::TakenTooSoon)
        }),
        Property::always("I8 nobody holds an epoch that is not committed", |_, world: &World| {
            world.processes.iter().all(|process| process.epoch <= world.store.route.epoch)
        }),
        Property::sometimes("a region is written", |_, world: &World| writers(world).next().is_some()),
    ];
    if model.bounds.terms > 1 {
        all.push(Property::sometimes("a region is written in a later term", |_, world: &World| {
            writers(world).next().is_some() && leading_terms(world).any(|term| term > 1)
        }));
    }
    if model.bounds.processes.contains(&1) {
        all.push(Property::sometimes("a region moved, and is written", |model: &Region, world: &World| {
            written_by(model, world, 1)
        }));
    }
    if model.bounds.terms > 1 && model.bounds.processes.contains(&1) {
        all.extend([
            Property::sometimes(
                "a region moved, and is written under a later term",
                |model: &Region, world: &World| {
                    written_by(model, world, 1) && leading_terms(world).any(|term| term > 1)
                },
            ),
            Property::sometimes(
                "a transaction is done that its sender does not know of",
                |_, world: &World| {
                    world.replicas.iter().any(|replica| {
                        replica.leader.is_none()
                            && replica.moving.is_some_and(|flight| flight.fate == super::world::Fate::Done)
                    })
                },
            ),
        ]);
    }
    if model.bounds.processes.iter().filter(|node| **node == 0).count() > 1 {
        all.push(Property::sometimes(
            "a restarted process got its region back",
            |model: &Region, world: &World| {
                writers(world).any(|(at, epoch)| {
                    let is_first = model.bounds.processes.iter().position(|node| *node == 0) == Some(at);
                    model.bounds.processes.get(at) == Some(&0) && !is_first && epoch > 1
                })
            },
        ));
    }
    if happens.resigns {
        all.push(Property::sometimes("a leader follows one that resigned", |_, world: &World| {
            leading_terms(world).any(|term| world.store.has_resigned(term.saturating_sub(1)))
        }));
    }
    all
}

/// The processes that may write now, with their epochs.
fn writers(world: &World) -> impl Iterator<Item = (usize, u8)> {
    world.processes.iter().enumerate().filter_map(|(at, process)| Some((at, process.writes()?)))
}

/// Whether a process of this node may write.
fn written_by(model: &Region, world: &World, node: u8) -> bool {
    writers(world).any(|(at, _)| model.bounds.processes.get(at) == Some(&node))
}

/// The terms of those who lead now.
fn leading_terms(world: &World) -> impl Iterator<Item = u8> {
    let leaders = world.replicas.iter().filter_map(|replica| replica.leader.as_ref());
    leaders.filter(|leader| leader.leads()).map(|leader| leader.term)
}
