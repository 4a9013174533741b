//! Holds: the entries of Incidents in `Quarantine.spec.holders`. Only by `create`, and `replace` with the resourceVersion just
//! read: everything else can drop a hold or bring a deleted object back.

use firebreak_crds::conditions::RELEASED;
use firebreak_crds::{
    ContainAction, FINALIZER, HELD_AGAIN, Holder, HolderState, Incident, Mode, Quarantine, QuarantineSpec, Resource,
    is_true, quarantine_name,
};
use futures::{FutureExt, StreamExt, stream};
use kube::api::PostParams;
use kube::{Api, ResourceExt};
use tokio::sync::Semaphore;

use super::resolve::{Refusal, Resolved};
use super::{evidence, pace, protection};
use crate::clock;
use crate::containment::{DESTRUCTIVE, grow, merge_release, name_of};
use crate::controllers::{Ctx, Error, held_again, is_abandoned, kube, list};
use crate::stores::Stores;

/// What `spec.holders` has room for.
const HOLDERS: usize = 64;
/// So many Quarantines are written at once: the API server serves others too.
pub const SIDE_BY_SIDE: usize = 50;

/// How a hold ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The entry goes.
    LetGo,
    /// The entry stays as `Retained`.
    Retain,
}

/// Whether anything of it may begin: what is protected may not, nor what is one too many at this moment.
///
/// # Errors
/// Why not.
pub async fn may_begin(ctx: &Ctx, incident: &Incident, target: &Resolved) -> Result<(), Refusal> {
    let found = Stores::named(&ctx.stores.quarantines, &quarantine_name(&target.resource));
    let uid = incident.uid().unwrap_or_default();
    if !target.actions.is_empty() && !found.as_ref().is_some_and(|q| q.spec.is_held_by(&uid)) {
        protection::look(ctx, target).await?;
    }
    let begins = found.is_none() && (!target.actions.is_empty() || evidence::is_due(ctx, incident, target));
    if !begins || !pace::is_limited(target) {
        return Ok(());
    }
    let mut admitted = ctx.memory.admitted(); // locked before the Quarantines are read
    pace::claim(|| ctx.stores.quarantines.state(), &mut admitted, target, clock::now())
}

/// Holds the resource for this Incident. Some: it is held, or not, otherwise than the policy now says. `places` are for those who write.
///
/// # Errors
/// When the API server must be asked again.
pub async fn hold(ctx: &Ctx, incident: &Incident, target: &Resolved, places: &Semaphore) -> Result<Option<Refusal>, Error> {
    let api = Api::<Quarantine>::all(ctx.client.clone());
    let name = quarantine_name(&target.resource);
    if target.actions.is_empty() {
        return Ok(Some(nothing(target)));
    }
    let _place = places.acquire().await;
    let found = Stores::named(&ctx.stores.quarantines, &name);
    let Some(found) = found else { return create(&api, incident, target, &name).await };
    if let Some(refusal) = mismatch(&found.spec.resource, &target.resource, &name) {
        return Ok(Some(refusal));
    }
    let (holder, stays) = holder(incident, target, &found.spec.holders);
    let note = (!stays.is_empty()).then(|| {
        let what = format!("{} is no longer in the policy; it stays in force until release", stays.join(", "));
        Refusal::new("ActionStays", what)
    });
    if found.spec.holders.iter().any(|h| is_same(h, &holder)) {
        return Ok(note);
    }
    if found.spec.holders.len() >= HOLDERS && !found.spec.holders.iter().any(|h| gives_place(h, &holder)) {
        let what =
            format!("{HOLDERS} Incidents hold Quarantine {name} already: it stays contained; release those that are over");
        return Ok(Some(Refusal::new("TooManyHolders", what)));
    }
    if is_going(&found) {
        return Ok(Some(Refusal::new("Releasing", "it was given back, and its Quarantine goes; a new one is made then")));
    }
    let mut next = (*found).clone();
    note_again(&mut next, &holder);
    put(&mut next.spec.holders, holder);
    kube("hold a resource", api.replace(&name, &PostParams::default(), &next)).await?;
    Ok(note)
}

