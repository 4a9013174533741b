//! The ground itself holds: without this, no other test proves anything.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::ensure;
use aws_sdk_ec2::error::ProvideErrorMetadata;
use aws_sdk_ec2::types::Filter;
use firebreak_tests::emulator::{Aws, Emulator};
use firebreak_tests::eventually::{eventually, gone};
use firebreak_tests::plane::{ControllerManager, Plane};
use firebreak_tests::proxy::{Proxy, When};
use firebreak_tests::scene::Scene;
use firebreak_tests::shared;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::Api;

const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn kubectl_helm_and_clients_reach_the_plane() {
    let plane = shared::plane().await;
    assert!(plane.kubectl(&["version"]).await.unwrap().contains("Server Version: v1."));
    assert!(plane.helm(&["list", "--all-namespaces"]).await.unwrap().starts_with("NAME"));
    let namespaces = Api::<Namespace>::all(plane.client().await);
    namespaces.get("kube-system").await.unwrap();
    let refused = plane.kubectl(&["get", "configmap", "absent"]).await.unwrap_err();
    assert!(refused.to_string().contains("NotFound"), "{refused:#}");
}

#[tokio::test]
async fn a_namespace_dies_on_the_shared_plane() {
    let plane = shared::plane().await;
    plane.kubectl(&["create", "namespace", "short-lived"]).await.unwrap();
    plane.kubectl(&["delete", "namespace", "short-lived", "--wait=false"]).await.unwrap();
    gone(&Api::<Namespace>::all(plane.client().await), "short-lived", SOON).await;
}

#[tokio::test]
async fn a_plane_beside_is_another_cluster() {
    let shared = shared::plane().await;
    let beside = Plane::beside(shared, ControllerManager::Absent).await.unwrap();
    beside.kubectl(&["create", "configmap", "here"]).await.unwrap();
    let there = Api::<ConfigMap>::namespaced(shared.client().await, "default");
    assert_eq!(there.get_opt("here").await.unwrap(), None);
}

#[tokio::test]
async fn a_service_account_has_its_own_rights_and_its_writes_are_counted() {
    let plane = shared::plane().await;
    plane.kubectl(&["create", "serviceaccount", "robot"]).await.unwrap();
    plane.kubectl(&["create", "role", "robot", "--verb=create", "--resource=configmaps"]).await.unwrap();
    plane.kubectl(&["create", "rolebinding", "robot", "--role=robot", "--serviceaccount=default:robot"]).await.unwrap();
    let kubeconfig = plane.service_account_kubeconfig("default", "robot").await.unwrap();
    let robot = format!("--kubeconfig={}", kubeconfig.display());
    plane.kubectl(&[&robot, "create", "configmap", "by-robot"]).await.unwrap();
    plane.kubectl(&[&robot, "delete", "configmap", "by-robot"]).await.unwrap_err();
    let writes = plane.writes_of("system:serviceaccount:default:robot");
    let seen: Vec<_> = writes.iter().map(|w| (w.verb.as_str(), w.resource.as_str(), w.name.as_str(), w.code)).collect();
    assert_eq!(seen, [("create", "configmaps", "by-robot", 201), ("delete", "configmaps", "by-robot", 403)]);
}

#[tokio::test]
async fn corrections_are_seen_by_the_rust_sdk() {
    let aws = shared::new_account().await;
    let scene = Scene::seed(&aws).await.unwrap();
    let [web, backup] = &scene.groups;
    let second = &scene.instances[0].interfaces[1];
    aws.ec2.modify_network_interface_attribute().network_interface_id(second).groups(web).send().await.unwrap();
    assert_eq!(groups_of(&aws, second).await, std::slice::from_ref(web));
    aws.ec2.delete_security_group().group_id(backup).send().await.unwrap();
    let refused = aws.ec2.delete_security_group().group_id(web).send().await.unwrap_err();
    assert_eq!(refused.code(), Some("DependencyViolation"));
}

