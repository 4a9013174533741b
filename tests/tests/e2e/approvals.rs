//! Two people: what the policy lets nobody do alone waits until somebody else approved the plan as it stands. All else is in
//! force meanwhile.

use firebreak_crds::{ApprovalStatus, Incident};
use firebreak_tests::approving::{APPROVERS, approve, blank, let_approve};
use firebreak_tests::eventually::gone;
use firebreak_tests::sight;
use firebreak_tests::world::{ADMIN, SOON, World, standard_policy, uid};
use kube::api::{DeleteParams, ListParams};
use serde_json::{Value, json};

use crate::ground_up::{Guard, world};

/// The group whose approval the policy asks for.
const LEADS: &str = "leads";

/// A world whose policy lets nobody switch access keys off, alone; and people who may approve.
async fn two_people(approvals: Value) -> (World<'static>, Guard) {
    let (world, guard) = world().await;
    let mut policy = standard_policy();
    policy["approvals"] = approvals;
    world.plane.apply(&world.policy("standard", policy).to_string()).await.unwrap();
    let_approve(&world).await;
    (world, guard)
}

fn of_the_leads() -> Value {
    json!({ "actions": ["deactivateAccessKeys"], "group": LEADS })
}

fn asked(incident: &Incident) -> ApprovalStatus {
    incident.status.clone().unwrap_or_default().approval.expect("something to approve")
}

/// An Approval by bob that was written by hand, not by the command that the status gives.
fn by_hand(world: &World<'_>, incident: &Incident) -> Value {
    json!({
        "apiVersion": "firebreak.dev/v1alpha1",
        "kind": "Approval",
        "metadata": { "name": "early", "namespace": world.namespace },
        "spec": {
            "incidentRef": { "name": "inc", "uid": uid(incident) },
            "planDigest": asked(incident).digest,
            "approvedBy": "bob",
        },
    })
}

async fn refused(world: &World<'_>, user: &str, groups: &[&str], approval: &Value) -> String {
    let created = world.plane.create_as(user, groups, &approval.to_string()).await;
    created.expect_err(&format!("accepted from {user}: {approval}")).to_string()
}

/// How many keys of the user are on.
async fn active_keys(world: &World<'_>) -> usize {
    sight::keys(&world.aws).await.unwrap().values().filter(|s| *s == "Active").count()
}

/// Long enough for the keys to go off, if nothing held them back: what else is done to the user was looked at again.
async fn until_looked_at(world: &World<'_>) {
    world.until_answered("ListAttachedUserPolicies", 2).await;
}

/// After that nothing counted: it waits, and both keys are on.
async fn still_waits(world: &World<'_>) {
    until_looked_at(world).await;
    assert_eq!((world.said("inc", "Approved").await.0.as_str(), active_keys(world).await), ("AwaitingApproval", 2));
}

/// Waits until the condition `Approved` says that.
async fn until_told(world: &World<'_>, words: &str) {
    world
        .until_aws(words, async || {
            let (_, message) = world.said("inc", "Approved").await;
            anyhow::ensure!(message.contains(words), "{message}");
            Ok(())
        })
        .await;
}

/// What needs no approval is read back in force.
async fn all_else_in_force(world: &World<'_>) {
    sight::isolated(&world.aws, &world.scene.instances[0].interfaces).await.unwrap();
    assert_eq!(sight::attached_policies(&world.aws).await.unwrap(), ["AWSDenyAll"]);
}

