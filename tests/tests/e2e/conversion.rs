//! The seconds in which an interface is opened to cut the flows that the VPC tracks.

use anyhow::ensure;
use firebreak_crds::conditions::CONTAINED;
use firebreak_crds::{ConversionState, Quarantine};
use firebreak_tests::eventually::eventually;
use firebreak_tests::proxy::{Call, When};
use firebreak_tests::sight;
use firebreak_tests::world::{SOON, World};
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicyBinding;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::drift::set_groups;
use crate::ground_up::{world, worlds};
use crate::own_groups::allow;

/// An Incident over the instance alone, without evidence, so that the changing calls come in a known order.
async fn contain(world: &World<'_>, tracked: &str) {
    contain_with(world, tracked, json!([{ "isolateNetwork": { "severTrackedConnections": tracked } }])).await;
}

async fn contain_with(world: &World<'_>, tracked: &str, actions: serde_json::Value) {
    let policy = json!({ "ec2Instance": { "contain": actions } });
    world.plane.apply(&world.policy(&tracked.to_lowercase(), policy).to_string()).await.unwrap();
    let policy = world.policy_name(&tracked.to_lowercase());
    let spec = json!({ "policyRef": { "name": policy }, "targets": [world.instance_target(0)] });
    world.declare("inc", "Contain", spec).await;
}

fn conversion(quarantine: &Quarantine, interface: &str) -> Option<ConversionState> {
    quarantine.spec.conversions.iter().find(|c| c.interface_id == interface).map(|c| c.state)
}

/// The id of the group that lets everything through, if there is one.
async fn conversion_group(world: &World<'_>) -> Option<String> {
    group_named(world, "firebreak-conversion").await
}

async fn group_named(world: &World<'_>, name: &str) -> Option<String> {
    let answer = world.aws.ec2.describe_security_groups().send().await.unwrap();
    let found =
        answer.security_groups().iter().find(|g| g.group_name() == Some(name) && g.vpc_id() == Some(&world.scene.vpc));
    found.and_then(|g| g.group_id.clone())
}

/// The calls that move this interface to that group.
fn moves<'a>(calls: &'a [Call], interface: &str, group: &str) -> Vec<&'a Call> {
    let moves = |call: &&Call| {
        call.action == "ModifyNetworkInterfaceAttribute"
            && call.params.get("NetworkInterfaceId").is_some_and(|id| id == interface)
            && call.params.get("SecurityGroupId.1").is_some_and(|id| id == group)
    };
    calls.iter().filter(moves).collect()
}

#[tokio::test]
async fn an_interface_is_isolated_and_its_window_recorded_before_it_is_opened_and_closed_again() {
    let (world, _guard) = world().await;
    let (id, interfaces) = (&world.scene.instances[0].id, &world.scene.instances[0].interfaces);
    // Two isolate; the conversion group is made and given its rules; the sixth call opens the first interface.
    let mut held = world.proxy.hold_changing(6, When::Before);
    contain(&world, "Always").await;
    let opening = held.reached().await;
    let group = conversion_group(&world).await.unwrap();
    let interface = opening.params["NetworkInterfaceId"].clone();
    assert_eq!((opening.action.as_str(), &opening.params["SecurityGroupId.1"]), ("ModifyNetworkInterfaceAttribute", &group));
    let recorded = world.quarantine_of(id).await.unwrap();
    assert_eq!(conversion(&recorded, &interface), Some(ConversionState::Open));
    sight::isolated(&world.aws, &[interface]).await.unwrap();
    held.release();

    until_converted(&world, id, interfaces).await;
    world.until("inc", "Contained", "True").await;
    sight::isolated(&world.aws, interfaces).await.unwrap();
    let calls = world.proxy.changing();
    let isolation = moves(&calls, &interfaces[0], &group)[0].seq;
    for interface in interfaces {
        let opened = moves(&calls, interface, &group);
        assert_eq!(opened.len(), 1, "each interface is opened once");
        let last = calls.iter().rfind(|c| c.params.get("NetworkInterfaceId") == Some(interface)).unwrap();
        assert!(last.seq > isolation && last.params["SecurityGroupId.1"] != group);
    }
}