async fn groups_of(aws: &Aws, interface: &str) -> Vec<String> {
    let filter = Filter::builder().name("network-interface-id").values(interface).build();
    let found = aws.ec2.describe_network_interfaces().filters(filter).send().await.unwrap();
    found.network_interfaces()[0].groups().iter().filter_map(|group| group.group_id.clone()).collect()
}

#[tokio::test]
async fn a_test_decides_when_snapshots_complete() {
    let emulator = Emulator::start().await.unwrap();
    emulator.complete_snapshots_after(4).await.unwrap();
    let aws = emulator.account("210987654321").await.unwrap();
    let scene = Scene::seed(&aws).await.unwrap();
    aws.ec2.create_snapshot().volume_id(&scene.instances[0].volumes[0]).send().await.unwrap();
    let mut states = Vec::new();
    for _ in 0..4 {
        let seen = aws.ec2.describe_snapshots().owner_ids("self").send().await.unwrap();
        states.push(seen.snapshots()[0].state().unwrap().as_str().to_owned());
    }
    assert_eq!(states, ["pending", "pending", "pending", "completed"]);
}

/// A proxy, and an account whose clients go through it.
async fn proxied() -> (Proxy, Aws) {
    let proxy = Proxy::start(&shared::emulator().await.url()).unwrap();
    let aws = shared::new_account().await.through(&proxy);
    (proxy, aws)
}

#[tokio::test]
async fn the_proxy_logs_calls() {
    let (proxy, aws) = proxied().await;
    let scene = Scene::seed(&aws).await.unwrap();
    let filter = Filter::builder().name("instance-id").values(&scene.instances[0].id).build();
    aws.ec2.describe_instances().filters(filter).send().await.unwrap();
    aws.iam.get_user().user_name("nobody").send().await.unwrap_err();
    let log = proxy.log();
    let [looked, failed] = &log[log.len() - 2..] else { panic!("{log:?}") };
    assert_eq!((looked.service.as_str(), looked.action.as_str()), ("ec2", "DescribeInstances"));
    assert_eq!((looked.params["Filter.1.Value.1"].as_str(), looked.status), (scene.instances[0].id.as_str(), Some(200)));
    assert_eq!((failed.service.as_str(), failed.error.as_deref()), ("iam", Some("NoSuchEntity")));
    assert_eq!(proxy.changing().len(), log.len() - 2);
    assert_eq!(proxy.count(|call| call.action == "CreateAccessKey" && call.succeeded()), 2);
}

#[tokio::test]
async fn the_proxy_adds_little() {
    let (proxy, aws) = proxied().await;
    let direct = shared::new_account().await;
    let (mut through, mut straight) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        through.push(time_of(&aws).await);
        straight.push(time_of(&direct).await);
    }
    through.sort();
    straight.sort();
    println!("median of 20 calls: straight {:?}, through the proxy {:?}", straight[10], through[10]);
    assert_eq!(proxy.count(|call| call.action == "GetCallerIdentity"), 20);
}

async fn time_of(aws: &Aws) -> Duration {
    let started = Instant::now();
    aws.sts.get_caller_identity().send().await.unwrap();
    started.elapsed()
}

#[tokio::test]
async fn the_proxy_fails_calls_in_the_shape_of_each_service() {
    let (proxy, aws) = proxied().await;
    proxy.fail("Describe*", 503, "RequestLimitExceeded", "Request limit exceeded.");
    proxy.fail("ListUsers", 403, "AccessDenied", "not you");
    let ec2 = aws.ec2.describe_vpcs().send().await.unwrap_err();
    let iam = aws.iam.list_users().send().await.unwrap_err();
    assert_eq!((ec2.code(), ec2.message()), (Some("RequestLimitExceeded"), Some("Request limit exceeded.")));
    assert_eq!((iam.code(), iam.message()), (Some("AccessDenied"), Some("not you")));
    proxy.recover("ListUsers");
    aws.iam.list_users().send().await.unwrap();
    proxy.clear();
    aws.ec2.describe_vpcs().send().await.unwrap();
}

