//! What `stopInstance` and `terminateInstance` have in common: what must be out of the way, and what must not be lost.
//!
//! Whether an instance uses disks of its host (instance store) AWS does not show: its block device mappings list EBS volumes
//! only. `DescribeInstanceTypes` says whether its type has any: such an instance counts as one that has data there.
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/InstanceStorage.html>

use firebreak_crds::{ActionState, DetachMode, EndInstance};

use super::action::Merge;
use super::case::Case;
use super::detach_from_auto_scaling::{is_leaving, is_standing_by};
use super::plan::Verdict;
use crate::aws::{AwsError, Instance, Membership, Session};

/// What is observed. All but the instance is read only while something may be done to it.
#[derive(Clone, Debug, Default)]
pub struct Look {
    pub(super) instance: Option<Instance>,
    /// None: it is in no Auto Scaling group.
    pub(super) membership: Option<Membership>,
    /// Whether its type has disks of its host; None where AWS does not say.
    pub(super) store: Option<bool>,
    /// Whether its Spot request outlives it; of a Spot instance.
    pub(super) persistent: bool,
    /// Whether AWS refuses what is to be done, as the instance's own attribute says; None where that is not known.
    pub(super) protected: Option<bool>,
    /// For a dry run: what other actions do first has been done.
    pub(super) trusted: bool,
}

impl Look {
    /// The instance, with what may be in the way.
    pub(super) async fn at(aws: &Session, region: &str, instance: Instance) -> Result<Self, AwsError> {
        let persistent =
            async { if instance.spot { aws.has_persistent_spot_request(region, &instance.id).await } else { Ok(false) } };
        let (membership, store, persistent) =
            futures::join!(aws.membership(region, &instance.id), aws.has_instance_store(region, &instance.kind), persistent);
        let (membership, store, persistent) = (membership?, store?, persistent?);
        Ok(Self { instance: Some(instance), membership, store, persistent, ..Self::default() })
    }
}

/// What any holder takes on itself, it takes on itself for all: any of them could have gone alone. Where nobody asks any more,
/// nothing more is lost.
impl Merge for EndInstance {
    fn merge(&self, other: &Self) -> Self {
        let acknowledge_instance_store_loss = self.acknowledge_instance_store_loss || other.acknowledge_instance_store_loss;
        Self { acknowledge_instance_store_loss }
    }

    fn kept() -> Self {
        Self::default()
    }
}

/// What an Auto Scaling group would do: it takes an instance that does not run for broken, and ends it.
pub(super) fn in_a_group(case: &Case, look: &Look) -> Option<Verdict> {
    let now = look.membership.as_ref()?;
    let what = format!("{} in Auto Scaling group {}", now.state, now.group);
    let detaches = |d: &firebreak_crds::DetachFromAutoScaling| d.mode == DetachMode::Detach;
    let mut actions = case.holders.iter().flat_map(|h| &h.actions);
    let goes = actions.any(|a| a.detach_from_auto_scaling.as_ref().is_some_and(detaches)) && !is_standing_by(now);
    match goes {
        _ if is_leaving(now) => Some(Verdict::new(ActionState::InProgress, format!("it waits: {what}"))),
        true if look.trusted => None,
        true => Some(Verdict::new(ActionState::Failed, format!("not done before detachFromAutoScaling is: {what}"))),
        false => {
            let why = "the group would end or replace it; detachFromAutoScaling takes out what is in service";
            Some(Verdict::new(ActionState::Failed, format!("not done while the instance is {what}: {why}")))
        }
    }
}

/// What no snapshot keeps.
pub(super) fn loses_data(look: &Look, instance: &Instance, params: EndInstance) -> Option<Verdict> {
    let what = match look.store {
        _ if params.acknowledge_instance_store_loss => return None,
        _ if !instance.ebs_root => "its root is instance store".to_owned(),
        Some(false) => return None,
        Some(true) => format!("its type, {}, has disks of its host", instance.kind),
        None => format!("whether its type, {}, has disks of its host is not shown", instance.kind),
    };
    let why =
        format!("not done: {what}, whose data would be lost: acknowledgeInstanceStoreLoss: true in the policy lets it go");
    Some(Verdict::new(ActionState::Failed, why))
}

/// What the tests of both begin with.
#[cfg(test)]
pub(super) mod example {
    use super::{Case, EndInstance, Look};
    use crate::aws::Instance;
    use crate::containment::example::{self, end};

    pub fn params(acknowledge_instance_store_loss: bool) -> EndInstance {
        EndInstance { acknowledge_instance_store_loss }
    }

    /// Held with that action.
    pub fn case(action: &str) -> Case {
        let mut case = example::case(example::instance());
        case.holders = vec![example::holder("1", "inc-1", vec![end(action)])];
        case
    }

    /// An instance of volumes only, in no group, that nothing protects.
    pub fn look(state: &str) -> Look {
        let instance = Instance { id: "i-1".into(), state: state.into(), ebs_root: true, ..Instance::default() };
        Look { instance: Some(instance), store: Some(false), protected: Some(false), ..Look::default() }
    }

    pub fn with(change: impl FnOnce(&mut Look)) -> Look {
        let mut look = look("running");
        change(&mut look);
        look
    }
}
