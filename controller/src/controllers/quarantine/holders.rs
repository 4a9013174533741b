//! Holders whose Incident is gone.

use firebreak_crds::{Holder, HolderState, Incident, Quarantine};
use futures::future::join_all;
use kube::api::PostParams;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use tracing::warn;

use crate::controllers::{Ctx, Error, find, kube};

/// Marks as `Retained` each hold whose Incident a live read says is gone, however it went. The resource stays contained. Where that is not
/// known it holds, and nothing waits until it is: repair least of all.
///
/// # Errors
/// When the mark could not be written.
pub async fn retain_orphans(ctx: &Ctx, api: &Api<Quarantine>, quarantine: Quarantine) -> Result<Quarantine, Error> {
    let gone = join_all(quarantine.spec.holders.iter().map(|h| is_gone(ctx, h))).await;
    let mut next = quarantine.clone();
    for (holder, _) in next.spec.holders.iter_mut().zip(gone).filter(|(_, gone)| *gone) {
        holder.state = HolderState::Retained;
    }
    if next.spec == quarantine.spec {
        return Ok(quarantine);
    }
    kube("retain the hold of an Incident that is gone", api.replace(&next.name_any(), &PostParams::default(), &next)).await
}

/// The store answers the usual case; its silence is not believed. Of the Incident nothing is read but its uid: one that a newer version
/// wrote, and that this one does not understand, is there all the same.
async fn is_gone(ctx: &Ctx, holder: &Holder) -> bool {
    let key = ObjectRef::new(&holder.name).within(&holder.namespace);
    let is_it = |uid: Option<String>| uid.as_ref() == Some(&holder.uid);
    if holder.state != HolderState::Holding || ctx.stores.incidents.get(&key).is_some_and(|i| is_it(i.uid())) {
        return false;
    }
    let api = Api::<Incident>::namespaced(ctx.client.clone(), &holder.namespace);
    match find("read the Incident of a holder", api.get_metadata(&holder.name)).await {
        Ok(live) => live.is_none_or(|i| !is_it(i.uid())),
        Err(error) => {
            warn!(incident = %holder.name, namespace = %holder.namespace, %error, "whether it is gone is not known: it holds");
            false
        }
    }
}