const SWAP: &str = "ModifyNetworkInterfaceAttribute";
const READ: &str = "DescribeNetworkInterfaces";

fn throttle(world: &World<'_>) {
    world.proxy.fail(SWAP, 503, "RequestLimitExceeded", "the attacker makes as many calls as he can");
}

/// Waits until AWS has refused a change of groups that often.
async fn until_refused(world: &World<'_>, times: usize) {
    let refused = |call: &Call| call.action == SWAP && call.error.as_deref() == Some("RequestLimitExceeded");
    world
        .until_aws("refused", async || {
            let seen = world.proxy.count(refused);
            ensure!(seen >= times, "{seen}");
            Ok(())
        })
        .await;
}

/// Isolates the instance, and has AWS refuse each opening, in more than one pass.
async fn with_openings_refused(world: &World<'_>) {
    let mut rules = world.proxy.hold_action("AuthorizeSecurityGroupIngress", 1, When::Before);
    contain(world, "Always").await;
    rules.reached().await;
    throttle(world);
    rules.release();
    until_refused(world, 7).await;
}

async fn until_converted(world: &World<'_>, id: &str, interfaces: &[String]) {
    let closed = |q: &Quarantine| interfaces.iter().all(|i| conversion(q, i) == Some(ConversionState::Closed));
    world.until_quarantine(id, "converted", closed).await;
}

#[tokio::test]
async fn an_interface_that_is_open_is_closed_as_soon_as_aws_takes_the_call_whatever_hangs_beside_it() {
    let (world, _guard) = world().await;
    let interfaces = &world.scene.instances[0].interfaces;
    world.proxy.hang("ModifyInstanceAttribute");
    let mut opening = world.proxy.hold_action(SWAP, 3, When::Before);
    let isolate = json!({ "isolateNetwork": { "severTrackedConnections": "Always" } });
    contain_with(&world, "hung", json!([isolate, { "protectFromTermination": {} }])).await;
    let open = opening.reached().await;
    let interface = std::slice::from_ref(&open.params["NetworkInterfaceId"]);
    throttle(&world);
    opening.release();
    until_refused(&world, 12).await; // of the interfaces, each three times where it was given up then
    sight::isolated(&world.aws, interface).await.unwrap_err();
    world.proxy.recover(SWAP);
    world.until_aws("closed", async || sight::isolated(&world.aws, interface).await).await;
    let calls = world.proxy.log();
    let on_it = |c: &&Call| c.action == SWAP && c.params.get("NetworkInterfaceId") == Some(&interface[0]);
    let close = calls.iter().filter(on_it).find(|c| c.seq > open.seq && c.succeeded()).unwrap();
    let reads = calls.iter().filter(|c| (open.seq..close.seq).contains(&c.seq) && c.action == READ).count();
    assert_eq!(reads, 0, "before that pass had ended");
    world.proxy.clear();
    world.until("inc", "Contained", "True").await;
    sight::isolated(&world.aws, interfaces).await.unwrap();
}

#[tokio::test]
async fn a_conversion_that_aws_refuses_is_not_called_attempted_and_goes_on_later() {
    let (world, _guard) = world().await;
    let (id, interfaces) = (&world.scene.instances[0].id, &world.scene.instances[0].interfaces);
    with_openings_refused(&world).await;
    let message = world.until_quarantine_says(id, CONTAINED, "AwsUnreachable").await;
    assert!(message.contains("2 of 2 interfaces isolated") && !message.contains("attempted"), "{message}");
    let quarantine = world.quarantine_of(id).await.unwrap();
    assert!(interfaces.iter().all(|i| conversion(&quarantine, i) != Some(ConversionState::Closed)), "{quarantine:#?}");
    sight::isolated(&world.aws, interfaces).await.unwrap();

    world.proxy.recover(SWAP);
    until_converted(&world, id, interfaces).await;
    let (calls, group) = (world.proxy.changing(), conversion_group(&world).await.unwrap());
    for interface in interfaces {
        assert_eq!(moves(&calls, interface, &group).iter().filter(|c| c.succeeded()).count(), 1, "{interface}");
    }
    world.until("inc", "Contained", "True").await;
    sight::isolated(&world.aws, interfaces).await.unwrap();
}

