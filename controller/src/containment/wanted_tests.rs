use SeverTrackedConnections::{Always, Auto, Never};
use firebreak_crds::{ContainAction, IsolateNetwork, SeverTrackedConnections};

use super::*;
use crate::containment::example::{
    self, deny_all, end, isolate, keys_off, metadata_off, no_addresses, no_sessions, protect,
};

fn names(wanted: &[Wanted]) -> Vec<&'static str> {
    wanted.iter().map(Wanted::name).collect()
}

#[test]
fn what_any_holder_asks_for_is_wanted_in_its_stricter_form() {
    let holders = [
        example::holder("1", "a", vec![isolate(Never), deny_all()]),
        example::holder("2", "b", vec![isolate(Always), keys_off()]),
    ];
    let all = wanted(&holders, std::iter::empty());
    assert_eq!(names(&all), ["isolateNetwork", "denyAll", "deactivateAccessKeys"]);
    assert_eq!(
        all[0],
        Wanted::IsolateNetwork(IsolateNetwork { sever_tracked_connections: Always, ..IsolateNetwork::default() })
    );
}

#[test]
fn what_the_status_says_is_wanted_is_what_the_holders_ask_for() {
    let holders =
        [example::holder("1", "a", vec![isolate(Never), deny_all()]), example::holder("2", "b", vec![isolate(Always)])];
    assert_eq!(asked_of(&holders, "isolateNetwork"), Some(isolate(Always)));
    assert_eq!(asked_of(&holders, "denyAll"), Some(deny_all()));
    assert_eq!((asked_of(&holders, "deactivateAccessKeys"), asked_of(&holders, "tagResource")), (None, None));
}

#[test]
fn what_is_on_record_stays_wanted_though_nobody_asks_for_it() {
    for (keys, expected) in [
        (vec!["isolateNetwork/eni-1", "isolateNetwork/eni-2"], vec!["isolateNetwork"]),
        (vec!["protectFromTermination/vol-1"], vec!["protectFromTermination"]),
        (vec!["denyAll", "denyAll/residual-1"], vec!["denyAll"]),
        (vec!["deactivateAccessKeys/AKIA1"], vec!["deactivateAccessKeys"]),
        (vec!["terminateSessions"], vec!["terminateSessions"]),
        (vec!["isolateNetwork/unknown", "denyAll/unknown"], vec!["isolateNetwork", "denyAll"]),
        (vec!["revokeInstanceRole/off-iip-assoc-1"], vec!["revokeInstanceRole"]),
        (vec!["tagResource"], vec![]),
        (vec!["instance/ended"], vec![]),
        (vec!["stopInstance", "stopInstance/disableApiStop"], vec!["stopInstance"]),
        (vec![], vec![]),
    ] {
        let keys: Vec<String> = keys.into_iter().map(str::to_owned).collect();
        assert_eq!(names(&wanted(&[], keys.iter())), expected, "{keys:?}");
    }
}

#[test]
fn isolation_that_nobody_asks_for_any_more_opens_no_window() {
    let key = "isolateNetwork/eni-1".to_owned();
    let kept = wanted(&[], std::iter::once(&key));
    assert_eq!(
        kept,
        [Wanted::IsolateNetwork(IsolateNetwork { sever_tracked_connections: Never, ..IsolateNetwork::default() })]
    );
    let asked = wanted(&[example::holder("1", "a", vec![isolate(Auto)])], std::iter::once(&key));
    assert_eq!(
        asked,
        [Wanted::IsolateNetwork(IsolateNetwork { sever_tracked_connections: Auto, ..IsolateNetwork::default() })]
    );
}

#[test]
fn a_hold_takes_what_the_policy_adds_and_keeps_what_it_drops() {
    for (what, held, policy, grown, stays) in [
        ("nothing held yet", vec![], vec![deny_all()], vec![deny_all()], vec![]),
        ("added", vec![deny_all()], vec![deny_all(), keys_off()], vec![deny_all(), keys_off()], vec![]),
        (
            "taken away",
            vec![deny_all(), keys_off()],
            vec![deny_all()],
            vec![deny_all(), keys_off()],
            vec!["deactivateAccessKeys"],
        ),
        ("stricter", vec![isolate(Auto)], vec![isolate(Always)], vec![isolate(Always)], vec![]),
        ("weaker", vec![isolate(Always)], vec![isolate(Never)], vec![isolate(Always)], vec![]),
        ("an empty policy", vec![isolate(Auto)], vec![], vec![isolate(Auto)], vec!["isolateNetwork"]),
    ] {
        assert_eq!(grow(&held, &policy), (grown, stays), "{what}");
    }
}

