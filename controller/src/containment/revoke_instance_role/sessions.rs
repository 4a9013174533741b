//! The sessions that the instance's roles gave it: denied, and after a release denied if they were issued before.

use std::collections::BTreeSet;

use firebreak_crds::ActionState;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::record::{Taken, given, key, note_gone, off, taken, unseen};
use super::{Look, NAME, Original, Role};
use crate::aws::{Call, DenyEdit, SESSION_DENIES, SessionDenies, profile_name, sessions_until};
use crate::containment::case::Case;
use crate::containment::plan::Plan;
use crate::containment::residual::{self, Residual};

/// Sessions issued so long after the profile was seen to be gone are denied, too: AWS takes a moment, and clocks differ.
const MARGIN: SignedDuration = SignedDuration::from_secs(30);
/// So long before a release the cutoff is, where there is so much time: clocks differ, and new credentials must not be denied.
const BEFORE: SignedDuration = SignedDuration::from_secs(60);
/// The step of round cutoffs, in seconds.
const ROUND: i64 = 60;
/// So long after the cutoff the profile comes back, for the same reason.
const AFTER: SignedDuration = SignedDuration::from_secs(5);

/// The record has room for so many decisions.
const DECISIONS: usize = 16;

/// How a role's sessions stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Denied.
    Denied,
    /// Dead with their role, or expired.
    Over,
    /// About to be denied.
    Pending,
    /// Not denied, and why.
    Open(String),
}

/// The roles that the instance has or had: name and id. One that was made again under its name is another, of which nothing is known
/// until its profile is seen on the instance.
pub(super) fn roles(case: &Case, look: &Look) -> BTreeSet<(String, String)> {
    let first = case.recorded::<Original>(NAME).and_then(|o| o.role);
    let had = taken(case).filter_map(|(_, t)| t.role).chain(first);
    had.chain(given(case, look)).map(|role| (role.name, role.id)).collect()
}

/// The user id of the instance's sessions of a role.
pub(super) fn user_id(case: &Case, role: &str) -> String {
    format!("{role}:{}", case.resource.id)
}

/// Denies them, wherever they are not.
pub(super) fn deny(plan: &mut Plan, case: &Case, look: &Look) {
    for (name, id) in roles(case, look) {
        if standing(case, look, &name, &id) != Standing::Pending {
            continue;
        }
        let edit = DenyEdit::Deny(user_id(case, &id));
        plan.calls.push(Call::EditSessionDenies { role: name.clone(), edit });
        if has_record(case, &id) {
            plan.verdict.drift.push(format!("the deny of its sessions of {name} was gone or changed"));
        }
    }
}

fn has_record(case: &Case, id: &str) -> bool {
    let first = case.recorded::<Original>(NAME).and_then(|o| o.role);
    taken(case).filter_map(|(_, t)| t.role).chain(first).any(|r| r.id == id)
}

pub(super) fn standing(case: &Case, look: &Look, name: &str, id: &str) -> Standing {
    if let Some(error) = look.unread.get(name) {
        return Standing::Open(error.to_string());
    }
    let Some(role) = look.roles.get(name).filter(|role| role.id == id) else { return Standing::Over };
    let denied = role.denies.as_deref().and_then(SessionDenies::exactly);
    if denied.is_some_and(|d| d.standing.contains(&user_id(case, id))) {
        return Standing::Denied;
    }
    match closed(case, role, id) {
        Some(_) if all_expired(case, name) => Standing::Over,
        Some(why) => Standing::Open(why),
        None => Standing::Pending,
    }
}

/// Why its sessions cannot be denied, if they cannot.
fn closed(case: &Case, role: &Role, id: &str) -> Option<String> {
    let full =
        || "its inline policies have no room for one more instance; contain the role itself, by revokeSessions or denyAll";
    let room = role.read().after(&DenyEdit::Deny(user_id(case, id))).is_some();
    role.forbidden.clone().or_else(|| (!room).then(|| full().to_owned()))
}

