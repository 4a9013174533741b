//! What an action is: one way of containing one kind of resource.

use std::collections::BTreeMap;
use std::future::Future;

use firebreak_crds::Empty;

use super::case::Case;
use super::plan::Plan;
use super::whereabouts::exchanged;
use crate::aws::{AwsError, Call, Outcome, Session};

/// The parameters of an action.
pub trait Merge: Clone {
    /// The stricter of two: commutative, associative, and never weaker than either.
    #[must_use]
    fn merge(&self, other: &Self) -> Self;
    /// With what the action is kept in force when no holder asks for it any more.
    fn kept() -> Self;
}

impl Merge for Empty {
    fn merge(&self, _: &Self) -> Self {
        Self {}
    }

    fn kept() -> Self {
        Self {}
    }
}

/// When a release gives an action back. Each stage begins when all of the one before it is read back as released: so access comes
/// last, and no deny goes while a credential may still work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// What gives nobody access: credentials that stay off or sleep under the deny.
    Before,
    /// What runs again, isolated as it is.
    Start,
    /// Access: the network, the deny, who may assume the role.
    Access,
    /// What is for when access is decided: the metadata service, which hands out the role's credentials, and work: load balancers and Auto
    /// Scaling, which end what does not answer them. Protection goes with them: until here, nobody ends it.
    Service,
}

impl Stage {
    /// In their order.
    pub const ALL: [Self; 4] = [Self::Before, Self::Start, Self::Access, Self::Service];
}

/// One way of containing one kind of resource.
pub trait Action {
    /// The policy's field.
    const NAME: &'static str;
    /// When a release gives it back.
    const STAGE: Stage = Stage::Before;
    /// Its parameters.
    type Params: Merge + Send + Sync;
    /// What it observes.
    type Look: Send + Sync;

    /// The resource's tags, as the look shows them.
    fn tags(look: &Self::Look) -> Option<&BTreeMap<String, String>>;
    /// The unique id of the user whom the look shows: calls go by name.
    fn user(_: &Self::Look) -> Option<&str> {
        None
    }
    /// Whether a text is what the action records under one of its keys; `sub` is what comes after its name.
    ///
    /// # Errors
    /// Why it is not.
    fn check(sub: &str, text: &str) -> Result<(), String>;
    /// Reads AWS. `params` is None when releasing.
    fn look(
        aws: &Session,
        case: &Case,
        params: Option<&Self::Params>,
    ) -> impl Future<Output = Result<Self::Look, AwsError>> + Send;
    /// The next step; back where `params` is None. Pure.
    fn next(case: &Case, params: Option<&Self::Params>, look: &Self::Look) -> Plan {
        if let Some(again) = Self::user(look).and_then(|id| exchanged(case, id)) {
            return again;
        }
        match params {
            Some(params) => Self::contain(case, params, look),
            None => Self::release(case, look),
        }
    }
    /// The next step towards containment. Pure.
    fn contain(case: &Case, params: &Self::Params, look: &Self::Look) -> Plan;
    /// The next step back to what was there. Pure.
    fn release(case: &Case, look: &Self::Look) -> Plan;
    /// What a call that was accepted does to what was observed.
    fn after(look: &mut Self::Look, call: &Call, outcome: &Outcome);
    /// What is known of a call that was refused: another way may be left.
    fn refused(_: &mut Self::Look, _: &Call) {}
    /// For a dry run: takes what is expected for read.
    fn trust(_: &mut Self::Look) {}
}