#[tokio::test]
async fn what_needs_approval_waits_for_a_second_person_and_all_else_goes_at_once() {
    let (world, _guard) = two_people(of_the_leads()).await;
    world.declare("of-nobody", "Plan", json!({})).await; // the admission policy judges an Approval with each Incident of the namespace
    world.declare("inc", "Contain", json!({ "requestedBy": ADMIN, "authors": ["arthur"] })).await;
    let waiting = world.until("inc", "Approved", "False").await;
    world.until_reason("inc", "Contained", "AwaitingApproval").await;
    world.until_reason("inc", "Stalled", "AwaitingApproval").await;
    all_else_in_force(&world).await;
    let status = asked(&waiting);
    assert_eq!((status.required, status.group.as_deref()), (1, Some(LEADS)));
    assert_eq!((status.actions, status.approved_by), (vec!["deactivateAccessKeys".to_owned()], vec![]));
    let target = world.until_target("inc", 1, |t| t.message.contains("deactivateAccessKeys waits for approval")).await;
    assert_eq!(target.contained, "False", "what was asked for is not all in force");
    until_looked_at(&world).await;
    assert_eq!(active_keys(&world).await, 2);

    let by = async |name: &str| blank(&world, name).await;
    let in_the_name_of_another = refused(&world, "bob", &[APPROVERS, LEADS], &by("carol").await).await;
    assert!(in_the_name_of_another.contains("your own user name, bob"), "{in_the_name_of_another}");
    let own = refused(&world, ADMIN, &["system:masters", LEADS], &by(ADMIN).await).await;
    assert!(own.contains("you asked for this Incident"), "{own}");
    let author = refused(&world, "arthur", &[APPROVERS, LEADS], &by("arthur").await).await;
    assert!(author.contains("one of the authors"), "{author}");
    let no_member = refused(&world, "bob", &[APPROVERS], &by("bob").await).await;
    assert!(no_member.contains("no member of leads"), "{no_member}");
    let mut earlier = by("bob").await;
    earlier["spec"]["incidentRef"]["uid"] = json!("an earlier one");
    let earlier = refused(&world, "bob", &[APPROVERS, LEADS], &earlier).await;
    assert!(earlier.contains("another Incident of this name"), "{earlier}");
    assert_eq!(active_keys(&world).await, 2);

    let mut for_nobody = by("bob").await;
    for_nobody["spec"]["groups"] = json!([]);
    approve(&world, "bob", &[APPROVERS, LEADS], &for_nobody).await;
    still_waits(&world).await;

    approve(&world, "bob", &[APPROVERS, LEADS], &by("bob").await).await;
    let approved = world.until("inc", "Approved", "True").await;
    assert_eq!(asked(&approved).approved_by, ["bob"]);
    world.until_aws("the keys are off", async || sight::cut_off(&world.aws).await).await;
    world.until("inc", "Ready", "True").await;
    let events = world.events_of("inc").await;
    for told in ["AwaitingApproval: deactivateAccessKeys waits", "Approved: approved by bob"] {
        assert!(events.iter().any(|e| e.starts_with(told)), "no {told} in {events:#?}");
    }
}

#[tokio::test]
async fn a_deleted_approval_takes_nothing_away_and_a_changed_plan_needs_a_new_one() {
    let (world, _guard) = two_people(json!({ "actions": ["deactivateAccessKeys", "isolateNetwork"] })).await;
    let user = json!({ "requestedBy": ADMIN, "targets": [world.user_target()] });
    world.declare("inc", "Contain", user).await;
    world.until("inc", "Approved", "False").await;
    approve(&world, "bob", &[APPROVERS], &blank(&world, "bob").await).await;
    world.until_aws("the keys are off", async || sight::cut_off(&world.aws).await).await;
    let first = asked(&world.until("inc", "Ready", "True").await).digest;

    world.change("inc", json!({ "targets": [world.instance_target(0), world.user_target()] })).await;
    let more = world.until("inc", "Approved", "False").await;
    assert_ne!(asked(&more).digest, first);
    assert_eq!(asked(&more).approved_by, Vec::<String>::new());
    world.until_target("inc", 0, |t| t.reason == "AwaitingApproval" && t.contained == "False").await;
    world.until_target("inc", 1, |t| t.contained == "True").await;
    world.until_reason("inc", "Ready", "AwaitingApproval").await;
    assert!(world.quarantine_of(&world.scene.instances[0].id).await.is_none(), "nothing of it is held");
    sight::isolated(&world.aws, &world.scene.instances[0].interfaces).await.unwrap_err();

    world.approvals().delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
    world.look_now().await;
    world.until_swept(2).await;
    sight::cut_off(&world.aws).await.unwrap();
    let held = world.quarantine_of("mallory").await.unwrap().spec.holders[0].actions.len();
    assert_eq!(held, 2, "what was approved stays held");

    approve(&world, "bob", &[APPROVERS], &blank(&world, "bob").await).await;
    world.until("inc", "Contained", "True").await;
    world.until("inc", "Ready", "True").await;
    sight::isolated(&world.aws, &world.scene.instances[0].interfaces).await.unwrap();
    world.release("inc").await;
    world.until_nothing_is_held().await;
    let released = world.incidents().get("inc").await.unwrap().status.unwrap();
    assert_eq!(released.approval, None);
}