#[test]
fn every_action_has_the_name_that_the_policy_gives_it() {
    for (action, name) in [
        (isolate(Auto), "isolateNetwork"),
        (protect(), "protectFromTermination"),
        (metadata_off(), "disableInstanceMetadata"),
        (no_addresses(), "removePublicAddresses"),
        (end("stopInstance"), "stopInstance"),
        (end("terminateInstance"), "terminateInstance"),
        (
            ContainAction { revoke_instance_role: Some(firebreak_crds::Empty {}), ..ContainAction::default() },
            "revokeInstanceRole",
        ),
        (no_sessions(), "terminateSessions"),
        (deny_all(), "denyAll"),
        (keys_off(), "deactivateAccessKeys"),
    ] {
        assert_eq!(name_of(&action), name);
        let json = serde_json::to_value(&action).unwrap();
        assert_eq!(json.as_object().unwrap().keys().collect::<Vec<_>>(), [name]);
    }
    assert_eq!(name_of(&ContainAction::default()), "none");
}

fn planned(resource: firebreak_crds::Resource, actions: Vec<ContainAction>) -> Planned {
    Planned { resource, actions, evidence: vec![] }
}

#[test]
fn a_digest_is_of_what_is_asked_for_in_any_order() {
    let (a, b) = (planned(example::instance(), vec![isolate(Auto)]), planned(example::user(), vec![deny_all(), keys_off()]));
    let swapped = planned(example::user(), vec![keys_off(), deny_all()]);
    assert_eq!(digest(&[a.clone(), b.clone()], None), digest(&[swapped, a.clone()], None));
    assert_eq!(digest(&[a.clone(), a.clone()], None), digest(std::slice::from_ref(&a), None), "twice is once");
    let others = [
        digest(&[], None),
        digest(std::slice::from_ref(&a), None),
        digest(std::slice::from_ref(&b), None),
        digest(&[planned(example::instance(), vec![isolate(Always)])], None),
        digest(&[a.clone(), b], None),
    ];
    let distinct: BTreeSet<_> = others.iter().collect();
    assert_eq!(distinct.len(), others.len());
    assert!(others.iter().all(|d| d.len() == 64));
}

/// Whoever approves the snapshots and then the end has not approved the end alone, nor that fewer people say so.
#[test]
fn a_plan_without_the_evidence_or_with_another_bar_is_another() {
    let plan = planned(example::instance(), vec![end("terminateInstance")]);
    let snapshots = firebreak_crds::EvidenceAction { ebs_snapshots: Some(firebreak_crds::Empty {}) };
    let with_snapshots = Planned { evidence: vec![snapshots], ..plan.clone() };
    let bar = |count, group: Option<&str>, actions: &[&str]| {
        let actions = actions.iter().map(|a| (*a).to_owned()).collect();
        Some(ApprovalPolicy { count, actions, group: group.map(str::to_owned) })
    };
    let (one, two) = (["terminateInstance"], ["isolateNetwork", "terminateInstance"]);
    let digests = [
        digest(std::slice::from_ref(&plan), None),
        digest(&[with_snapshots], None),
        digest(std::slice::from_ref(&plan), bar(1, None, &one).as_ref()),
        digest(std::slice::from_ref(&plan), bar(2, None, &one).as_ref()),
        digest(std::slice::from_ref(&plan), bar(1, Some("leads"), &one).as_ref()),
        digest(std::slice::from_ref(&plan), bar(1, None, &two).as_ref()),
    ];
    let distinct: BTreeSet<_> = digests.iter().collect();
    assert_eq!(distinct.len(), digests.len());
    let backwards = bar(1, None, &["terminateInstance", "isolateNetwork"]);
    assert_eq!(digest(&[plan], backwards.as_ref()), digests[5], "in any order");
}

/// An approval names it: a version that computes another makes every approval void.
#[test]
fn digests_never_change_between_versions() {
    let asked = [planned(example::user(), vec![deny_all()])];
    assert_eq!(digest(&asked, None), "dbc7d9bd513506a835160aafaac9dd367b1fe74ffb8f23a4c2744ab4748ee215");
}
