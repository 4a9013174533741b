//! Every file of `examples/` is applied, and does what its comments say.

use std::path::Path;

use firebreak_crds::{AwsAccount, Incident};
use firebreak_tests::eventually::condition;
use firebreak_tests::world::{SOON, World};
use firebreak_tests::{scene, sight};
use kube::Api;

use crate::ground_up::unannounced;

/// The examples in the order in which `kubectl apply -f examples/` takes them.
fn examples() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let mut files: Vec<_> = files
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read_to_string(path).unwrap()))
        .collect();
    files.sort();
    files
}

/// The command in the example's comment that sets the mode.
fn command<'a>(text: &'a str, what: &str) -> Vec<&'a str> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix("# ")?.strip_prefix(what)).unwrap();
    let (words, patch) = line.trim().strip_prefix("kubectl ").unwrap().split_once(" '").unwrap();
    words.split(' ').chain([patch.trim_end_matches('\'')]).collect()
}

#[tokio::test]
async fn the_examples_plan_contain_and_give_back() {
    let (world, _guard) = unannounced().await;
    let interfaces = &world.scene.instances[0].interfaces;
    let before = sight::groups(&world.aws, interfaces).await.unwrap();
    scene::role(&world.aws).await.unwrap();
    let role = sight::role(&world.aws).await.unwrap();
    let files = examples();
    assert!(files.len() >= 9, "{files:?}");
    for (name, text) in &files {
        let here = text
            .replace("111122223333", &world.aws.account)
            .replace("i-0123456789abcdef0", &world.scene.instances[0].id)
            .replace("AKIAIOSFODNN7EXAMPLE", &world.scene.access_keys[0])
            .replace("\n  regions:", &format!("\n  endpointUrl: {}\n  regions:", world.proxy.url()));
        assert!(!here.contains("0123456789"), "{name} has another id to replace");
        world.plane.apply(&here).await.unwrap_or_else(|error| panic!("{name}: {error:#}"));
    }
    condition(&Api::<AwsAccount>::all(world.kube.clone()), "prod", "Ready", "True", SOON).await;
    let incidents = Api::<Incident>::namespaced(world.kube.clone(), "security");
    let until = async |kind: &str, status: &str| condition(&incidents, "inc-2026-041", kind, status, SOON).await;
    let planned = until("Ready", "True").await;
    assert_eq!(planned.status.unwrap().plan.unwrap().targets.len(), 2);
    assert!(world.quarantines().await.is_empty());

    let incident = &files.iter().find(|(_, text)| text.contains("inc-2026-041")).unwrap().1;
    let contain = command(incident, "To contain:");
    world.plane.kubectl(&contain).await.unwrap();
    until("Contained", "True").await;
    until("EvidencePreserved", "True").await;
    sight::isolated(&world.aws, interfaces).await.unwrap();
    sight::cut_off(&world.aws).await.unwrap();

    release(&world, &contain).await;
    until("Released", "True").await;
    world.until_nothing_is_held().await;
    assert_eq!(sight::groups(&world.aws, interfaces).await.unwrap(), before);

    scene::tag(&world.aws, &world.scene.instances[0].id, "service", "web").await.unwrap();
    let incident = &files.iter().find(|(name, _)| name.contains("incident-selector")).unwrap().1;
    let contain = command(incident, "To contain:");
    world.plane.kubectl(&contain).await.unwrap();
    condition(&incidents, "inc-2026-046", "Contained", "True", SOON).await;
    sight::isolated(&world.aws, interfaces).await.unwrap();
    release(&world, &contain).await;
    condition(&incidents, "inc-2026-046", "Released", "True", SOON).await;
    world.until_nothing_is_held().await;
    assert_eq!(sight::groups(&world.aws, interfaces).await.unwrap(), before);

    let incident = &files.iter().find(|(name, _)| name.contains("incident-role")).unwrap().1;
    let contain = command(incident, "To contain:");
    world.plane.kubectl(&contain).await.unwrap();
    let until = async |kind: &str| condition(&incidents, "inc-2026-042", kind, "True", SOON).await;
    until("Contained").await;
    sight::role_denied(&world.aws).await.unwrap();
    release(&world, &contain).await;
    until("Released").await;
    assert_eq!(sight::Role { residual: vec![], ..sight::role(&world.aws).await.unwrap() }, role);
    an_access_key_is_contained(&world, &files).await;
    a_session_is_contained(&world, &files).await;
    condition(&incidents, "inc-2026-045", "Ready", "True", SOON).await;
}

/// The one of an access key, which the user got a moment ago.
async fn an_access_key_is_contained(world: &World<'_>, files: &[(String, String)]) {
    let (iam, key) = (&world.aws.iam, &world.scene.access_keys[0]);
    iam.update_access_key().user_name(scene::USER).access_key_id(key).status("Active".into()).send().await.unwrap();
    let incident = &files.iter().find(|(name, _)| name.contains("incident-access-key")).unwrap().1;
    let contain = command(incident, "To contain:");
    world.plane.kubectl(&contain).await.unwrap();
    let incidents = Api::<Incident>::namespaced(world.kube.clone(), "security");
    condition(&incidents, "inc-2026-043", "Contained", "True", SOON).await;
    assert_eq!(sight::keys(&world.aws).await.unwrap()[key], "Inactive");
    let inline = sight::inline_policies(&world.aws).await.unwrap();
    assert!(inline.contains(&format!("firebreak-revoke-sessions-{key}")), "{inline:?}");
    release(world, &contain).await;
    condition(&incidents, "inc-2026-043", "Released", "True", SOON).await;
}

async fn a_session_is_contained(world: &World<'_>, files: &[(String, String)]) {
    let incident = &files.iter().find(|(name, _)| name.contains("incident-role-session")).unwrap().1;
    let contain = command(incident, "To contain:");
    world.plane.kubectl(&contain).await.unwrap();
    let incidents = Api::<Incident>::namespaced(world.kube.clone(), "security");
    condition(&incidents, "inc-2026-044", "Contained", "True", SOON).await;
    let inline = sight::role(&world.aws).await.unwrap().inline;
    assert!(inline.contains_key("firebreak-deny-session-runner-17"), "{inline:?}");
    release(world, &contain).await;
    condition(&incidents, "inc-2026-044", "Released", "True", SOON).await;
}

/// The same command with the other mode.
async fn release(world: &World<'_>, contain: &[&str]) {
    let release: Vec<String> = contain.iter().map(|word| word.replace("Contain", "Release")).collect();
    world.plane.kubectl(&release.iter().map(String::as_str).collect::<Vec<_>>()).await.unwrap();
}
