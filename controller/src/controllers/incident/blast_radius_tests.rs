use firebreak_crds::{AccountApprovals, AwsAccountStatus, BlastRadiusCause, ProtectedByTag, SeverTrackedConnections};
use k8s_openapi::jiff::Timestamp;

use super::instance::Facts;
use super::*;
use crate::aws::{
    ClassicBalancer, Identity, Interface, Membership, PublicAddress, Registration, RouteTable, ScalingGroup,
    Target as Registered, TargetGroup,
};
use crate::clock;
use crate::containment::example::{self, deny_all, isolate, protect};
use crate::controllers::incident::approval::tests::{incident, target};

const ACCOUNT: &str = "111122223333";

/// An instance of one interface whom nobody would miss.
fn lonely() -> Facts {
    let addresses = vec![PublicAddress { public: "203.0.113.7".into(), ..PublicAddress::default() }];
    let private_addresses = vec!["10.0.0.7".into()];
    let interface = Interface { id: "eni-1".into(), private_addresses, addresses, ..Interface::default() };
    Facts { id: "i-1".into(), interfaces: vec![interface], ..Facts::default() }
}

fn routed(to: &str) -> Facts {
    let table = RouteTable { through: vec!["eni-9".into(), to.into()], ..RouteTable::default() };
    Facts { routes: vec![RouteTable::default(), table], ..lonely() }
}

/// Of a target group `web`: who is registered, and whether healthy.
fn balanced(targets: &[(&str, bool)]) -> Facts {
    let target = |(id, healthy): &(&str, bool)| Registered {
        registration: Registration { id: (*id).into(), ..Registration::default() },
        healthy: *healthy,
        registered: true,
        draining: false,
    };
    let arn = "arn:aws:elasticloadbalancing:eu-west-1:111122223333:targetgroup/web/0123456789abcdef".into();
    let group = TargetGroup { arn, targets: targets.iter().map(target).collect(), drains_for: None };
    Facts { groups: vec![Arc::default(), Arc::new(vec![group])], ..lonely() }
}

fn classic(instances: &[&str]) -> Facts {
    let balancer = ClassicBalancer { name: "old".into(), instances: instances.iter().map(|i| (*i).into()).collect() };
    Facts { classic: Arc::new(vec![balancer]), ..lonely() }
}

fn scaled(state: &str, in_service: &[&str], suspended: &[&str]) -> Facts {
    let strings = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
    let membership = Membership { group: "web".into(), state: state.into(), protected: false };
    let (in_service, suspended) = (strings(in_service), strings(suspended));
    let group = ScalingGroup { desired: 1, max: 3, in_service, suspended, ..ScalingGroup::default() };
    Facts { scaling: Some((membership, group)), ..lonely() }
}

fn reached_through(host: &str) -> Facts {
    Facts { hosts: vec!["vpce.example".into(), host.into()], ..lonely() }
}

/// In words.
fn said(facts: Vec<CutOff>) -> Vec<String> {
    facts.into_iter().map(|(_, who)| who).collect()
}

#[test]
fn whom_an_instance_serves_is_told() {
    let forwards = || {
        let mut facts = lonely();
        facts.interfaces[0].forwards = true;
        facts
    };
    for (what, facts, told) in [
        ("nobody", lonely(), vec![]),
        ("a route to its interface", routed("eni-1"), vec!["a route of its VPC leads to it"]),
        ("a route to itself", routed("i-1"), vec!["a route of its VPC leads to it"]),
        ("a route elsewhere", routed("eni-2"), vec![]),
        ("it forwards", forwards(), vec!["it passes on what is not its own (SourceDestCheck of eni-1 is off)"]),
        ("alone in a target group", balanced(&[("i-1", true)]), vec!["it is the last healthy target of web"]),
        ("the last healthy", balanced(&[("i-1", true), ("i-2", false)]), vec!["it is the last healthy target of web"]),
        ("by address", balanced(&[("10.0.0.7", true), ("10.0.0.8", false)]), vec!["it is the last healthy target of web"]),
        (
            "by id and by address",
            balanced(&[("10.0.0.7", true), ("i-1", true)]),
            vec!["it is the last healthy target of web"],
        ),
        ("one of two healthy", balanced(&[("i-1", true), ("i-2", true)]), vec![]),
        ("sick itself", balanced(&[("i-1", false)]), vec![]),
        ("of others", balanced(&[("i-2", true)]), vec![]),
        ("alone in a load balancer", classic(&["i-1"]), vec!["it is the only instance of load balancer old"]),
        ("one of two there", classic(&["i-1", "i-2"]), vec![]),
        ("another's load balancer", classic(&["i-2"]), vec![]),
        ("an empty load balancer", classic(&[]), vec![]),
        ("alone in its group", scaled("InService", &["i-1"], &[]), vec!["it is alone in Auto Scaling group web"]),
        ("one of two in its group", scaled("InService", &["i-1", "i-2"], &["AZRebalance"]), vec![]),
        ("in standby", scaled("Standby", &[], &["Launch"]), vec![]),
        (
            "no replacement",
            scaled("InService", &["i-1", "i-2"], &["ReplaceUnhealthy"]),
            vec!["Auto Scaling group web would not replace it (ReplaceUnhealthy is suspended)"],
        ),
        (
            "our way by its private address",
            reached_through("10.0.0.7"),
            vec!["Firebreak reaches AWS or Kubernetes through it (10.0.0.7)"],
        ),
        (
            "our way by its public address",
            reached_through("203.0.113.7"),
            vec!["Firebreak reaches AWS or Kubernetes through it (203.0.113.7)"],
        ),
        ("another way", reached_through("10.0.0.8"), vec![]),
    ] {
        assert_eq!(said(facts.judged()), told, "{what}");
    }
}

