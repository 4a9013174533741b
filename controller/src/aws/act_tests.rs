use firebreak_crds::conditions::READY;
use firebreak_crds::{EvidenceAction, EvidenceSpec, EvidenceStatus, IncidentRef, Resource};

use super::*;
use crate::aws::Change;
use crate::conditions::Conditions;
use crate::containment::example::{self, end, protect};

fn evidence(of: Resource, ready: &str) -> Evidence {
    let incident_ref = IncidentRef { uid: "2".into(), namespace: "security".into(), name: "inc-2".into() };
    let spec = EvidenceSpec { incident_ref, resource: of, collect: EvidenceAction::default() };
    let mut evidence = Evidence::new("ebssnapshots-2", spec);
    let mut c = Conditions::new(&[], None, example::SINCE.parse().unwrap());
    c.set(READY, ready, "R", "");
    evidence.status = Some(EvidenceStatus { conditions: c.done(), ..EvidenceStatus::default() });
    evidence
}

fn held(actions: Vec<ContainAction>) -> Quarantine {
    example::quarantine(example::instance(), vec![example::holder("1", "inc-1", actions)])
}

#[test]
fn what_is_lost_for_good_is_spared_once_anything_speaks_against_it() {
    let [stop, terminate] = [end("stopInstance"), end("terminateInstance")];
    let suspended = |mut quarantine: Quarantine| {
        quarantine.spec.suspend = true;
        quarantine
    };
    let calls = || [Call::StopInstances { instance: "i-1".into() }, Call::TerminateInstances { instance: "i-1".into() }];
    let both = || held(vec![stop.clone(), terminate.clone()]);
    let retained = |mut quarantine: Quarantine| {
        quarantine.spec.holders.iter_mut().for_each(|h| h.state = HolderState::Retained);
        quarantine
    };
    for (what, quarantine, sent) in [
        ("as asked", Some(both()), [true, true]),
        ("let go", Some(example::quarantine(example::instance(), vec![])), [false, false]),
        ("another containment", None, [false, false]),
        ("only retained", Some(retained(both())), [true, false]),
        ("suspended", Some(suspended(both())), [false, false]),
        ("who asked for the termination let go", Some(held(vec![stop.clone()])), [true, false]),
        ("somebody wants to keep it", Some(held(vec![terminate.clone(), stop.clone(), protect()])), [true, false]),
    ] {
        assert_eq!(calls().map(|call| spared(&call, quarantine.as_ref()).is_ok()), sent, "{what}");
        assert!(calls().iter().all(Call::destroys));
    }
}

#[test]
fn an_interface_is_opened_only_while_its_holders_ask_for_it() {
    use SeverTrackedConnections::{Always, Auto, Never};
    let open = Call::ModifyNetworkInterfaceAttribute { interface: "eni-1".into(), groups: vec![], change: Change::Convert };
    assert!(open.opens());
    let asks = |sever| held(vec![example::isolate(sever), end("stopInstance")]);
    let mut suspended = asks(Auto);
    suspended.spec.suspend = true;
    let mut other = asks(Never);
    other.spec.holders.push(example::holder("2", "inc-2", vec![example::isolate(Always)]));
    for (what, quarantine, sent) in [
        ("as asked", Some(asks(Auto)), true),
        ("always", Some(asks(Always)), true),
        ("never", Some(asks(Never)), false),
        ("another asks for it", Some(other), true),
        ("asked for by nobody", Some(held(vec![end("stopInstance")])), false),
        ("let go", Some(example::quarantine(example::instance(), vec![])), false),
        ("another containment", None, false),
        ("suspended", Some(suspended), false),
    ] {
        assert_eq!(spared(&open, quarantine.as_ref()).is_ok(), sent, "{what}");
    }
}

#[test]
fn a_termination_waits_for_whatever_evidence_of_the_resource_is_not_complete() {
    let of = |ready| vec![evidence(example::instance(), ready)];
    for (what, known, waits) in [
        ("complete", of("True"), None),
        ("none is asked for", vec![], None),
        ("under way", of("False"), Some("ebssnapshots-2".to_owned())),
        ("not known", of("Unknown"), Some("ebssnapshots-2".to_owned())),
        ("of another resource", vec![evidence(example::user(), "False")], None),
    ] {
        assert_eq!(incomplete(&held(vec![end("terminateInstance")]), &known), waits, "{what}");
    }
}
