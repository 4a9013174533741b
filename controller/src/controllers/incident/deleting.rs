//! A deleted Incident: it waits for no AWS call, no account, no policy and no event, so that a namespace can always go.

use firebreak_crds::{DeletionPolicy, Incident};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, ResourceExt};

use super::holds::{End, let_go_everywhere};
use crate::controllers::{Ctx, Error, find, set_finalizer, terminating_crds};

/// Ends every hold as the Incident says, or retains it where the Incident goes with something larger; then lets it go.
///
/// # Errors
/// When the API server must be asked again: nothing is concluded from its silence.
pub async fn let_go(ctx: &Ctx, api: &Api<Incident>, incident: &Incident) -> Result<(), Error> {
    let decided = incident.spec.deletion_policy == DeletionPolicy::Release && !cascade(ctx, incident).await?;
    let end = if decided { End::LetGo } else { End::Retain };
    let_go_everywhere(ctx, incident, end).await?;
    set_finalizer(api, incident, false).await.map(|_| ())
}

/// What goes because its namespace or its CRD goes was decided by nobody.
async fn cascade(ctx: &Ctx, incident: &Incident) -> Result<bool, Error> {
    let name = incident.namespace().unwrap_or_default();
    let namespace = find("read a namespace", Api::<Namespace>::all(ctx.client.clone()).get(&name)).await?;
    let going = namespace.is_none_or(|n| n.metadata.deletion_timestamp.is_some());
    Ok(going || !terminating_crds(&ctx.client).await?.is_empty())
}
