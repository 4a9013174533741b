//! What a containment changes and a release gives back.

use std::collections::BTreeMap;

use firebreak_tests::scene::USER;
use firebreak_tests::sight;
use firebreak_tests::world::World;

/// What a release gives back exactly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Of each interface, in order
    pub groups: BTreeMap<String, Vec<String>>,
    /// The status of each
    pub keys: BTreeMap<String, String>,
    /// Inline, but for denies of old sessions
    pub policies: Vec<String>,
    /// Attached policies
    pub attached: Vec<String>,
    /// The user's permissions boundary
    pub boundary: Option<String>,
    /// Firebreak's on the instance, and all of the user's
    pub tags: BTreeMap<String, String>,
    /// Denies of old sessions
    pub residual: usize,
}

impl Picture {
    /// Now.
    pub async fn of(world: &World<'_>) -> Self {
        let (aws, instance) = (&world.aws, &world.scene.instances[0]);
        let (residual, policies): (Vec<_>, Vec<_>) = sight::inline_policies(aws)
            .await
            .unwrap()
            .into_iter()
            .partition(|policy| policy.starts_with("firebreak-sessions-until-"));
        let mut tags = sight::marks(aws, &instance.id).await.unwrap();
        let user = aws.iam.list_user_tags().user_name(USER).send().await.unwrap();
        tags.extend(user.tags.into_iter().map(|t| (t.key, t.value)));
        Self {
            groups: sight::groups(aws, &instance.interfaces).await.unwrap(),
            keys: sight::keys(aws).await.unwrap(),
            policies,
            attached: sight::attached_policies(aws).await.unwrap(),
            boundary: sight::boundary(aws).await.unwrap(),
            tags,
            residual: residual.len(),
        }
    }
}
