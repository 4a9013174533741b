//! Evidence is asked for at the moment of the hold, and delays nothing.

use firebreak_crds::conditions::{READY, STALLED};
use firebreak_crds::{Evidence, EvidenceAction, EvidenceSpec, Incident, IncidentRef, evidence_name, get_condition};
use kube::api::PostParams;
use kube::{Api, ResourceExt};
use tokio::sync::Semaphore;

use super::resolve::Resolved;
use crate::controllers::{Ctx, Error, kube};
use crate::stores::Stores;

/// The names of the evidence that the policy asks for, with what to collect.
pub fn wanted<'a>(incident: &Incident, target: &'a Resolved) -> impl Iterator<Item = (String, &'a EvidenceAction)> {
    let uid = incident.uid().unwrap_or_default();
    target.evidence.iter().map(move |e| (evidence_name("ebssnapshots", &target.resource, &uid), e))
}

/// Whether any of it is to be asked for still, as far as is known.
pub fn is_due(ctx: &Ctx, incident: &Incident, target: &Resolved) -> bool {
    wanted(incident, target).any(|(name, _)| Stores::named(&ctx.stores.evidence, &name).is_none())
}

/// How a piece of evidence stands, in words: None where there is no such object yet.
pub fn standing(name: &str, evidence: Option<&Evidence>) -> String {
    let ready = evidence.and_then(|e| e.status.as_ref()).and_then(|s| get_condition(&s.conditions, READY));
    format!("{name}: {}", ready.map_or("not started", |c| &c.message))
}

/// Why a piece of evidence will not be complete unless a person does something.
pub fn problem(evidence: &Evidence) -> Option<&str> {
    let conditions = &evidence.status.as_ref()?.conditions;
    get_condition(conditions, STALLED).filter(|c| c.status == "True").map(|c| c.reason.as_str())
}

/// Makes what is not there. The name carries the Incident's uid, so nothing is taken twice. `places` are for those who write.
///
/// # Errors
/// When the API server must be asked again.
pub async fn request(ctx: &Ctx, incident: &Incident, target: &Resolved, places: &Semaphore) -> Result<(), Error> {
    let api = Api::<Evidence>::all(ctx.client.clone());
    for (name, collect) in wanted(incident, target) {
        if Stores::named(&ctx.stores.evidence, &name).is_some() {
            continue;
        }
        let incident_ref = IncidentRef {
            uid: incident.uid().unwrap_or_default(),
            namespace: incident.namespace().unwrap_or_default(),
            name: incident.name_any(),
        };
        let _place = places.acquire().await;
        let spec = EvidenceSpec { incident_ref, resource: target.resource.clone(), collect: collect.clone() };
        match kube("ask for evidence", api.create(&PostParams::default(), &Evidence::new(&name, spec))).await {
            Ok(_) | Err(Error::Changed(_)) => {} // 409: it is there already
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
