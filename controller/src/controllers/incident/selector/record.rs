//! What is on record of selectors: in the status, and in the Quarantines.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use firebreak_crds::conditions::RELEASED;
use firebreak_crds::{Incident, Mode, Quarantine, Resource, ResourceKind, SelectorStatus, is_true};
use kube::ResourceExt;

use crate::stores::Stores;

/// What is held by a selector of the Incident itself, and what one of its name left behind; by key.
#[derive(Default)]
pub struct Held {
    /// By its own.
    pub own: HashMap<String, BTreeSet<String>>,
    /// By those that a predecessor had.
    pub inherited: HashMap<String, BTreeSet<String>>,
    /// Every id that it holds, however it came to be a target.
    pub ids: BTreeSet<String>,
    /// Whether it holds anything at all.
    pub any: bool,
}

impl Held {
    /// As far as is known.
    pub fn of(incident: &Incident, quarantines: &[Arc<Quarantine>]) -> Self {
        let (uid, namespace, name) = (incident.uid(), incident.namespace(), incident.name_any());
        let mut held = Self::default();
        for quarantine in quarantines {
            for holder in &quarantine.spec.holders {
                let own = Some(&holder.uid) == uid.as_ref();
                let inherited = Some(&holder.namespace) == namespace.as_ref() && holder.name == name;
                held.any |= own;
                if own {
                    held.ids.insert(quarantine.spec.resource.id.clone());
                }
                let by_key = if own { &mut held.own } else { &mut held.inherited };
                if let (true, Some(key)) = (own || inherited, &holder.selector) {
                    by_key.entry(key.clone()).or_default().insert(quarantine.spec.resource.id.clone());
                }
            }
        }
        held
    }

    /// What is held by the selector of that key.
    pub fn take(of: &HashMap<String, BTreeSet<String>>, key: &str) -> BTreeSet<String> {
        of.get(key).cloned().unwrap_or_default()
    }
}

/// What was settled, while it counts: it ends with the release, or in mode Plan where nothing is held.
pub fn records(incident: &Incident, holds: bool) -> &[SelectorStatus] {
    let Some(status) = &incident.status else { return &[] };
    let counts = match incident.spec.mode {
        Mode::Release => true,
        Mode::Plan => holds,
        Mode::Contain => holds || !is_true(&status.conditions, RELEASED),
    };
    if counts { &status.selectors } else { &[] }
}

/// The instance of that id.
pub fn resource(record: &SelectorStatus, account_id: &str, id: &str) -> Resource {
    Resource {
        kind: ResourceKind::Ec2Instance,
        account_ref: record.account_ref.clone(),
        account_id: account_id.to_owned(),
        region: Some(record.region.clone()),
        id: id.to_owned(),
        user: None,
    }
}

/// All that is on record as chosen, whatever became of it.
pub fn resources<'a>(incident: &'a Incident, stores: &'a Stores) -> impl Iterator<Item = Resource> + 'a {
    let records = incident.status.iter().flat_map(|s| &s.selectors);
    let reached = records.filter_map(|r| Some((r, Stores::named(&stores.accounts, &r.account_ref.name)?)));
    reached.flat_map(|(record, account)| {
        let ids = record.instances.iter().chain(&record.awaiting_approval);
        ids.map(move |id| resource(record, &account.spec.account_id, id))
    })
}

/// Whether that resource is on record as chosen.
pub fn is_chosen(incident: &Incident, resource: &Resource) -> bool {
    let mut records = incident.status.iter().flat_map(|s| &s.selectors);
    records.any(|r| {
        r.account_ref == resource.account_ref
            && Some(&r.region) == resource.region.as_ref()
            && (r.instances.contains(&resource.id) || r.awaiting_approval.contains(&resource.id))
    })
}