/// Whether it will be gone in a moment. One that is being deleted and is not given back yet may stay for long, in a conflict that a
/// person must decide: that one is held again, since what was given back of it is open meanwhile, and its record is the true one.
fn is_going(quarantine: &Quarantine) -> bool {
    let released = quarantine.status.as_ref().is_some_and(|s| is_true(&s.conditions, RELEASED));
    quarantine.metadata.deletion_timestamp.is_some() && (released || is_abandoned(quarantine))
}

/// Notes a hold that begins while the Quarantine is being deleted: that deletion does not end it, whatever becomes of its Incident.
fn note_again(quarantine: &mut Quarantine, new: &Holder) {
    let holds = |h: &Holder| h.uid == new.uid && h.state == HolderState::Holding;
    let holders = &quarantine.spec.holders;
    if quarantine.metadata.deletion_timestamp.is_none() || holders.iter().any(holds) {
        return;
    }
    let noted = holders.iter().filter(|h| h.uid != new.uid && held_again(quarantine, h));
    let uids: Vec<&str> = noted.chain([new]).map(|h| h.uid.as_str()).collect();
    let uids = uids.join(" ");
    quarantine.annotations_mut().insert(HELD_AGAIN.into(), uids);
}

/// Why there is nothing to hold.
fn nothing(target: &Resolved) -> Refusal {
    let none = "the policy has evidence, but no containment action, for this kind of target";
    target.waiting.first().cloned().unwrap_or_else(|| Refusal::new("NothingToDo", none))
}

async fn create(
    api: &Api<Quarantine>,
    incident: &Incident,
    target: &Resolved,
    name: &str,
) -> Result<Option<Refusal>, Error> {
    let mut quarantine = new(target, name);
    quarantine.spec.holders = vec![holder(incident, target, &[]).0];
    kube("hold a resource", api.create(&PostParams::default(), &quarantine)).await.map(|_| None)
}

/// A Quarantine that nobody holds yet. Its finalizer is in it from the first moment.
pub fn new(target: &Resolved, name: &str) -> Quarantine {
    let mut quarantine = Quarantine::new(name, QuarantineSpec::of(target.resource.clone(), Vec::new()));
    quarantine.metadata.finalizers = Some(vec![FINALIZER.into()]);
    quarantine
}

/// Two resources of one name: never the wrong one.
fn mismatch(held: &Resource, target: &Resource, name: &str) -> Option<Refusal> {
    if held == target {
        return None;
    }
    if held.account_ref != target.account_ref && held.arn() == target.arn() {
        let what =
            format!("Quarantine {name} holds it through AwsAccount {}: use that one in accountRef", held.account_ref.name);
        return Some(Refusal::new("NameCollision", what));
    }
    Some(Refusal::new("NameCollision", format!("Quarantine {name} is of another resource ({})", held.arn())))
}

/// What this Incident holds already: by its own entry, or by the one that its predecessor of the same name left behind. From that
/// one nothing that destroys: nobody has approved it for this Incident, whose own policy may not even have it.
pub fn actions(incident: &Incident, holders: &[Holder]) -> Vec<ContainAction> {
    let Some(entry) = entry(incident, holders) else { return Vec::new() };
    let own = Some(&entry.uid) == incident.uid().as_ref();
    entry.actions.iter().filter(|a| own || !DESTRUCTIVE.contains(&name_of(a))).cloned().collect()
}

/// This Incident's entry, or the one that its predecessor of the same name left behind.
fn entry<'a>(incident: &Incident, holders: &'a [Holder]) -> Option<&'a Holder> {
    let (uid, namespace, name) = (incident.uid(), incident.namespace(), incident.name_any());
    let mine = holders.iter().find(|h| Some(&h.uid) == uid.as_ref());
    mine.or_else(|| holders.iter().find(|h| Some(&h.namespace) == namespace.as_ref() && h.name == name))
}

/// This Incident's entry: grown from the one it has, or from the one that its predecessor of the same name left behind. Also
/// the actions that stay though the policy has them no more.
pub fn holder(incident: &Incident, target: &Resolved, holders: &[Holder]) -> (Holder, Vec<&'static str>) {
    let (uid, namespace, name) =
        (incident.uid().unwrap_or_default(), incident.namespace().unwrap_or_default(), incident.name_any());
    let (actions, stays) = grow(&actions(incident, holders), &target.actions);
    let (release, selector) = (target.release.clone(), target.chosen.as_ref().map(|c| c.selector.clone()));
    let (severity, state) = (Some(incident.spec.severity), HolderState::Holding);
    (Holder { uid, namespace, name, severity, state, actions, release, selector }, stays)
}