/// Says of which profiles it is not known what role was in them when they were first seen: somebody may have taken it out, or IAM
/// did not show it, and the credentials live on.
pub(super) fn nameless(case: &Case, look: &Look) -> Option<String> {
    let alive = |id: &str| off(case, id).is_none_or(|at| sessions_until(at + MARGIN) > case.now);
    let without = taken(case).filter(|(_, t)| t.role.is_none() && !t.unread).map(|(id, t)| (id, t.profile));
    let had = without.chain(unseen(case)).filter(|(id, _)| alive(id)).map(|(_, profile)| profile);
    let has = look.giving().filter(|(a, role)| role.is_none() && !look.unread.contains_key(&a.profile));
    let has = has.map(|(a, _)| a.profile.clone());
    let names: BTreeSet<String> = had.chain(has).map(|arn| profile_name(&arn).to_owned()).collect();
    let names = names.into_iter().reduce(|a, b| format!("{a}, {b}"))?;
    Some(format!(
        "which role was in instance profile {names} is not known, so whose credentials it got before is not known; they live until they expire, about 6 hours"
    ))
}

/// Whether every session has expired that the role can have given the instance.
fn all_expired(case: &Case, role: &str) -> bool {
    last_off(case, role).is_some_and(|at| sessions_until(at + MARGIN) <= case.now)
}

/// When the last of a role's profiles was gone; None where one is there, or was not seen to be gone.
fn last_off(case: &Case, role: &str) -> Option<Timestamp> {
    let of_it = taken(case).filter(|(_, t): &(&str, Taken)| t.role.as_ref().is_some_and(|r| r.name == role));
    let times: Option<Vec<Timestamp>> = of_it.map(|(id, _)| off(case, id)).collect();
    times?.into_iter().max()
}

pub(super) fn said(standings: &[(&String, Standing)]) -> Option<String> {
    let named = |such: &Standing| {
        let names: Vec<&str> = standings.iter().filter(|(_, s)| s == such).map(|(name, _)| name.as_str()).collect();
        (!names.is_empty()).then(|| names.join(", "))
    };
    let denied = named(&Standing::Denied).map(|names| format!("its sessions of {names} are denied"));
    let over = named(&Standing::Over).map(|names| format!("its sessions of {names} have ended"));
    let others = standings.iter().filter_map(|(name, s)| match s {
        Standing::Denied | Standing::Over => None,
        Standing::Pending => Some(format!("its sessions of {name} are not denied yet")),
        Standing::Open(why) => Some(format!(
            "its sessions of {name} are not denied: {why}. Credentials that it got before live until they expire, about 6 hours"
        )),
    });
    denied.into_iter().chain(over).chain(others).reduce(|a, b| format!("{a}; {b}"))
}

/// Who has such a session may have begun another by it, or begin one: that is no session of the instance's.
pub(super) fn escapes(look: &Look, standings: &[(&String, Standing)]) -> Option<String> {
    let open = |name: &str| look.roles.get(name).is_some_and(|role| role.assumes_itself);
    let names = standings.iter().filter(|(name, s)| *s != Standing::Over && open(name)).map(|(name, _)| name.as_str());
    let names: Vec<&str> = names.collect();
    (!names.is_empty()).then(|| {
        format!(
            "the trust policy of {} lets it be assumed from within its account, by itself too: sessions begun that way are not denied; name it as a target",
            names.join(", ")
        )
    })
}

/// Takes the instance's own id from each list, and leaves the deny of older sessions in its place: in one write, so that there is
/// no moment without either. Returns from when on a profile may come back.
pub(super) fn release(plan: &mut Plan, case: &Case, look: &Look) -> Option<Timestamp> {
    note_gone(plan, case, look);
    let mut from = None;
    for (name, id) in roles(case, look) {
        let Some(role) = look.roles.get(&name).filter(|role| role.id == id) else { continue };
        let (shown, session) = (role.read(), user_id(case, &id));
        let denied = shown.standing.contains(&session);
        let begun = decided(case, &name).next().is_some();
        if !denied && !begun && (closed(case, role, &id).is_some() || !has_record(case, &id)) {
            continue; // it never was
        }
        let cutoff = (!all_expired(case, &name)).then(|| cutoff(plan, case, &shown, (&name, &session, denied)));
        from = from.max(cutoff.map(|cutoff| cutoff + AFTER));
        plan.verdict.shown.extend(cutoff.map(|cutoff| residual(&name, &session, cutoff)));
        let exact = role.denies.as_deref().is_none_or(|text| SessionDenies::exactly(text).is_some());
        if !(exact && shown.is_released(&session, cutoff)) {
            plan.calls.push(Call::EditSessionDenies { role: name, edit: DenyEdit::Release(session, cutoff) });
        }
    }
    from
}

