//! An AwsAccount that was made again under its name, of another AWS account: what is contained in the first is neither looked for nor
//! given back in the second, which has users of the same names.

use firebreak_crds::{ABANDON, AwsAccount, Quarantine};
use firebreak_tests::emulator::{Aws, role_arn};
use firebreak_tests::eventually::gone;
use firebreak_tests::scene::{Scene, USER};
use firebreak_tests::world::{SOON, World};
use firebreak_tests::{shared, sight};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::ground_up::world;

/// Lets the AwsAccount go though what is contained needs it.
async fn abandoned(world: &World<'_>) {
    let (api, name) = (Api::<AwsAccount>::all(world.kube.clone()), world.account_name());
    let abandon = json!({ "metadata": { "annotations": { ABANDON: api.get(&name).await.unwrap().uid() } } });
    api.patch(&name, &PatchParams::default(), &Patch::Merge(abandon)).await.unwrap();
}

/// Makes the AwsAccount again under its name, for that account.
async fn made_again_for(world: &World<'_>, aws: &Aws) {
    let (api, name) = (Api::<AwsAccount>::all(world.kube.clone()), world.account_name());
    api.delete(&name, &DeleteParams::default()).await.unwrap();
    gone(&api, &name, SOON).await;
    let spec = json!({ "accountId": aws.account, "assumeRole": { "roleArn": role_arn(&aws.account) } });
    world.plane.apply(&world.account(spec).to_string()).await.unwrap();
    world.account_ready().await;
}

/// It says which account it is of, and which one that is now.
async fn refuses(world: &World<'_>, other: &Aws) {
    let says = |q: &Quarantine| q.status.iter().flat_map(|s| &s.conditions).find(|c| c.type_ == "Stalled").cloned();
    let wrong = |q: &Quarantine| {
        says(q).is_some_and(|c| {
            [&"WrongAccount".to_owned(), &world.aws.account, &other.account].iter().all(|w| c.message.contains(*w))
        })
    };
    world.until_quarantine(USER, "says that the account is another", wrong).await;
}

#[tokio::test]
async fn nothing_is_done_in_an_account_that_has_the_name_of_another_and_the_record_stays() {
    let (world, _guard) = world().await;
    let other = shared::new_account().await;
    Scene::seed(&other).await.unwrap();
    let shown = async || (sight::user(&other).await.unwrap(), sight::keys(&other).await.unwrap());
    let before = shown().await;
    let spec = json!({ "targets": [world.user_target()] });
    world.declare("inc", "Contain", spec).await;
    world.until("inc", "Contained", "True").await;
    world.change("inc", json!({ "suspend": true })).await; // else it would hold, as it says, the user of the account that has the name now

    abandoned(&world).await;
    made_again_for(&world, &other).await;
    refuses(&world, &other).await;
    world.let_go("inc", USER).await;
    world.look_now().await;
    let asked = |q: &Quarantine| q.status.as_ref().is_some_and(|s| s.last_handled_reconcile_at.is_some());
    let kept = world.until_quarantine(USER, "looked at again", asked).await;
    refuses(&world, &other).await;
    assert!(kept.spec.original.is_some_and(|o| !o.is_empty()), "the way back");
    assert_eq!(shown().await, before, "the user of the same name is another");
    sight::cut_off(&world.aws).await.unwrap();

    made_again_for(&world, &world.aws).await; // the way out that is told: nothing in the other account needs it
    world.until("inc", "Released", "True").await;
    world.until_nothing_is_held().await;
    assert!(sight::attached_policies(&world.aws).await.unwrap().is_empty(), "given back where it was contained");
    assert_eq!(shown().await, before);
}
