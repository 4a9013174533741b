//! The story: plan, contain, hold against the attacker, preserve, release.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use firebreak_crds::{Incident, Mode};
use firebreak_tests::controller_process::ControllerProcess;
use firebreak_tests::eventually::eventually;
use firebreak_tests::milestones::{Milestones, isolation_group, swap};
use firebreak_tests::proxy::Call;
use firebreak_tests::scene::USER;
use firebreak_tests::{sight, world};
use futures::{StreamExt, TryStreamExt};
use kube::Api;
use kube::api::{ListParams, WatchEvent, WatchParams};
use tokio::task::JoinHandle;

use crate::narrator::Narrator;
use crate::picture::{self, Picture, side_by_side};
use crate::stage::Stage;

const SOON: Duration = Duration::from_secs(30);
/// For this long after a write of its own, Firebreak takes a difference for AWS's lag: it repairs, but calls it no drift.
const LAG: Duration = Duration::from_secs(11);
const INCIDENT: &str = "inc/inc-2026-041 -n security";
const ROLE_INCIDENT: &str = "inc/inc-2026-042 -n security";

/// Tells it all; what was started is still running when this returns.
pub async fn tell(n: &mut Narrator, stage: &Stage) -> anyhow::Result<ControllerProcess> {
    let controller = install(n, stage).await?;
    let before = picture::take(&stage.aws, &stage.scene).await?;
    plan(n, stage, &before).await?;
    let contained = contain(n, stage, &before).await?;
    evidence(n, stage).await?;
    attack(n, stage).await?;
    release(n, stage, &before, &contained).await?;
    role(n, stage).await?;
    Ok(controller)
}

async fn install(n: &mut Narrator, stage: &Stage) -> anyhow::Result<ControllerProcess> {
    n.chapter("Install");
    n.run("helm install firebreak charts/firebreak -n firebreak-system --create-namespace --hide-notes").await?;
    n.say(
        "There are no nodes here, so the Deployment's pod stays Pending: the controller runs as a process beside the control \
         plane, with the token of the chart's ServiceAccount. It looks for drift every 5 s instead of every 30 s, so that you need not wait.",
    );
    let binary = std::env::current_exe()?.with_file_name("firebreak-controller");
    ensure!(binary.exists(), "{} is missing: run `make demo`, which builds it", binary.display());
    let mut controller = world::controller(&stage.plane, binary, "5s").await?;
    controller.start()?;
    Ok(controller)
}

async fn plan(n: &mut Narrator, stage: &Stage, before: &Picture) -> anyhow::Result<()> {
    n.chapter("Plan: what would Firebreak do?");
    n.say(
        "examples/, with this demo's instance, key and AWS endpoint filled in: a namespace, an AWS account, policies, and an \
         incident for each kind of target. The first names an instance (two network interfaces, three volumes) and a user \
         (two active access keys).",
    );
    n.run("kubectl apply -f examples/").await?;
    n.run("kubectl wait awsaccount/prod --for=condition=Ready --timeout=30s").await?;
    n.run(&format!("kubectl wait {INCIDENT} --for=condition=Ready --timeout=30s")).await?;
    let calls = r#"kubectl get inc/inc-2026-041 -n security \
  -o jsonpath='{range .status.plan.targets[*]}{.resource}{"\n"}{range .calls[*]}  {@}{"\n"}{end}{end}'"#;
    eventually("the plan reckons with the isolation group that was made ahead", SOON, async || {
        let plan = n.quietly(calls).await?;
        ensure!(plan.contains("iam:") && !plan.contains("CreateSecurityGroup firebreak-isolation"), "{plan}");
        Ok(())
    })
    .await;
    n.run("kubectl get incidents -n security").await?;
    let plan = n.run(calls).await?;
    for call in ["ModifyNetworkInterfaceAttribute", "UpdateAccessKey", "PutUserPolicy", "CreateSnapshots"] {
        ensure!(plan.contains(call), "the plan lacks {call}");
    }
    let now = picture::take(&stage.aws, &stage.scene).await?;
    ensure!(now == *before, "a plan changed something in AWS: {now:?}");
    n.seen("The instance and the user are in AWS as they were before: a plan only looks. (The AwsAccount has the isolation group made ahead.)");
    Ok(())
}