#[tokio::test]
async fn an_open_window_is_closed_though_the_quarantine_is_suspended_and_nothing_else_is_done() {
    let (world, _guard) = world().await;
    let (id, interfaces) = (&world.scene.instances[0].id, &world.scene.instances[0].interfaces);
    with_openings_refused(&world).await; // so the windows stay on record as open
    world.suspend(id).await;
    let group = conversion_group(&world).await.unwrap();
    set_groups(&world, &interfaces[0], &[&group]).await; // as a crash would leave it
    set_groups(&world, &interfaces[1], &[&world.scene.groups[1]]).await;
    world.proxy.recover(SWAP);
    world.until_aws("closed", async || sight::isolated(&world.aws, &interfaces[..1]).await).await;
    let groups = sight::groups(&world.aws, interfaces).await.unwrap();
    assert_eq!(groups[&interfaces[1]], [world.scene.groups[1].clone()], "not repaired");
    assert!(moves(&world.proxy.changing(), &interfaces[0], &group).iter().all(|c| !c.succeeded()), "not converted");
    world.steer(id, json!({ "suspend": false })).await;
    until_converted(&world, id, interfaces).await;
    world.until_aws("isolated", async || sight::isolated(&world.aws, interfaces).await).await;
}

#[tokio::test]
async fn flows_that_began_through_the_opened_isolation_group_are_converted_whoever_took_the_rules_out() {
    let (world, _guard) = worlds(2).await;
    let [one, other] = &world.scene.instances[..] else { panic!("two") };
    let policy = json!({ "ec2Instance": { "contain": [{ "isolateNetwork": { "severTrackedConnections": "Always" } }] } });
    world.plane.apply(&world.policy("always", policy).to_string()).await.unwrap();
    let (policy, targets) = (world.policy_name("always"), json!([world.instance_target(0), world.instance_target(1)]));
    world.declare("inc", "Contain", json!({ "policyRef": { "name": policy }, "targets": targets })).await;
    world.until("inc", "Contained", "True").await;
    for instance in [one, other] {
        until_converted(&world, &instance.id, &instance.interfaces).await;
    }
    world.suspend(&other.id).await;
    let isolation = sight::groups(&world.aws, &one.interfaces).await.unwrap()[&one.interfaces[0]][0].clone();
    allow(&world, &isolation, "198.51.100.7/32").await;
    until_opened(&world, &one.interfaces, 2).await;
    until_opened(&world, &other.interfaces, 1).await;
    world.steer(&other.id, json!({ "suspend": false })).await;
    until_opened(&world, &other.interfaces, 2).await;
    world.until_answered(READ, 3).await; // the next sweeps find nothing to convert
    for instance in [one, other] {
        until_opened(&world, &instance.interfaces, 2).await;
        until_converted(&world, &instance.id, &instance.interfaces).await;
        sight::isolated(&world.aws, &instance.interfaces).await.unwrap();
    }
}

