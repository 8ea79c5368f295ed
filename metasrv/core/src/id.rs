//! Identities. Each is a type of its own, so that a term is never passed where an epoch is meant.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

number!(
    /// Namespace of node ids, as public peers send it. Usually 0.
    ClusterId
);
number!(
    /// Id of a node within its cluster and role.
    NodeId
);
number!(
    /// Id of a region. Never used again once its region was dropped.
    RegionId
);
number!(
    /// A leader's number: raised in the first fenced transaction of every new leader. 0: none yet.
    Term
);
number!(
    /// A region's fencing number: raised in each transaction that changes who may write to it. 0: none.
    Epoch
);

impl Term {
    /// The term after this one.
    pub fn next(self) -> Term {
        Term(self.0.saturating_add(1))
    }
}

impl Epoch {
    /// The epoch after this one.
    pub fn next(self) -> Epoch {
        Epoch(self.0.saturating_add(1))
    }
}

/// What a node is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Role {
    /// Hosts regions.
    Datanode,
    /// Routes requests to datanodes.
    Frontend,
    /// Runs continuous computations (public peers only).
    Flownode,
}

impl Role {
    /// The role's name in keys, logs and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Role::Datanode => "datanode",
            Role::Frontend => "frontend",
            Role::Flownode => "flownode",
        }
    }

    /// The role with this name.
    pub fn from_name(name: &str) -> Option<Role> {
        [Role::Datanode, Role::Frontend, Role::Flownode].into_iter().find(|role| role.name() == name)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The whole name of a node: two nodes of different roles may share a number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeKey {
    /// What it is.
    pub role: Role,
    /// The namespace of its id.
    pub cluster: ClusterId,
    /// Its id.
    pub id: NodeId,
}

impl NodeKey {
    /// The key of a datanode.
    pub fn datanode(cluster: ClusterId, id: NodeId) -> NodeKey {
        NodeKey { role: Role::Datanode, cluster, id }
    }
}

impl fmt::Display for NodeKey {
    /// `datanode-3`, or `datanode-7/3` in a cluster other than 0.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.cluster.0 == 0 {
            write!(f, "{}-{}", self.role, self.id)
        } else {
            write!(f, "{}-{}/{}", self.role, self.cluster, self.id)
        }
    }
}

/// One process of a node: the order of creation first, a random number to tell equal ones apart.
///
/// `epoch` comes from a wall clock that may step back, so it orders incarnations but proves nothing about time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Incarnation {
    /// `node_epoch`: milliseconds since 1970 at the process's creation.
    pub epoch: u64,
    /// Random, chosen at the process's start. 0 from public peers.
    pub nonce: u64,
}

/// Proof of leadership in the store: "this key still exists with this create revision".
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fence {
    /// The leader's election key.
    pub key: String,
    /// The revision at which it was created.
    pub create_revision: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: what is stored under a role's name is found under it. Method: there and back; unknown names are nobody's.
    #[test]
    fn a_role_has_a_name_and_the_name_its_role() {
        for (role, name) in
            [(Role::Datanode, "datanode"), (Role::Frontend, "frontend"), (Role::Flownode, "flownode")]
        {
            assert_eq!(role.name(), name);
            assert_eq!(Role::from_name(name), Some(role));
        }
        assert_eq!(Role::from_name("datanodes"), None);
    }
}
