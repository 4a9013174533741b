//! What is contained, with which actions, while the controller is killed.

use std::fmt;

use firebreak_tests::cases::{Case, INSTANCE, USER, case};
use firebreak_tests::in_force::in_force;
use firebreak_tests::sight;
use firebreak_tests::tampering::undo;
use firebreak_tests::world::World;
use serde_json::{Value, json};

/// What somebody undoes of the usual policy.
const USUAL: [Case; 2] = [case("isolateNetwork", INSTANCE), case("deactivateAccessKeys", USER)];

/// What the victims of one matrix have in common.
#[derive(Debug, Clone, Copy)]
pub enum Scenario {
    /// The usual policy on an instance and a user, with evidence; isolation groups are made ahead.
    GroupsAhead,
    /// The same; isolation groups are made when they are needed.
    GroupsOnDemand,
    /// One action by itself, with all that it needs made when it is needed.
    Only(&'static Case),
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Only(case) => write!(f, "{case}"),
            usual => write!(f, "{usual:?}"),
        }
    }
}

impl Scenario {
    /// The one action, if it is one.
    pub fn case(self) -> Option<&'static Case> {
        if let Self::Only(case) = self { Some(case) } else { None }
    }

    /// `AwsAccount.spec`.
    pub fn account(self) -> Value {
        let groups = if matches!(self, Self::GroupsAhead) { "AllVpcs" } else { "OnDemand" };
        json!({ "prepare": { "isolationGroups": groups } })
    }

    /// The policy. All that can come back does, and each interface has its window for tracked flows in the usual one.
    pub fn policy(self, world: &World<'_>) -> Value {
        let usual = json!({
            "ec2Instance": {
                "contain": [{ "isolateNetwork": { "severTrackedConnections": "Always" } }],
                "evidence": [{ "ebsSnapshots": {} }],
            },
            "iamUser": { "contain": [{ "denyAll": {} }, { "deactivateAccessKeys": {} }] },
            "release": { "reactivateAccessKeys": true },
        });
        self.case().map_or_else(|| world.policy("standard", usual), |case| case.policy(world))
    }

    /// What the Incident says besides the usual.
    pub fn spec(self, world: &World<'_>) -> Value {
        self.case().map_or_else(|| json!({}), |case| case.spec(world))
    }

    /// Makes what only the action finds.
    pub async fn dress(self, world: &World<'_>) -> anyhow::Result<()> {
        match self.case() {
            Some(case) => case.dress(world).await,
            None => Ok(()),
        }
    }

    /// Whether it is in force in AWS.
    pub async fn in_force(self, world: &World<'_>) -> anyhow::Result<()> {
        let Some(case) = self.case() else {
            sight::isolated(&world.aws, &world.scene.instances[0].interfaces).await?;
            return sight::cut_off(&world.aws).await;
        };
        in_force(world, case).await
    }

    /// Whether anybody can undo it.
    pub fn can_be_undone(self) -> bool {
        self.case().is_none_or(Case::can_be_undone)
    }

    /// What an attacker does while nobody watches: what was there before is there again. An error where there is nothing to undo.
    pub async fn attack(self, world: &World<'_>) -> anyhow::Result<()> {
        for case in self.case().map_or(&USUAL[..], std::slice::from_ref) {
            undo(world, case).await?;
        }
        Ok(())
    }
}