#[tokio::test]
async fn rules_in_the_isolation_group_go_though_the_record_is_refused_and_what_they_let_in_is_converted_later() {
    let (world, _guard) = world().await;
    let (id, interfaces) = (&world.scene.instances[0].id, &world.scene.instances[0].interfaces);
    contain(&world, "Always").await;
    world.until("inc", "Contained", "True").await;
    until_converted(&world, id, interfaces).await;
    let frozen = freeze(&world, &world.quarantine_of(id).await.unwrap().name_any()).await;
    let isolation = sight::groups(&world.aws, interfaces).await.unwrap()[&interfaces[0]][0].clone();
    allow(&world, &isolation, "198.51.100.7/32").await;
    sight::isolated(&world.aws, interfaces).await.unwrap_err();
    world.until_aws("nothing gets through", async || sight::isolated(&world.aws, interfaces).await).await;
    world.until_quarantine_says(id, CONTAINED, "NotRecorded").await;
    world.until_answered(READ, 2).await;
    until_opened(&world, interfaces, 1).await; // what is not on record is not opened
    Api::<ValidatingAdmissionPolicyBinding>::all(world.kube.clone())
        .delete(&frozen, &DeleteParams::default())
        .await
        .unwrap();
    until_opened(&world, interfaces, 2).await;
    until_converted(&world, id, interfaces).await;
}

/// From now on nobody changes the spec of that Quarantine, until the binding of the name that is returned is deleted.
async fn freeze(world: &World<'_>, quarantine: &str) -> String {
    let name = format!("freeze-{}", world.aws.account);
    let rules = json!([{
        "apiGroups": ["firebreak.dev"], "apiVersions": ["*"], "operations": ["UPDATE"], "resources": ["quarantines"]
    }]);
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": { "name": name },
        "spec": {
            "matchConstraints": { "resourceRules": rules },
            "matchConditions": [{ "name": "it", "expression": format!("object.metadata.name == '{quarantine}'") }],
            "validations": [{ "expression": "object.spec == oldObject.spec", "message": "frozen" }],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": { "name": name },
        "spec": { "policyName": name, "validationActions": ["Deny"] },
    });
    for manifest in [policy, binding] {
        world.plane.apply(&manifest.to_string()).await.unwrap();
    }
    let (api, try_it) =
        (Api::<Quarantine>::all(world.kube.clone()), PatchParams { dry_run: true, ..PatchParams::default() });
    eventually("frozen", SOON, async || {
        let changed = api.patch(quarantine, &try_it, &Patch::Merge(json!({ "spec": { "suspend": true } }))).await;
        ensure!(changed.is_err(), "it can be changed");
        Ok(())
    })
    .await;
    name
}