#[tokio::test]
async fn the_proxy_delays_calls_and_hangs_them() {
    let (proxy, aws) = proxied().await;
    proxy.delay(Duration::from_millis(300));
    assert!(time_of(&aws).await >= Duration::from_millis(300));
    proxy.clear();
    proxy.hang("GetCallerIdentity");
    let call = tokio::spawn(async move { time_of(&aws).await });
    eventually("the call has come", SOON, async || {
        ensure!(proxy.log().len() == 2, "{:?}", proxy.log());
        Ok(())
    })
    .await;
    assert!(proxy.log()[1].finished.is_none() && !call.is_finished());
    proxy.clear();
    call.await.unwrap();
}

#[tokio::test]
async fn a_call_held_before_has_not_happened() {
    let (proxy, aws) = proxied().await;
    let mut held = proxy.hold_changing(2, When::Before);
    make_user(&aws, "first").await.unwrap();
    let call = tokio::spawn({
        let aws = aws.clone();
        async move { make_user(&aws, "second").await }
    });
    assert_eq!(held.reached().await.params["UserName"], "second");
    assert_eq!(users(&aws).await, ["first"]);
    held.release();
    call.await.unwrap().unwrap();
    assert_eq!(users(&aws).await, ["first", "second"]);
}

#[tokio::test]
async fn a_call_held_after_has_happened_though_its_caller_never_hears() {
    let (proxy, aws) = proxied().await;
    let mut held = proxy.hold_changing(1, When::After);
    let call = tokio::spawn({
        let aws = aws.clone();
        async move { make_user(&aws, "first").await }
    });
    assert_eq!(held.reached().await.action, "CreateUser");
    assert_eq!(users(&aws).await, ["first"]);
    drop(held);
    call.await.unwrap().unwrap_err();
    assert_eq!(proxy.changing()[0].status, None);
}

#[tokio::test]
async fn the_proxy_answers_as_the_last_time() {
    let (proxy, aws) = proxied().await;
    assert!(users(&aws).await.is_empty());
    proxy.stale("ListUsers", SOON);
    make_user(&aws, "first").await.unwrap();
    assert!(users(&aws).await.is_empty());
    proxy.recover("ListUsers");
    assert_eq!(users(&aws).await, ["first"]);
}

async fn make_user(aws: &Aws, name: &str) -> anyhow::Result<()> {
    aws.iam.create_user().user_name(name).send().await?;
    Ok(())
}

async fn users(aws: &Aws) -> Vec<String> {
    let listed = aws.iam.list_users().send().await.unwrap();
    listed.users().iter().map(|user| user.user_name.clone()).collect()
}

/// Not a test: what the next one runs as a process of its own, and kills.
#[tokio::test]
#[ignore = "started, and killed, by nothing_outlives_a_killed_test_process"]
async fn starts_everything_and_waits() {
    let Ok(file) = std::env::var("FIREBREAK_PIDS") else { return };
    let (plane, emulator) = tokio::join!(Plane::start(), Emulator::start());
    let (plane, emulator) = (plane.unwrap(), emulator.unwrap());
    let mut written: Vec<_> = plane.pids().iter().map(ToString::to_string).collect();
    written.push(emulator.pid().to_string());
    let folder = plane.folder().display();
    std::fs::write(format!("{file}.partial"), format!("{folder} {}", written.join(" "))).unwrap();
    std::fs::rename(format!("{file}.partial"), file).unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn nothing_outlives_a_killed_test_process() {
    let file = shared::plane().await.folder().join("pids");
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "ground::starts_everything_and_waits", "--ignored"])
        .env("FIREBREAK_PIDS", &file)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let started = eventually("all is started", 4 * SOON, async || Ok(std::fs::read_to_string(&file)?)).await;
    process.kill().unwrap();
    process.wait().unwrap();
    let (folder, pids) = started.split_once(' ').unwrap();
    assert_eq!(pids.split(' ').count(), 4);
    eventually("all is gone", SOON, async || {
        let left: Vec<_> = pids.split(' ').filter(|pid| Path::new("/proc").join(pid).exists()).collect();
        ensure!(left.is_empty(), "processes {left:?}");
        ensure!(!Path::new(folder).exists(), "{folder}");
        Ok(())
    })
    .await;
}
