//! Several holders, and policies that change: of every action of the one list.

use std::collections::BTreeSet;
use std::fmt::Debug;

use firebreak_crds::{
    ContainAction, DetachFromAutoScaling, DetachMode, Empty, EndInstance, Holder, HolderState, IsolateNetwork,
    ReleasePolicy, SeverTrackedConnections,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::Union;
use proptest::test_runner::TestRunner;

use super::config;
use super::ending::endings;
use super::network::isolations;
use super::scaling::detachments;
use crate::containment::action::Merge;
use crate::containment::isolate_network::Allowed;
use crate::containment::{merge_release, wanted};

/// The parameters of an action. A new kind of them needs this, or the one list of actions does not compile.
pub trait Sample: Merge + Debug + Sized + 'static {
    /// Any of them.
    fn sample() -> BoxedStrategy<Self>;
    /// Whether they contain no less than others.
    fn is_as_strict_as(&self, other: &Self) -> bool;
}

impl Sample for Empty {
    fn sample() -> BoxedStrategy<Self> {
        Just(Self {}).boxed()
    }

    fn is_as_strict_as(&self, _: &Self) -> bool {
        true
    }
}

impl Sample for IsolateNetwork {
    fn sample() -> BoxedStrategy<Self> {
        isolations().boxed()
    }

    fn is_as_strict_as(&self, other: &Self) -> bool {
        let rank = |p: &Self| match p.sever_tracked_connections {
            SeverTrackedConnections::Never => 0,
            SeverTrackedConnections::Auto => 1,
            SeverTrackedConnections::Always => 2,
        };
        let shorter = self.shorten_connection_tracking >= other.shorten_connection_tracking;
        let allowed = |p: &Self| Allowed::of(p);
        rank(self) >= rank(other) && shorter && allowed(self).meet(&allowed(other)) == allowed(self)
    }
}

impl Sample for DetachFromAutoScaling {
    fn sample() -> BoxedStrategy<Self> {
        detachments().boxed()
    }

    fn is_as_strict_as(&self, other: &Self) -> bool {
        self.mode == DetachMode::Detach || other.mode != DetachMode::Detach
    }
}

/// What one acknowledges is acknowledged: it cuts more.
impl Sample for EndInstance {
    fn sample() -> BoxedStrategy<Self> {
        endings().boxed()
    }

    fn is_as_strict_as(&self, other: &Self) -> bool {
        self.acknowledge_instance_store_loss || !other.acknowledge_instance_store_loss
    }
}

/// One action, of the whole list.
fn action() -> impl Strategy<Value = ContainAction> {
    Union::new(wanted::samples())
}

/// At most one of each, as the API demands.
fn actions() -> impl Strategy<Value = Vec<ContainAction>> {
    vec(action(), 0..4).prop_map(|all| {
        let mut names = BTreeSet::new();
        all.into_iter().filter(|a| names.insert(wanted::name_of(a))).collect()
    })
}

/// Whether `a` asks for everything that `b` asks for.
fn covers(a: &[ContainAction], b: &[ContainAction]) -> bool {
    b.iter().all(|b| a.iter().any(|a| wanted::is_as_strict(a, b)))
}

fn releases() -> impl Strategy<Value = ReleasePolicy> {
    any::<[bool; 3]>().prop_map(|[reactivate_access_keys, reactivate_credentials, rejoin_auto_scaling]| ReleasePolicy {
        reactivate_access_keys,
        reactivate_credentials,
        rejoin_auto_scaling,
    })
}

/// Each field of what is given back beyond the default.
fn gives(policy: &ReleasePolicy) -> Vec<bool> {
    let fields = serde_json::to_value(policy).unwrap();
    fields.as_object().unwrap().values().map(|field| field.as_bool().unwrap()).collect()
}