#[tokio::test]
async fn a_plan_shows_what_will_wait_and_may_be_approved_ahead_by_as_many_as_it_takes() {
    let (world, _guard) = two_people(json!({ "actions": ["deactivateAccessKeys"], "count": 2 })).await;
    world.declare("inc", "Plan", json!({ "requestedBy": ADMIN })).await;
    let planned = world.until_reason("inc", "Ready", "Planned").await;
    assert_eq!(asked(&planned).digest, planned.status.unwrap().plan.unwrap().digest);
    let (_, message) = world.said("inc", "Ready").await;
    assert!(message.contains("deactivateAccessKeys waits for approval"), "{message}");

    let (bob, carol) = (blank(&world, "bob").await, blank(&world, "carol").await);
    approve(&world, "bob", &[APPROVERS], &bob).await;
    approve(&world, "bob", &[APPROVERS], &bob).await;
    until_told(&world, "1 of 2 given").await;
    approve(&world, "carol", &[APPROVERS], &carol).await;
    world.until("inc", "Approved", "True").await;
    assert_eq!(active_keys(&world).await, 2, "a plan changes nothing");

    world.change("inc", json!({ "mode": "Contain" })).await;
    world.until("inc", "Contained", "True").await;
    sight::cut_off(&world.aws).await.unwrap();
}