fn now() -> Timestamp {
    example::SINCE.parse().unwrap()
}

fn role(principal: &str, last_used_days_ago: Option<i64>) -> Identity {
    let trust = format!(r#"{{"Statement":[{{"Effect":"Allow","Principal":{principal},"Action":"sts:AssumeRole"}}]}}"#);
    let last_used = last_used_days_ago.map(|days| now() - Duration::from_hours(24 * u64::try_from(days).unwrap()));
    Identity { trust: Some(trust), last_used, ..Identity::default() }
}

#[test]
fn who_uses_a_role_is_told() {
    let others = "its trust policy lets others than this account's users and roles assume it: ";
    for (principal, told) in [
        (r#"{"AWS":"arn:aws:iam::111122223333:root"}"#, None),
        (r#"{"AWS":["111122223333","arn:aws:iam::111122223333:user/ci","arn:aws-cn:iam::111122223333:role/x"]}"#, None),
        (r#"{"AWS":"AROA0123456789ABCDEF0"}"#, None),
        (r#"{"Service":"ec2.amazonaws.com"}"#, Some("ec2.amazonaws.com")),
        (r#"{"Service":["lambda.amazonaws.com","ec2.amazonaws.com"]}"#, Some("ec2.amazonaws.com, lambda.amazonaws.com")),
        (
            r#"{"Federated":"arn:aws:iam::111122223333:oidc-provider/ci.example"}"#,
            Some("arn:aws:iam::111122223333:oidc-provider/ci.example"),
        ),
        (r#"{"AWS":"arn:aws:iam::444455556666:root"}"#, Some("arn:aws:iam::444455556666:root")),
        (r#"{"AWS":["111122223333","444455556666"]}"#, Some("444455556666")),
        (r#"{"AWS":"*"}"#, Some("*")),
        (r#""*""#, Some("*")),
    ] {
        let expected: Vec<String> = told.map(|who| format!("{others}{who}")).into_iter().collect();
        assert_eq!(said(role::judged(&role(principal, None), &[], ACCOUNT, now())), expected, "{principal}");
    }
    let sealed = Identity { trust: Some(crate::aws::SEALED_TRUST.into()), ..Identity::default() };
    assert_eq!(said(role::judged(&sealed, &[], ACCOUNT, now())), Vec::<String>::new());
    let all_but = r#"{"Statement":{"Effect":"Allow","NotPrincipal":{"AWS":"111122223333"}}}"#;
    let all_but = Identity { trust: Some(all_but.into()), ..Identity::default() };
    assert_eq!(said(role::judged(&all_but, &[], ACCOUNT, now())), [format!("{others}all but some (NotPrincipal)")]);
}

#[test]
fn a_role_that_runs_or_ran_lately_is_used() {
    let own = r#"{"AWS":"111122223333"}"#;
    for (days, used) in [(None, false), (Some(0), true), (Some(6), true), (Some(8), false)] {
        let told = said(role::judged(&role(own, days), &[], ACCOUNT, now()));
        assert_eq!(told.len(), usize::from(used), "{days:?}: {told:?}");
    }
    let told = said(role::judged(&role(own, Some(1)), &[], ACCOUNT, now()));
    assert_eq!(told, ["it was used within the last 7 days, on 2026-02-28"]);
    let ids = ["i-1", "i-2", "i-3", "i-4", "i-5"].map(str::to_owned);
    let told = said(role::judged(&role(own, None), &ids, ACCOUNT, now()));
    assert_eq!(told, ["running instances use it: i-1, i-2, i-3, 2 more"]);
    let managed =
        Identity { arn: "arn:aws:iam::1:role/aws-service-role/ecs.amazonaws.com/x".into(), ..role("\"*\"", Some(0)) };
    assert_eq!(said(role::judged(&managed, &ids, ACCOUNT, now())), Vec::<String>::new(), "the hold refuses it");
}

fn resolved(resource: Resource, actions: Vec<firebreak_crds::ContainAction>) -> Resolved {
    let mut resolved = target(actions, None).resolved.unwrap();
    resolved.resource = resource;
    resolved
}

#[test]
fn only_what_cuts_others_off_and_is_not_in_force_is_asked_about() {
    let cut = || isolate(SeverTrackedConnections::Auto);
    let held = |resource, actions| example::quarantine(resource, vec![example::holder("2", "other", actions)]);
    for (what, target, quarantine, asks_aws) in [
        ("an instance to isolate", resolved(example::instance(), vec![protect(), cut()]), None, true),
        ("an instance to protect", resolved(example::instance(), vec![protect()]), None, false),
        ("a role to deny", resolved(example::role(), vec![deny_all()]), None, true),
        ("a user", resolved(example::user(), vec![deny_all()]), None, false),
        (
            "isolated already, be it for others",
            resolved(example::instance(), vec![cut()]),
            Some(held(example::instance(), vec![cut()])),
            false,
        ),
        (
            "protected already",
            resolved(example::instance(), vec![protect(), cut()]),
            Some(held(example::instance(), vec![protect()])),
            true,
        ),
    ] {
        assert_eq!(asks(&target, quarantine.as_ref()).is_some(), asks_aws, "{what}");
        let mut off = target;
        let wide_blast_radius = WideBlastRadius::NotRequired;
        Arc::make_mut(&mut off.account).spec.approvals =
            AccountApprovals { wide_blast_radius, ..AccountApprovals::default() };
        assert_eq!(asks(&off, quarantine.as_ref()), None, "{what}, but the account asks for no approval");
    }
}

#[test]
fn every_name_is_that_of_an_action_of_its_kind() {
    let policy = serde_json::to_string(&firebreak_crds::crds()[1]).unwrap();
    let later = ["stopInstance", "terminateInstance"]; // the gate knows them before the API does
    for name in OF_AN_INSTANCE.iter().chain(&OF_A_ROLE).filter(|n| !later.contains(n)) {
        assert!(policy.contains(&format!("\"{name}\":")), "{name}");
    }
}

#[test]
fn a_protected_tag_counts_if_it_was_seen_before_the_incident_was_declared_and_nothing_is_held() {
    use ResourceKind::{IamRole, IamUser};
    let mut incident = incident();
    incident.metadata.creation_timestamp = Some(clock::time(now()));
    let known = |seconds: i64, id: &str, kind| {
        let since = clock::time(now() + k8s_openapi::jiff::SignedDuration::from_secs(seconds));
        ProtectedByTag { kind, region: None, id: id.into(), key: "tier".into(), since }
    };
    let held = || Some(example::quarantine(example::user(), vec![]));
    for (what, known, quarantine, counts) in [
        ("seen long before", known(-60, "mallory", IamUser), None, true),
        ("seen in the same second", known(0, "mallory", IamUser), None, false),
        ("written afterwards", known(60, "mallory", IamUser), None, false),
        ("held already", known(-60, "mallory", IamUser), held(), false),
        ("on another user", known(-60, "alice", IamUser), None, false),
        ("on the role of that name", known(-60, "mallory", IamRole), None, false),
    ] {
        let mut target = resolved(example::user(), vec![deny_all()]);
        let status = AwsAccountStatus { protected_by_tag: vec![known], ..AwsAccountStatus::default() };
        Arc::make_mut(&mut target.account).status = Some(status);
        let cause = tagged(&incident, &target, quarantine.as_ref());
        assert_eq!(cause.is_some(), counts, "{what}");
        if let Some(cause) = cause {
            assert!(cause.concerns("denyAll") && cause.concerns("tagResource"), "all that is done to it waits");
            assert!(cause.why.contains("the tag tier, which AwsAccount prod protects"), "{}", cause.why);
        }
    }
}

#[test]
fn an_access_key_carries_the_tags_of_its_user_and_a_session_those_of_its_role() {
    let user = Some(firebreak_crds::KeyUser { name: "mallory".into(), id: "AIDA1".into() });
    let key = Resource { kind: ResourceKind::AccessKey, id: "AKIA1".into(), user, ..example::user() };
    let session = Resource { kind: ResourceKind::RoleSession, id: "build/ci".into(), ..example::user() };
    for (resource, expected) in [
        (key, (ResourceKind::IamUser, "mallory")),
        (session, (ResourceKind::IamRole, "build")),
        (example::instance(), (ResourceKind::Ec2Instance, "i-1")),
        (example::role(), (ResourceKind::IamRole, "build")),
    ] {
        assert_eq!(carrier(&resource), (expected.0, expected.1.to_owned()), "{resource}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_that_hangs_delays_nothing_for_long() {
    let started = Instant::now();
    let hung = by(started + PATIENCE, "ec2:DescribeInstances", std::future::pending::<Result<(), AwsError>>()).await;
    assert_eq!(started.elapsed(), PATIENCE);
    let mut seen = Seen::default();
    seen.take(hung);
    assert!(seen.facts.is_empty() && seen.unread[0].contains("within 2 s"), "{seen:?}");
    assert!(seen.unread[0].starts_with("ec2:DescribeInstances"), "{seen:?}");
}

#[test]
fn what_was_known_counts_until_aws_says_something_else() {
    let known = |list: &[&str]| {
        let fact = |s: &&str| (BlastRadiusCause::Forwards, (*s).to_owned());
        list.iter().map(fact).collect::<Vec<CutOff>>()
    };
    for (what, facts, unread, before, expected) in [
        ("never asked before", &["a"][..], &[][..], None, &["a"][..]),
        ("not any more", &["a"], &[], Some(&["b"][..]), &["a"]),
        ("nobody any more", &[], &[], Some(&["b"]), &[]),
        ("not answered", &[], &["late"], Some(&["b"]), &["b"]),
        ("answered in part", &["a"], &["late"], Some(&["a", "b"]), &["a", "b"]),
        ("not answered, and never asked before", &[], &["late"], None, &[]),
    ] {
        let seen = Seen { facts: known(facts), unread: said(known(unread)) };
        assert_eq!(seen.with(before.map(known)), known(expected), "{what}");
    }
}

#[test]
fn what_the_account_does_not_count_holds_nothing_back() {
    use BlastRadiusCause::{RunningInstances, TrustedFromOutside, UsedRecently};
    let role = role(r#"{"Service":"ec2.amazonaws.com"}"#, Some(1));
    let facts = role::judged(&role, &["i-1".to_owned()], ACCOUNT, now());
    for (ignored, says) in [
        (vec![], Some(["running instances", "trust policy", "within the last 7 days"].as_slice())),
        (vec![UsedRecently], Some(&["running instances", "trust policy"])),
        (vec![UsedRecently, TrustedFromOutside], Some(&["running instances"])),
        (vec![UsedRecently, TrustedFromOutside, RunningInstances], None),
    ] {
        let mut account = (*resolved(example::role(), vec![]).account).clone();
        account.spec.approvals.ignored_causes.clone_from(&ignored);
        let interval = Duration::from_secs(30);
        let waits = |age| cuts_off(&account, &OF_A_ROLE, Some((age, facts.clone())), interval);
        let cause = waits(Duration::ZERO);
        assert_eq!(cause.as_ref().map(|c| c.why.matches("; ").count() + 1), says.map(<[_]>::len), "{ignored:?}");
        let all = says.iter().flat_map(|says| *says).all(|says| cause.as_ref().is_some_and(|c| c.why.contains(says)));
        assert!(all, "{ignored:?} {cause:?}");
        let later = waits(interval).unwrap();
        assert_eq!(later.concerns("tagResource"), cause.is_none(), "it is asked about anew: {later:?}");
    }
    let account = AwsAccount::new("prod", firebreak_crds::AwsAccountSpec::default());
    assert!(cuts_off(&account, &OF_A_ROLE, None, Duration::ZERO).unwrap().concerns("tagResource"), "never asked about");
}
