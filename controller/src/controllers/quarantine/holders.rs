//! Holders whose Incident is gone.

use firebreak_crds::{Holder, HolderState, Incident, Quarantine};
use kube::api::PostParams;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};

use crate::controllers::{Ctx, Error, find, kube};

/// Marks as `Retained` each hold whose Incident a live read says is gone, however it went. The resource stays contained.
///
/// # Errors
/// When the API server does not answer: then nothing is known, and nothing changes.
pub async fn retain_orphans(ctx: &Ctx, api: &Api<Quarantine>, quarantine: Quarantine) -> Result<Quarantine, Error> {
    let mut next = quarantine.clone();
    for holder in next.spec.holders.iter_mut().filter(|h| h.state == HolderState::Holding) {
        if is_gone(ctx, holder).await? {
            holder.state = HolderState::Retained;
        }
    }
    if next.spec == quarantine.spec {
        return Ok(quarantine);
    }
    kube("retain the hold of an Incident that is gone", api.replace(&next.name_any(), &PostParams::default(), &next)).await
}

/// The store answers the usual case; its silence is not believed.
async fn is_gone(ctx: &Ctx, holder: &Holder) -> Result<bool, Error> {
    let key = ObjectRef::new(&holder.name).within(&holder.namespace);
    if ctx.stores.incidents.get(&key).is_some_and(|i| i.uid().as_ref() == Some(&holder.uid)) {
        return Ok(false);
    }
    let api = Api::<Incident>::namespaced(ctx.client.clone(), &holder.namespace);
    let live = find("read the Incident of a holder", api.get(&holder.name)).await?;
    Ok(live.is_none_or(|i| i.uid().as_ref() != Some(&holder.uid)))
}
