//! Several holders, and policies that change.

use std::collections::BTreeSet;

use firebreak_crds::{
    ContainAction, DetachFromAutoScaling, DetachMode, Empty, EndInstance, Holder, HolderState, IsolateNetwork,
    ReleasePolicy, SeverTrackedConnections,
};
use proptest::collection::vec;
use proptest::prelude::*;

use super::ending::endings;
use super::network::isolations;
use super::scaling::detachments;
use crate::containment::drive::Merge;
use crate::containment::isolate_network::Allowed;
use crate::containment::wanted;

fn rank(p: &IsolateNetwork) -> u8 {
    match p.sever_tracked_connections {
        SeverTrackedConnections::Never => 0,
        SeverTrackedConnections::Auto => 1,
        SeverTrackedConnections::Always => 2,
    }
}

fn allowed(p: &IsolateNetwork) -> Allowed {
    Allowed::of(p)
}

/// Whether the first lets through no more than the second.
fn is_stricter(a: &IsolateNetwork, b: &IsolateNetwork) -> bool {
    let shorter = a.shorten_connection_tracking >= b.shorten_connection_tracking;
    rank(a) >= rank(b) && shorter && allowed(a).meet(&allowed(b)) == allowed(a)
}

fn detaches(p: &DetachFromAutoScaling) -> bool {
    p.mode == DetachMode::Detach
}

fn loses(p: EndInstance) -> bool {
    p.acknowledge_instance_store_loss
}

fn action() -> impl Strategy<Value = ContainAction> {
    prop_oneof![
        isolations().prop_map(|p| ContainAction { isolate_network: Some(p), ..ContainAction::default() }),
        Just(ContainAction { remove_public_addresses: Some(Empty {}), ..ContainAction::default() }),
        Just(ContainAction { terminate_sessions: Some(Empty {}), ..ContainAction::default() }),
        Just(ContainAction { disable_instance_metadata: Some(Empty {}), ..ContainAction::default() }),
        Just(ContainAction { protect_from_termination: Some(Empty {}), ..ContainAction::default() }),
        Just(ContainAction { revoke_instance_role: Some(Empty {}), ..ContainAction::default() }),
        Just(ContainAction { deregister_from_load_balancers: Some(Empty {}), ..ContainAction::default() }),
        detachments().prop_map(|p| ContainAction { detach_from_auto_scaling: Some(p), ..ContainAction::default() }),
        endings().prop_map(|p| ContainAction { stop_instance: Some(p), ..ContainAction::default() }),
        endings().prop_map(|p| ContainAction { terminate_instance: Some(p), ..ContainAction::default() }),
        Just(ContainAction { deny_all: Some(Empty {}), ..ContainAction::default() }),
        Just(ContainAction { deactivate_access_keys: Some(Empty {}), ..ContainAction::default() }),
    ]
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
    b.iter().all(|b| {
        a.iter().filter(|a| wanted::name_of(a) == wanted::name_of(b)).any(|a| {
            a.isolate_network.as_ref().zip(b.isolate_network.as_ref()).is_none_or(|(a, b)| is_stricter(a, b))
                && a.stop_instance.map(loses) >= b.stop_instance.map(loses)
                && a.terminate_instance.map(loses) >= b.terminate_instance.map(loses)
                && a.detach_from_auto_scaling.as_ref().map(detaches) >= b.detach_from_auto_scaling.as_ref().map(detaches)
        })
    })
}

proptest! {
    #[test]
    fn merging_is_commutative_associative_and_never_weaker(a in isolations(), b in isolations(), c in isolations()) {
        let merge = |a: &IsolateNetwork, b: &IsolateNetwork| a.merge(b);
        prop_assert_eq!(merge(&a, &b), merge(&b, &a));
        prop_assert_eq!(merge(&merge(&a, &b), &c), merge(&a, &merge(&b, &c)));
        prop_assert!(is_stricter(&merge(&a, &b), &a) && is_stricter(&merge(&a, &b), &b));
        prop_assert_eq!(allowed(&merge(&a, &b)), allowed(&a).meet(&allowed(&b)), "and no stricter than it must");
        prop_assert_eq!(merge(&a, &a), a);
    }

    #[test]
    fn what_one_holder_acknowledges_is_acknowledged(a in endings(), b in endings(), c in endings()) {
        prop_assert_eq!(a.merge(&b), b.merge(&a));
        prop_assert_eq!(a.merge(&b).merge(&c), a.merge(&b.merge(&c)));
        prop_assert!(loses(a.merge(&b)) >= (loses(a) || loses(b)));
        prop_assert_eq!(EndInstance::kept().merge(&a), a, "kept is the weakest");
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
            uid: String::new(), namespace: String::new(), name: String::new(),
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
