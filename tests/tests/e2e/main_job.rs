//! The main job: contained, kept contained, given back.

use firebreak_tests::eventually::eventually;
use firebreak_tests::sight;
use firebreak_tests::world::SOON;
use serde_json::json;

use crate::ground_up::world;

#[tokio::test]
async fn an_incident_is_contained_and_given_back_exactly() {
    let (world, _guard) = world().await;
    let interfaces = &world.scene.instances[0].interfaces;
    let before = sight::groups(&world.aws, interfaces).await.unwrap();
    world.declare("inc", "Contain", json!({})).await;
    world.until("inc", "Contained", "True").await;
    sight::isolated(&world.aws, interfaces).await.unwrap();
    sight::cut_off(&world.aws).await.unwrap();
    world.until("inc", "EvidencePreserved", "True").await;
    assert_eq!(sight::snapshots(&world.aws).await.unwrap().len(), 3);

    world.release("inc").await;
    assert_eq!(sight::groups(&world.aws, interfaces).await.unwrap(), before);
    assert!(sight::keys(&world.aws).await.unwrap().values().all(|s| s == "Inactive"), "keys stay off by default");
    assert!(sight::attached_policies(&world.aws).await.unwrap().is_empty());
    assert_eq!(sight::boundary(&world.aws).await.unwrap(), None);
    let inline = sight::inline_policies(&world.aws).await.unwrap();
    assert!(inline.iter().any(|p| p.starts_with("firebreak-sessions-until-")), "{inline:?}");
    assert!(!inline.contains(&"firebreak-deny-all".to_owned()));
    assert!(sight::marks(&world.aws, &world.scene.instances[0].id).await.unwrap().is_empty());
    eventually("the Quarantines are gone", SOON, async || {
        let left = world.quarantines().await;
        anyhow::ensure!(left.is_empty(), "{left:#?}");
        Ok(())
    })
    .await;
}