/// Waits until each was opened so often in all.
async fn until_opened(world: &World<'_>, interfaces: &[String], times: usize) {
    let group = conversion_group(world).await.unwrap();
    world
        .until_aws("converted", async || {
            let calls = world.proxy.changing();
            let opened: Vec<_> = interfaces.iter().map(|i| moves(&calls, i, &group).len()).collect();
            ensure!(opened.iter().all(|opened| *opened == times), "{opened:?}, not {times}: {calls:#?}");
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn an_interface_that_the_attacker_put_into_our_group_before_is_converted_all_the_same() {
    let (world, _guard) = world().await;
    let (id, interfaces) = (&world.scene.instances[0].id, &world.scene.instances[0].interfaces);
    let group = group_named(&world, "firebreak-isolation").await.expect("made ahead");
    allow(&world, &group, "198.51.100.7/32").await;
    set_groups(&world, &interfaces[0], &[&world.scene.groups[0], &group]).await;
    set_groups(&world, &interfaces[1], &[&group]).await;
    for interface in interfaces {
        give_public_address(&world, interface).await;
    }
    contain(&world, "Auto").await;
    until_converted(&world, id, interfaces).await;
    world.until_aws("isolated", async || sight::isolated(&world.aws, interfaces).await).await;
    let original = world.quarantine_of(id).await.unwrap().spec.original.unwrap();
    let found = &original[&format!("isolateNetwork/found-{}", interfaces[0])].0;
    assert!(found.contains(&world.scene.groups[0]) && original.contains_key("isolateNetwork/unknown"), "{original:?}");
}

/// What decides about a conversion: the cut, and its repair, do not wait for it.
#[tokio::test]
async fn while_aws_shows_no_routes_what_is_moved_goes_back_and_it_is_not_called_contained() {
    for hangs in [false, true] {
        let (world, _guard) = world().await;
        let (id, interfaces) = (&world.scene.instances[0].id, &world.scene.instances[0].interfaces);
        if hangs {
            world.proxy.hang("DescribeRouteTables");
        } else {
            world.proxy.fail("DescribeRouteTables", 403, "UnauthorizedOperation", "not authorized");
        }
        contain(&world, "Auto").await;
        let reason = if hangs { "AwsUnreachable" } else { "AccessDenied" };
        let message = world.until_quarantine_says(id, CONTAINED, reason).await;
        let told = "2 of 2 interfaces isolated; whether its tracked flows are to be cut is not known";
        assert!(message.contains(told) && message.contains("ec2:DescribeRouteTables"), "{message}");
        set_groups(&world, &interfaces[0], &[&world.scene.groups[0]]).await;
        world.look_now().await;
        world.until_aws("moved back", async || sight::isolated(&world.aws, interfaces).await).await;
        world.proxy.clear();
        world.look_now().await;
        world.until("inc", "Contained", "True").await;
        let skipped = |q: &Quarantine| interfaces.iter().all(|i| conversion(q, i) == Some(ConversionState::Skipped));
        world.until_quarantine(id, "decided", skipped).await;
        sight::isolated(&world.aws, interfaces).await.unwrap();
    }
}

#[tokio::test]
async fn never_opens_no_interface() {
    let (world, _guard) = world().await;
    let (id, interfaces) = (&world.scene.instances[0].id, &world.scene.instances[0].interfaces);
    give_public_address(&world, &interfaces[0]).await;
    contain(&world, "Never").await;
    world.until("inc", "Contained", "True").await;
    sight::isolated(&world.aws, interfaces).await.unwrap();
    assert_eq!(conversion_group(&world).await, None);
    assert!(world.quarantine_of(id).await.unwrap().spec.conversions.is_empty());
}

#[tokio::test]
async fn auto_converts_what_has_a_public_address_and_skips_what_cannot_be_reached_from_outside() {
    let (world, _guard) = world().await;
    let (id, interfaces) = (&world.scene.instances[0].id, &world.scene.instances[0].interfaces);
    give_public_address(&world, &interfaces[0]).await;
    contain(&world, "Auto").await;
    world.until("inc", "Contained", "True").await;
    let quarantine = world.until_quarantine(id, "decided", |q| q.spec.conversions.len() == 2).await;
    world.until_quarantine(id, "closed", |q| conversion(q, &interfaces[0]) == Some(ConversionState::Closed)).await;
    assert_eq!(conversion(&quarantine, &interfaces[1]), Some(ConversionState::Skipped));
    let (calls, group) = (world.proxy.changing(), conversion_group(&world).await.unwrap());
    assert_eq!((moves(&calls, &interfaces[0], &group).len(), moves(&calls, &interfaces[1], &group).len()), (1, 0));
    sight::isolated(&world.aws, interfaces).await.unwrap();
}

async fn give_public_address(world: &World<'_>, interface: &str) {
    let address = world.aws.ec2.allocate_address().domain("vpc".into()).send().await.unwrap().allocation_id.unwrap();
    let call = world.aws.ec2.associate_address().allocation_id(address).network_interface_id(interface);
    call.send().await.unwrap();
}

#[tokio::test]
async fn auto_converts_what_has_a_route_to_an_internet_gateway() {
    let (world, _guard) = world().await;
    let (id, interfaces) = (&world.scene.instances[0].id, &world.scene.instances[0].interfaces);
    world.scene.open_to_internet(&world.aws).await.unwrap();
    contain(&world, "Auto").await;
    world.until("inc", "Contained", "True").await;
    until_converted(&world, id, interfaces).await;
    sight::isolated(&world.aws, interfaces).await.unwrap();
}