async fn contain(n: &mut Narrator, stage: &Stage, before: &Picture) -> anyhow::Result<Picture> {
    n.chapter("Contain");
    let calls = stage.proxy.log().len();
    n.run("sed -i 's/mode: Plan$/mode: Contain/' examples/30-incident.yaml").await?;
    let accepted = watch_for_contain(stage).await?;
    n.run("kubectl apply -f examples/30-incident.yaml").await?;
    n.run(&format!("kubectl wait {INCIDENT} --for=condition=Contained --timeout=60s")).await?;
    let accepted = accepted.await??;
    sight::isolated(&stage.aws, &stage.scene.instances[0].interfaces).await?;
    sight::cut_off(&stage.aws).await?;
    tell_the_calls(n, stage, accepted, stage.proxy.log().split_off(calls)).await?;
    n.run("kubectl get incidents -A").await?;
    n.run("kubectl get quarantines").await?;
    let contained = picture::take(&stage.aws, &stage.scene).await?;
    side_by_side(&[("before", before), ("contained", &contained)]);
    n.gap();
    Ok(contained)
}

/// The moment at which the API server tells that the mode is Contain.
async fn watch_for_contain(stage: &Stage) -> anyhow::Result<JoinHandle<anyhow::Result<Instant>>> {
    let api = Api::<Incident>::namespaced(stage.plane.client().await, "security");
    let now = api.list(&ListParams::default()).await?.metadata.resource_version.context("a resourceVersion")?;
    Ok(tokio::spawn(async move {
        let mut changes = api.watch(&WatchParams::default(), &now).await?.boxed();
        while let Some(change) = changes.try_next().await? {
            if matches!(change, WatchEvent::Modified(incident) if incident.spec.mode == Mode::Contain) {
                return Ok(Instant::now());
            }
        }
        anyhow::bail!("the watch ended")
    }))
}

async fn tell_the_calls(n: &Narrator, stage: &Stage, accepted: Instant, mut log: Vec<Call>) -> anyhow::Result<()> {
    let group = isolation_group(&stage.aws, &stage.scene.vpc).await?;
    let times = Milestones::of(&log, &group);
    let (cut, out) = times.cut.zip(times.locked_out).context("it was contained by other calls than expected")?;
    n.say("What AWS was told, and when it had answered, in seconds since the API server had accepted the Incident:");
    log.sort_by_key(|call| call.finished);
    for (call, at) in log.iter().filter(|c| c.is_changing()).filter_map(|c| Some((c, c.finished?))) {
        println!("  {:6.2}  {}", seconds(at, accepted), told(call, &group, stage));
    }
    n.gap();
    let (cut, out) = (seconds(cut, accepted), seconds(out, accepted));
    n.seen(&format!("Both interfaces were in a group without rules after {cut:.2} s: that is the cut. AWS had accepted the user's denies, and all keys off, after {out:.2} s; AWS itself enforces that some seconds later."));
    n.gap();
    n.say(
        "Then each interface went through an open group for 3 seconds and back. That ends the connections which the VPC was \
         tracking already: a change of groups alone lets them live.",
    );
    Ok(())
}

async fn evidence(n: &mut Narrator, stage: &Stage) -> anyhow::Result<()> {
    n.chapter("Evidence");
    n.run(&format!("kubectl wait {INCIDENT} --for=condition=EvidencePreserved --timeout=60s")).await?;
    n.run("kubectl get evidence").await?;
    let volumes = r#"kubectl get evidence \
  -o jsonpath='{range .items[*].status.volumes[*]}{.volumeId}  {.snapshotId}  {.state}  {.completedAt}{"\n"}{end}'"#;
    let shown = n.run(volumes).await?;
    let snapshots = sight::snapshots(&stage.aws).await?;
    ensure!(snapshots.len() == 3, "AWS shows {} snapshots, not 3", snapshots.len());
    ensure!(snapshots.iter().all(|id| shown.contains(id)), "the Evidence names other snapshots than AWS shows");
    n.seen("AWS shows these three snapshots and no more. They outlive the incident.");
    Ok(())
}

