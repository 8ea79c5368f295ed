//! Mistakes that a shell could make. The core cannot guard against them: each names something that the core leaves to
//! whoever calls it. The models make one at a time, and the searches must find what comes of it.
//!
//! This shows that the shell's part is needed, and that the searches are able to see it. That metasrv and the datanode
//! do their part is shown by their own tests (docs/proof.md has the list).

macro_rules! slips {
    ($($name:ident = $says:literal,)*) => {
        /// A mistake.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Slip {
            $(#[doc = $says] $name,)*
        }

        impl Slip {
            /// All of them.
            pub const ALL: &'static [Slip] = &[$(Slip::$name),*];

            /// Its name.
            pub fn name(self) -> &'static str {
                match self {
                    $(Slip::$name => stringify!($name),)*
                }
            }

            /// What is done wrong.
            pub fn says(self) -> &'static str {
                match self {
                    $(Slip::$name => $says,)*
                }
            }
        }
    };
}

slips! {
    Unfenced = "a write does not compare the fence",
    RevisionIgnored = "a write does not compare the revision of what it changes",
    UnknownIsFailed = "a write without an answer is taken for one that failed",
    GrantsWhileMoving = "a region is granted to its node while it is being given away",
    GrantsWhileRecording = "a process is granted leases while its successor is being recorded",
    DeadlineOnce = "leadership is not compared with the clock at the moment of a grant",
    ResignsWhileGranting = "a leader resigns and then stops granting",
    SuccessorKeepsEpoch = "a restarted process gets its predecessor's epoch",
    StopForgotten = "a process that was told to stop takes a later grant",
    LeaseFromAnswer = "a process counts its lease from the answer",
    LateAnswerGoesBack = "the answer to a change of a route overwrites what is known of a later one",
    ToldBeforeCommit = "a node is told to open a region before its route is committed",
}