/// An entry of an earlier version, or under an earlier CRD, has no severity: it is not written again for that.
fn is_same(found: &Holder, wanted: &Holder) -> bool {
    found == wanted || (found.severity.is_none() && *found == Holder { severity: None, ..wanted.clone() })
}

/// In the place of this Incident's entry, or of its predecessor's.
pub fn put(holders: &mut Vec<Holder>, holder: Holder) {
    let place = holders.iter().position(|h| gives_place(h, &holder)).unwrap_or(holders.len());
    holders.retain(|h| !gives_place(h, &holder));
    holders.insert(place.min(holders.len()), holder);
}

/// Whether an entry is that Incident's own, or its predecessor's of the same name.
fn gives_place(there: &Holder, new: &Holder) -> bool {
    there.uid == new.uid || (there.namespace == new.namespace && there.name == new.name)
}

/// Ends every hold of this Incident, found by a live list, and looked for again until none is left. One in mode Release takes
/// over what its predecessor of the same name left behind, as one in mode Contain does. Says whether any was left to end: what is
/// known of the Quarantines may still be of before.
///
/// # Errors
/// When the API server must be asked again.
pub async fn let_go_everywhere(ctx: &Ctx, incident: &Incident, end: End) -> Result<bool, Error> {
    let api = Api::<Quarantine>::all(ctx.client.clone());
    let mine = |h: &Holder| is_mine(incident, h);
    let mut any = false;
    loop {
        let live = list::<Quarantine>(&ctx.client).await?;
        let holding: Vec<Quarantine> = live.into_iter().filter(|q| ends(q, mine, end)).collect();
        if holding.is_empty() {
            return Ok(any);
        }
        any = true;
        let endings: Vec<_> = holding.into_iter().map(|q| finish(&api, q, incident, end).boxed()).collect();
        let ended: Vec<Result<(), Error>> = stream::iter(endings).buffer_unordered(SIDE_BY_SIDE).collect().await;
        ended.into_iter().collect::<Result<Vec<_>, _>>()?;
    }
}

/// Whether an entry is this Incident's to let go.
pub fn is_mine(incident: &Incident, holder: &Holder) -> bool {
    let left_behind = holder.state == HolderState::Retained
        && Some(&holder.namespace) == incident.metadata.namespace.as_ref()
        && holder.name == incident.name_any();
    Some(&holder.uid) == incident.uid().as_ref() || (left_behind && incident.spec.mode == Mode::Release)
}

/// Whether an entry of the Incident is there and not yet as it should end.
fn ends(quarantine: &Quarantine, mine: impl Fn(&Holder) -> bool, end: End) -> bool {
    let mut entries = quarantine.spec.holders.iter().filter(|h| mine(h));
    entries.any(|h| end == End::LetGo || h.state == HolderState::Holding)
}

async fn finish(api: &Api<Quarantine>, mut quarantine: Quarantine, incident: &Incident, end: End) -> Result<(), Error> {
    let_go(&mut quarantine.spec, incident, end);
    let name = quarantine.name_any();
    kube("end a hold", api.replace(&name, &PostParams::default(), &quarantine)).await.map(|_| ())
}

/// Ends the holds of an Incident. One that lets go is noted in the same write: it tells how the release goes on, however many there are.
fn let_go(spec: &mut QuarantineSpec, incident: &Incident, end: End) {
    let QuarantineSpec { holders, let_go, let_go_by, .. } = spec;
    let mine = |h: &Holder| is_mine(incident, h);
    match end {
        End::LetGo => {
            *let_go = merge_release(let_go.iter().chain(holders.iter().filter(|h| mine(h)).map(|h| &h.release)));
            holders.retain(|h| !mine(h));
            let uid = incident.uid().unwrap_or_default();
            let_go_by.retain(|by| *by != uid);
            let_go_by.push(uid);
            let_go_by.drain(..let_go_by.len().saturating_sub(HOLDERS));
        }
        End::Retain => holders.iter_mut().filter(|h| mine(h)).for_each(|h| h.state = HolderState::Retained),
    }
}

#[cfg(test)]
#[path = "holds_tests.rs"]
mod tests;