#[tokio::test]
async fn without_a_name_on_the_incident_nothing_can_be_approved() {
    let (world, _guard) = two_people(json!({ "actions": ["deactivateAccessKeys"] })).await;
    let mut other = world.incident("inc", "Contain", json!({ "requestedBy": "bob" }));
    let refused_name = world.plane.apply(&other.to_string()).await.unwrap_err().to_string();
    assert!(refused_name.contains("your own user name, admin"), "{refused_name}");
    other["spec"]["requestedBy"] = Value::Null;
    world.plane.apply(&other.to_string()).await.unwrap();
    let incident = world.until("inc", "Approved", "False").await;
    let (_, message) = world.said("inc", "Approved").await;
    assert!(message.contains("set it to your own user name"), "{message}");
    let approval = by_hand(&world, &incident);
    let early = refused(&world, "bob", &[APPROVERS], &approval).await;
    assert!(early.contains("nobody put their name to this Incident"), "{early}");

    world.change("inc", json!({ "requestedBy": ADMIN })).await;
    approve(&world, "bob", &[APPROVERS], &approval).await;
    world.until_aws("the keys are off", async || sight::cut_off(&world.aws).await).await;
    let mut changed = world.approvals().get("early").await.unwrap();
    changed.spec.approved_by = "carol".into();
    let frozen = world.approvals().replace("early", &kube::api::PostParams::default(), &changed).await.unwrap_err();
    assert!(frozen.to_string().contains("cannot be changed"), "{frozen}");
    // Whoever names themselves the requester is not the second person any more; labels are anybody's.
    let (namespace, patch) = (format!("-n={}", world.namespace), r#"{"spec":{"title":"mine"}}"#);
    let edit = ["patch", "inc", "inc", &namespace, "--type=merge", "-p", patch, "--as=bob", "--as-group=system:masters"];
    let not_his_name = world.plane.kubectl(&edit).await.unwrap_err().to_string();
    assert!(not_his_name.contains("your own user name, bob"), "{not_his_name}");
    let label = ["label", "inc", "inc", &namespace, "seen=yes", "--as=bob", "--as-group=system:masters"];
    world.plane.kubectl(&label).await.unwrap();
    world.delete_incident("inc").await;
    world.approvals().delete("early", &DeleteParams::default()).await.unwrap();
    gone(&world.approvals(), "early", SOON).await;
}

/// Whoever is admin of a namespace has its ServiceAccounts, too.
#[tokio::test]
async fn a_service_account_is_a_second_person_only_on_behalf_of_a_group_that_the_policy_names() {
    let (world, _guard) = two_people(of_the_leads()).await;
    let robot = format!("system:serviceaccount:{}:robot", world.namespace);
    world.declare("inc", "Contain", json!({ "requestedBy": ADMIN })).await;
    world.until("inc", "Approved", "False").await;
    for groups in [json!([]), json!(["system:authenticated"]), json!(["system:serviceaccounts"])] {
        let mut alone = blank(&world, &robot).await;
        alone["spec"]["groups"] = groups;
        let alone = refused(&world, &robot, &[APPROVERS, "system:serviceaccounts"], &alone).await;
        assert!(alone.contains("a ServiceAccount is nobody in particular"), "{alone}");
    }
    let mut on_behalf_of_others = blank(&world, &robot).await;
    on_behalf_of_others["spec"]["groups"] = json!([APPROVERS]);
    approve(&world, &robot, &[APPROVERS], &on_behalf_of_others).await;
    still_waits(&world).await;

    approve(&world, &robot, &[APPROVERS, LEADS], &blank(&world, &robot).await).await;
    let approved = world.until("inc", "Approved", "True").await;
    assert_eq!(asked(&approved).approved_by, [robot]);
    world.until_aws("the keys are off", async || sight::cut_off(&world.aws).await).await;
}

#[tokio::test]
async fn what_a_service_account_asks_for_is_approved_on_behalf_of_a_group_or_not_at_all() {
    let (world, _guard) = two_people(json!({ "actions": ["deactivateAccessKeys"] })).await;
    let robot = format!("system:serviceaccount:{}:robot", world.namespace);
    let incident = world.incident("inc", "Contain", json!({ "requestedBy": robot }));
    world.plane.create_as(&robot, &["system:masters"], &incident.to_string()).await.unwrap();
    let incident = world.until("inc", "Approved", "False").await;
    let (_, message) = world.said("inc", "Approved").await;
    assert!(message.contains("approvals.group") && !message.contains("kubectl create"), "{message}");
    let mut approval = by_hand(&world, &incident);
    let alone = refused(&world, "bob", &[APPROVERS], &approval).await;
    assert!(alone.contains("a ServiceAccount asked for this Incident"), "{alone}");
    approval["spec"]["groups"] = json!([APPROVERS]);
    approve(&world, "bob", &[APPROVERS], &approval).await;
    still_waits(&world).await;

    let mut policy = standard_policy();
    policy["approvals"] = of_the_leads();
    world.plane.apply(&world.policy("standard", policy).to_string()).await.unwrap();
    until_told(&world, "kubectl create").await;
    approve(&world, "bob", &[APPROVERS, LEADS], &blank(&world, "bob").await).await;
    world.until("inc", "Approved", "True").await;
    world.until_aws("the keys are off", async || sight::cut_off(&world.aws).await).await;
}

/// The attacker deletes a key of theirs that waits with the rest.
#[tokio::test]
async fn what_is_deleted_in_aws_voids_no_approval() {
    let (world, _guard) = world().await;
    let policy = json!({
        "accessKey": { "contain": [{ "deactivateAccessKeys": {} }] },
        "iamUser": { "contain": [{ "denyAll": {} }, { "deactivateAccessKeys": {} }] },
        "approvals": { "actions": ["deactivateAccessKeys"] },
    });
    world.plane.apply(&world.policy("standard", policy).to_string()).await.unwrap();
    let_approve(&world).await;
    world.aws.iam.create_user().user_name("eve").send().await.unwrap();
    let made = world.aws.iam.create_access_key().user_name("eve").send().await.unwrap();
    let key = made.access_key.unwrap().access_key_id;
    let targets = json!([world.target_key(&key), world.user_target()]);
    world.declare("inc", "Contain", json!({ "requestedBy": ADMIN, "targets": targets })).await;
    world.until_target("inc", 0, |t| t.reason == "AwaitingApproval").await;
    let before = asked(&world.until("inc", "Approved", "False").await).digest;

    world.aws.iam.delete_access_key().user_name("eve").access_key_id(&key).send().await.unwrap();
    world.look_now().await;
    world.until_target("inc", 0, |t| t.reason == "KeyNotFound").await;
    let after = asked(&world.incidents().get("inc").await.unwrap()).digest;
    assert_eq!(after, before, "the plan is what the spec says, whatever AWS shows");
    approve(&world, "bob", &[APPROVERS], &blank(&world, "bob").await).await;
    world.until("inc", "Approved", "True").await;
    world.until_aws("the keys are off", async || sight::cut_off(&world.aws).await).await;
}