/// Whether AWS does not show a role of which the instance has or had sessions: its deny would stay, and the record goes.
pub(super) fn is_absent(case: &Case, look: &Look) -> bool {
    roles(case, look).iter().any(|(name, _)| !look.roles.contains_key(name))
}

/// The cutoff of this release: recorded first. Any time is right from when the profile was gone until another comes. Where it was
/// never gone, sessions are issued all the time: then a cutoff that was decided earlier is none, while all are still denied. One that
/// another instance's release has put there is better than one's own that is not there yet: the list may have room for no other.
fn cutoff(plan: &mut Plan, case: &Case, shown: &SessionDenies, (role, session, denied): (&str, &str, bool)) -> Timestamp {
    let off = last_off(case, role);
    let holds = |cutoff: &Timestamp| match off {
        Some(off) => *cutoff >= off + MARGIN,
        None => !denied || *cutoff >= case.now || decided(case, role).count() >= DECISIONS,
    };
    let earliest = whole(off.unwrap_or(case.now) + MARGIN);
    let there = shown.cutoff_within(earliest, case.now);
    let own = decided(case, role).filter(holds);
    if let Some(cutoff) =
        own.max_by_key(|c| (shown.before.contains_key(c), *c)).filter(|c| there.is_none_or(|_| shown.before.contains_key(c)))
    {
        return cutoff;
    }
    let cutoff = there.unwrap_or_else(|| round(earliest, case.now - BEFORE));
    plan.record(key(&format!("residual-{role}-{}", cutoff.as_second())), &residual(role, session, cutoff));
    cutoff
}

/// What the list of a role denies of a session that is released.
fn residual(role: &str, session: &str, cutoff: Timestamp) -> Residual {
    let (userid, role) = (Some(session.to_owned()), Some(role.to_owned()));
    Residual { policy: SESSION_DENIES.into(), cutoff, until: sessions_until(cutoff), userid, role }
}

/// A whole minute: instances that are released side by side do not see each other's cutoff, and each cutoff is a statement in the one
/// list of their role. Before `latest` where there is so much time; else the next, and the release waits for it.
fn round(earliest: Timestamp, latest: Timestamp) -> Timestamp {
    let whole = |at: Timestamp| at.as_second().div_euclid(ROUND) * ROUND;
    let at = |second| Timestamp::from_second(second).unwrap_or(earliest);
    let passed = at(whole(latest));
    if passed >= earliest {
        passed
    } else {
        at(whole(earliest) + if whole(earliest) == earliest.as_second() { 0 } else { ROUND })
    }
}

/// The cutoffs on record.
fn decided(case: &Case, role: &str) -> impl Iterator<Item = Timestamp> {
    residual::all(case).into_iter().filter(move |r| r.role.as_deref() == Some(role)).map(|r| r.cutoff)
}

/// As it is written: in whole seconds, none too early.
fn whole(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second() + i64::from(at.subsec_nanosecond() > 0)).unwrap_or(at)
}

/// Says how long old sessions stay denied.
pub(super) fn say_until(mut plan: Plan, case: &Case, shown: Vec<Residual>) -> Plan {
    let last = residual::left(case, &shown).into_iter().filter(|r| r.role.is_some()).max_by_key(|r| r.cutoff);
    if let (ActionState::Released, Some(r)) = (plan.verdict.state, last) {
        let stays = format!("credentials that it got before {} stay denied until {}", r.cutoff, r.until);
        let so_far = std::mem::take(&mut plan.verdict.message);
        plan.verdict.message = [so_far, stays].into_iter().filter(|t| !t.is_empty()).collect::<Vec<_>>().join("; ");
    }
    plan.verdict.shown = shown;
    plan
}