#[test]
fn merging_any_action_is_commutative_associative_and_never_weaker() {
    for any in wanted::samples() {
        let (mut runner, merge) = (TestRunner::new(config()), wanted::merge);
        let checked = runner.run(&(any.clone(), any.clone(), any), |(a, b, c)| {
            let both = merge(&a, &b);
            prop_assert_eq!(&both, &merge(&b, &a));
            prop_assert_eq!(merge(&both, &c), merge(&a, &merge(&b, &c)));
            prop_assert!(wanted::is_as_strict(&both, &a) && wanted::is_as_strict(&both, &b), "{both:?}");
            let stricter = wanted::is_as_strict(&c, &a) && wanted::is_as_strict(&c, &b);
            prop_assert!(!stricter || wanted::is_as_strict(&c, &both), "no stricter than it must be: {both:?}");
            prop_assert_eq!(&merge(&a, &a), &a);
            Ok(())
        });
        checked.unwrap();
    }
}

#[test]
fn the_samples_are_of_every_action_and_differ_where_there_are_parameters() {
    let mut runner = TestRunner::deterministic();
    for any in wanted::samples() {
        let seen: BTreeSet<String> =
            (0..64).map(|_| format!("{:?}", any.new_tree(&mut runner).unwrap().current())).collect();
        let one = any.new_tree(&mut runner).unwrap().current();
        let json = serde_json::to_value(&one).unwrap();
        let parameters = json[wanted::name_of(&one)].as_object().unwrap().len();
        assert_eq!(seen.len() > 1, parameters > 0, "{seen:?}");
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn kept_is_the_weakest_of_an_ending(a in endings()) {
        prop_assert_eq!(EndInstance::kept().merge(&a), a);
    }

    #[test]
    fn what_everybody_gives_back_is_what_each_gives_back(a in releases(), b in releases(), c in releases()) {
        let merge = |a: &ReleasePolicy, b: &ReleasePolicy| merge_release([a, b].into_iter()).unwrap();
        let both = merge(&a, &b);
        prop_assert_eq!(&both, &merge(&b, &a));
        prop_assert_eq!(merge(&both, &c), merge(&a, &merge(&b, &c)));
        prop_assert_eq!(merge_release([&a, &b, &c].into_iter()), Some(merge(&both, &c)));
        prop_assert_eq!(&merge(&a, &a), &a);
        for ((both, a), b) in gives(&both).into_iter().zip(gives(&a)).zip(gives(&b)) {
            prop_assert_eq!(both, a && b);
        }
    }

    #[test]
    fn a_hold_only_grows(held in actions(), policies in vec(actions(), 1..5)) {
        let mut now = held;
        for policy in &policies {
            let (grown, stays) = wanted::grow(&now, policy);
            prop_assert!(covers(&grown, &now) && covers(&grown, policy));
            prop_assert_eq!(grown.len(), grown.iter().map(wanted::name_of).collect::<BTreeSet<_>>().len());
            let gone: Vec<&str> = now.iter().map(wanted::name_of).filter(|n| !policy.iter().any(|p| wanted::name_of(p) == *n)).collect();
            prop_assert_eq!(stays, gone);
            prop_assert_eq!(&wanted::grow(&grown, policy).0, &grown, "growing twice is growing once");
            now = grown;
        }
    }

    #[test]
    fn what_is_wanted_covers_every_holder_whatever_their_order(all in vec(actions(), 1..4)) {
        let holder = |actions: &Vec<ContainAction>| Holder {
            uid: String::new(), namespace: String::new(), name: String::new(), severity: None,
            state: HolderState::Retained, actions: actions.clone(), release: ReleasePolicy::default(), selector: None,
        };
        let mut holders: Vec<Holder> = all.iter().map(holder).collect();
        let one_way = wanted::wanted(&holders, std::iter::empty());
        holders.reverse();
        prop_assert_eq!(&wanted::wanted(&holders, std::iter::empty()), &one_way);
        for name in all.iter().flatten().map(wanted::name_of) {
            prop_assert!(one_way.iter().any(|w| w.name() == name));
        }
    }
}
