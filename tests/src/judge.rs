//! Whether any call gives access where none is to be given.
//!
//! The judge stands in the proxy: when a changing call comes, and before it goes on, it reads what the cluster has on record
//! at that moment. Allowed are calls that narrow, the way into the conversion group while that window is on record as open,
//! and the way back to the original while nobody holds. All else that it sees, it remembers.

mod rules;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use aws_sdk_iam::operation::get_role_policy::GetRolePolicyError;
use firebreak_crds::{Evidence, Quarantine};
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, Client};
use tokio::sync::OnceCell;

use self::rules::{INSTANCES, Needs, denies_instances, lifts, meets, needs, opens};
use crate::emulator::Aws;
use crate::plane;
use crate::proxy::Call;
use crate::shared;
use crate::sight;
use crate::world::World;

/// Judges every changing call of one world's account.
#[derive(Debug, Clone)]
pub struct Judge(Arc<Bench>);

#[derive(Debug)]
struct Bench {
    kubeconfig: PathBuf,
    /// Not used before the first call, on the proxy's runtime, where its connections live.
    aws: Aws,
    kube: OnceCell<Kube>,
    judged: Mutex<Vec<Judged>>,
}

#[derive(Debug)]
struct Judged {
    #[allow(dead_code)] // shown where it was wrong
    call: Call,
    needs: Option<Needs>,
    wrong: Option<String>,
}

/// A client lives on the runtime that it was made on: the proxy's.
struct Kube(Client);

impl std::fmt::Debug for Kube {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a client")
    }
}

impl Judge {
    /// Begins to judge. A world has one judge.
    pub async fn of(world: &World<'_>) -> Self {
        let judge = Self(Arc::new(Bench {
            kubeconfig: world.plane.kubeconfig(),
            aws: shared::emulator().await.account(&world.aws.account).await.expect("an account"),
            kube: OnceCell::new(),
            judged: Mutex::default(),
        }));
        let bench = judge.0.clone();
        world.proxy.observe(Arc::new(move |call| {
            let bench = bench.clone();
            Box::pin(async move { bench.judge(call).await })
        }));
        judge
    }

    /// Fails the test where a call was wrong. Returns how many opened something, and rightly so.
    pub fn assert_no_call_was_wrong(&self) -> usize {
        let judged = self.0.judged.lock().unwrap();
        let wrong: Vec<_> = judged.iter().filter(|j| j.wrong.is_some()).collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
        judged.iter().filter(|j| opens(j.needs.as_ref())).count()
    }
}

impl Bench {
    /// The record is read at once, beside all else: a little later it may say something else.
    async fn judge(&self, call: Call) {
        let (quarantines, evidence, names, denied) =
            tokio::join!(self.quarantines(), self.evidence(), self.names(), self.denied(&call));
        let (needs, wrong) = match (names, denied) {
            (Ok(names), Ok(denied)) => {
                let needs =
                    if denies_instances(&call) { lifts(&call, &denied) } else { needs(&call, &names, Timestamp::now()) };
                let wrong = meets(&needs, quarantines, evidence).err();
                (Some(needs), wrong)
            }
            (Err(blind), _) | (_, Err(blind)) => (None, Some(blind)),
        };
        let wrong = wrong.map(|wrong| format!("{wrong:#}"));
        self.judged.lock().unwrap().push(Judged { call, needs, wrong });
    }

    async fn quarantines(&self) -> anyhow::Result<Vec<Quarantine>> {
        let Kube(client) = self.kube.get_or_try_init(|| self.client()).await?;
        let all = Api::<Quarantine>::all(client.clone()).list(&ListParams::default()).await?;
        Ok(all.items.into_iter().filter(|q| q.spec.resource.account_id == self.aws.account).collect())
    }

    async fn evidence(&self) -> anyhow::Result<Vec<Evidence>> {
        let Kube(client) = self.kube.get_or_try_init(|| self.client()).await?;
        Ok(Api::<Evidence>::all(client.clone()).list(&ListParams::default()).await?.items)
    }

    async fn client(&self) -> anyhow::Result<Kube> {
        Ok(Kube(plane::client_of(&self.kubeconfig).await?))
    }

    /// The names of Firebreak's own security groups, and the instances of associations with instance profiles, by id.
    async fn names(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let answer = self.aws.ec2.describe_security_groups().send().await?;
        let all = answer.security_groups().iter();
        let groups = all.map(|g| (g.group_id.clone().unwrap_or_default(), g.group_name.clone().unwrap_or_default()));
        let mut names: BTreeMap<_, _> = groups.filter(|(_, name)| name.starts_with("firebreak-")).collect();
        let answer = self.aws.ec2.describe_iam_instance_profile_associations().send().await?;
        let of = |a: &aws_sdk_ec2::types::IamInstanceProfileAssociation| {
            Some((a.association_id.clone()?, a.instance_id.clone()?))
        };
        names.extend(answer.iam_instance_profile_associations().iter().filter_map(of));
        Ok(names)
    }

    /// What the policy that lists the denied sessions of instances says before the call, where the call changes it.
    async fn denied(&self, call: &Call) -> anyhow::Result<String> {
        if !denies_instances(call) {
            return Ok(String::new());
        }
        let role = call.params.get("RoleName").cloned().unwrap_or_default();
        let answer = self.aws.iam.get_role_policy().role_name(role).policy_name(INSTANCES).send().await;
        match answer {
            Ok(answer) => Ok(sight::decoded(&answer.policy_document)),
            Err(e) if e.as_service_error().is_some_and(GetRolePolicyError::is_no_such_entity_exception) => Ok(String::new()),
            Err(e) => Err(e.into()),
        }
    }
}