async fn attack(n: &mut Narrator, stage: &Stage) -> anyhow::Result<()> {
    n.chapter("The attacker pushes back");
    let last = stage.proxy.changing().iter().filter_map(|c| c.finished).max().unwrap_or_else(Instant::now);
    n.say("(First 10 s pass: what changes so soon after Firebreak's own writes is repaired too, but AWS may just be late to show them, so it is not called drift.)");
    tokio::time::sleep((last + LAG).saturating_duration_since(Instant::now())).await;
    let (interface, key) = (&stage.scene.instances[0].interfaces[0], &stage.scene.access_keys[0]);
    n.say("Somebody with other credentials switches a key back on, and moves an interface back to its old group:");
    println!("    iam UpdateAccessKey {key} Active\n    ec2 ModifyNetworkInterfaceAttribute {interface} -> web\n");
    let calls = stage.proxy.log().len();
    let active = aws_sdk_iam::types::StatusType::Active;
    stage.aws.iam.update_access_key().user_name(USER).access_key_id(key).status(active).send().await?;
    let attack = stage.aws.ec2.modify_network_interface_attribute().network_interface_id(interface);
    attack.groups(&stage.scene.groups[0]).send().await?;
    let attacked = Instant::now();
    ensure!(sight::cut_off(&stage.aws).await.is_err(), "the attack did nothing");
    let repaired = |log: &[Call], action: &str| log.iter().find(|c| c.action == action && c.succeeded())?.finished;
    let (swapped, off) = eventually("Firebreak undoes both", SOON, async || {
        let log = stage.proxy.log().split_off(calls);
        let swapped = repaired(&log, "ModifyNetworkInterfaceAttribute").context("the interface is still open")?;
        Ok((swapped, repaired(&log, "UpdateAccessKey").context("the key is still on")?))
    })
    .await;
    eventually("AWS shows both undone", SOON, async || {
        sight::isolated(&stage.aws, &stage.scene.instances[0].interfaces).await?;
        sight::cut_off(&stage.aws).await
    })
    .await;
    n.seen(&format!(
        "Undone: the key {:.1} s and the interface {:.1} s after the attack. The next look for drift was due within 5 s.",
        seconds(off, attacked),
        seconds(swapped, attacked)
    ));
    let events = "kubectl events -n security --for inc/inc-2026-041 --types=Warning";
    eventually("an event DriftDetected for each", SOON, async || {
        let events = stage.plane.kubectl(&events.split(' ').skip(1).collect::<Vec<_>>()).await?;
        ensure!(events.contains(interface.as_str()) && events.contains(key.as_str()), "{events}");
        Ok(())
    })
    .await;
    n.gap();
    n.run(events).await?;
    n.run("kubectl get quarantines").await?;
    Ok(())
}

async fn release(n: &mut Narrator, stage: &Stage, before: &Picture, contained: &Picture) -> anyhow::Result<()> {
    n.chapter("Release");
    n.run("sed -i 's/mode: Contain$/mode: Release/' examples/30-incident.yaml").await?;
    n.run("kubectl apply -f examples/30-incident.yaml").await?;
    n.run(&format!("kubectl wait {INCIDENT} --for=condition=Released --timeout=60s")).await?;
    n.run("kubectl get incidents -A -o wide").await?;
    n.run("kubectl get quarantines").await?;
    n.run("kubectl get evidence").await?;
    let released = picture::take(&stage.aws, &stage.scene).await?;
    side_by_side(&[("before", before), ("contained", contained), ("released", &released)]);
    n.gap();
    check_released(before, &released)?;
    n.seen("The interfaces are in the groups that they had before, in order; the marks and the denies are gone.");
    n.seen("The keys stay off: a key that leaked stays leaked. A policy can say otherwise (spec.release).");
    n.seen("Sessions issued before the release stay denied until all have expired; then that policy goes by itself.");
    n.seen("The snapshots stay.");
    Ok(())
}

/// Another kind of target, by another policy.
async fn role(n: &mut Narrator, stage: &Stage) -> anyhow::Result<()> {
    n.chapter("A role");
    let before = sight::role(&stage.aws).await?;
    n.say("examples/31-incident-role.yaml names a role, and the policy that does all that can be done to one.");
    n.run("sed -i 's/mode: Plan$/mode: Contain/' examples/31-incident-role.yaml").await?;
    n.run("kubectl apply -f examples/31-incident-role.yaml").await?;
    n.run(&format!("kubectl wait {ROLE_INCIDENT} --for=condition=Contained --timeout=60s")).await?;
    n.run(&format!("kubectl get {ROLE_INCIDENT} -o wide")).await?;
    sight::role_denied(&stage.aws).await?;
    ensure!(sight::role(&stage.aws).await?.trust != before.trust, "the trust policy is what it was");
    n.seen("AWS shows the role denied, its old sessions too, and nobody can assume it.");
    n.gap();
    n.run("sed -i 's/mode: Contain$/mode: Release/' examples/31-incident-role.yaml").await?;
    n.run("kubectl apply -f examples/31-incident-role.yaml").await?;
    n.run(&format!("kubectl wait {ROLE_INCIDENT} --for=condition=Released --timeout=60s")).await?;
    let after = sight::role(&stage.aws).await?;
    ensure!(sight::Role { residual: vec![], ..after.clone() } == before, "AWS shows another role: {after:?}");
    n.seen("Policies, boundary, trust and tags are what they were; sessions from before stay denied for 12 hours.");
    Ok(())
}

fn check_released(before: &Picture, released: &Picture) -> anyhow::Result<()> {
    for ((what, was), (_, is)) in before.iter().zip(released) {
        let right = match what.as_str() {
            "snapshots" => *is == ["3"],
            key if key.starts_with("key ") => *is == ["Inactive"],
            "user's inline policies" => is.iter().all(|p| was.contains(p) || p.starts_with("firebreak-sessions-until-")),
            _ => is == was,
        };
        ensure!(right, "after the release, {what}: {is:?}, before {was:?}");
    }
    Ok(())
}

/// One changing call in few words.
fn told(call: &Call, isolation: &str, stage: &Stage) -> String {
    let p = |name: &str| call.params.get(name).cloned().unwrap_or_default();
    let what = match call.action.as_str() {
        "ModifyNetworkInterfaceAttribute" => {
            let (interface, group) = swap(call).unwrap_or_default();
            let to = if group == isolation { "firebreak-isolation" } else { "firebreak-conversion" };
            let nth = stage.scene.instances[0].interfaces.iter().position(|i| i == interface).unwrap_or_default();
            format!("interface {nth} -> {to}")
        }
        "UpdateAccessKey" => format!("{} {}", p("AccessKeyId"), p("Status")),
        "PutUserPolicy" => p("PolicyName"),
        "AttachUserPolicy" => p("PolicyArn"),
        "PutUserPermissionsBoundary" => p("PermissionsBoundary"),
        "CreateSnapshots" => "all volumes, in one call".into(),
        "CreateSecurityGroup" => p("GroupName"),
        "AuthorizeSecurityGroupIngress" | "AuthorizeSecurityGroupEgress" => "firebreak-conversion: all traffic".into(),
        _ => String::new(),
    };
    format!("{}:{:32} {what}", call.service, call.action).trim_end().to_owned()
}

fn seconds(at: Instant, since: Instant) -> f64 {
    at.saturating_duration_since(since).as_secs_f64()
}
