//! `limits.maxQuarantines` of an AwsAccount: so many resources may be contained at once. Many Incidents may ask at once, before the
//! first Quarantine is known, so each claims its places before it holds anything. The Quarantines must be read while the claims are
//! locked: a claim ends when its Quarantine is known, and whoever had read before would count neither.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};

use firebreak_crds::{Incident, Mode, Quarantine, quarantine_name};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use super::pace::TAKEN;
use super::resolve::{Refusal, Resolved, Target};
use crate::memory::Reserved;

/// So long a place is kept for a Quarantine that is not known: it may never have been made.
const KEPT: SignedDuration = SignedDuration::from_mins(10);

/// Who has a place.
struct Places {
    /// Held by this Incident.
    own: HashSet<String>,
    known: HashSet<String>,
    /// By AwsAccount, those that are known and those that are claimed.
    taken: HashMap<String, HashSet<String>>,
}

/// Says which targets go beyond the limit, in the order of the spec; what is held already stays. What AWS showed to be refused comes after
/// all others, and says so itself.
pub fn note<Q: Borrow<Quarantine>>(
    claimed: &mut Reserved,
    quarantines: impl FnOnce() -> Vec<Q>,
    incident: &Incident,
    targets: &mut [Target],
    now: Timestamp,
) {
    if !targets.iter().filter_map(|t| t.resolved.as_ref().ok()).any(is_limited) {
        return; // then nobody looks through them
    }
    let mut places = Places::of(claimed, &quarantines(), incident, now);
    let mut ordered: Vec<&mut Target> = targets.iter_mut().collect();
    ordered.sort_by_key(|target| target.resolved.as_ref().is_ok_and(|resolved| resolved.ruled_out));
    for target in ordered {
        let Ok(resolved) = &target.resolved else { continue };
        let says_so_itself = resolved.ruled_out && incident.spec.mode == Mode::Contain;
        if let (Some(refusal), false) = (places.take(resolved), says_so_itself) {
            target.resolved = Err(refusal);
        }
    }
}

/// Claims a place for each that is to be held, in the same order. Returns those that may be, and why others may not.
pub fn claim<'r, Q: Borrow<Quarantine>>(
    claimed: &mut Reserved,
    quarantines: impl FnOnce() -> Vec<Q>,
    incident: &Incident,
    mut all: Vec<&'r Resolved>,
    now: Timestamp,
) -> (Vec<&'r Resolved>, Vec<(&'r Resolved, Refusal)>) {
    if !all.iter().any(|resolved| is_limited(resolved)) {
        return (all, Vec::new());
    }
    all.sort_by_key(|resolved| resolved.ruled_out);
    let (mut has, mut refused) = (Vec::with_capacity(all.len()), Vec::new());
    let mut places = Places::of(claimed, &quarantines(), incident, now);
    for resolved in all {
        let name = quarantine_name(&resolved.resource);
        let holds = !resolved.actions.is_empty() && is_limited(resolved);
        if let Some(refusal) = holds.then(|| places.take(resolved)).flatten() {
            refused.push((resolved, refusal));
            continue;
        }
        has.push(resolved);
        if holds && !places.known.contains(&name) {
            claimed.insert(name, (resolved.account.name_any(), now));
        }
    }
    (has, refused)
}

fn is_limited(resolved: &Resolved) -> bool {
    resolved.account.spec.limits.max_quarantines.is_some()
}

impl Places {
    fn of<Q: Borrow<Quarantine>>(claimed: &mut Reserved, quarantines: &[Q], incident: &Incident, now: Timestamp) -> Self {
        let uid = incident.uid().unwrap_or_default();
        let all = || quarantines.iter().map(Borrow::borrow);
        let own = all().filter(|q| q.spec.is_held_by(&uid)).map(Quarantine::name_any).collect();
        let known: HashSet<String> = all().map(Quarantine::name_any).collect();
        claimed.retain(|name, (_, at)| !known.contains(name) && *at + KEPT > now);
        let mut taken: HashMap<String, HashSet<String>> = HashMap::new();
        let held = all().map(|q| (q.spec.resource.account_ref.name.clone(), q.name_any()));
        for (account, name) in held.chain(claimed.iter().map(|(name, (account, _))| (account.clone(), name.clone()))) {
            taken.entry(account).or_default().insert(name);
        }
        Self { own, known, taken }
    }

    /// Takes a place, or says why there is none.
    fn take(&mut self, resolved: &Resolved) -> Option<Refusal> {
        let (name, account) = (quarantine_name(&resolved.resource), resolved.account.name_any());
        let max = resolved.account.spec.limits.max_quarantines?;
        let taken = self.taken.entry(account.clone()).or_default();
        let others = taken.len() - usize::from(taken.contains(&name));
        if !self.own.contains(&name) && others >= usize::try_from(max).unwrap_or_default() {
            let what = format!(
                "AwsAccount {account} allows {max} quarantines at once: raise spec.limits.maxQuarantines, or release others"
            );
            return Some(Refusal::new(TAKEN, what));
        }
        taken.insert(name);
        None
    }
}

#[cfg(test)]
mod tests {
    use firebreak_crds::{Resource, quarantine_name};

    use super::*;
    use crate::containment::example::{self, deny_all};
    use crate::controllers::incident::approval::tests::{incident, target};

    fn now() -> Timestamp {
        "2026-03-01T12:00:00Z".parse().unwrap()
    }

    fn user(name: &str) -> Resource {
        Resource { id: name.into(), ..example::user() }
    }

    fn held(name: &str, uid: &str) -> Quarantine {
        let mut quarantine = example::quarantine(user(name), vec![example::holder(uid, "inc-1", vec![deny_all()])]);
        quarantine.metadata.name = Some(quarantine_name(&user(name)));
        quarantine
    }

    /// Users of an account that allows so many.
    fn targets(max: i32, users: &[&str]) -> Vec<Target> {
        let of = |name: &&str| {
            let mut target = target(vec![deny_all()], None);
            let resolved = target.resolved.as_mut().unwrap();
            resolved.resource = user(name);
            let mut account = (*resolved.account).clone();
            account.metadata.name = Some(resolved.resource.account_ref.name.clone());
            account.spec.limits.max_quarantines = Some(max);
            resolved.account = account.into();
            target
        };
        users.iter().map(of).collect()
    }

    fn noted(claimed: &mut Reserved, known: &[Quarantine], max: i32, users: &[&str]) -> Vec<bool> {
        let mut targets = targets(max, users);
        note(claimed, || known.to_vec(), &incident(), &mut targets, now());
        targets.iter().map(|t| t.resolved.is_ok()).collect()
    }

    fn claims(claimed: &mut Reserved, known: &[Quarantine], max: i32, users: &[&str], at: Timestamp) -> Vec<String> {
        let targets = targets(max, users);
        let all = targets.iter().filter_map(|t| t.resolved.as_ref().ok()).collect();
        let (has, refused) = claim(claimed, || known.to_vec(), &incident(), all, at);
        assert!(has.len() + refused.len() == users.len() && refused.iter().all(|(_, r)| r.reason == "LimitReached"));
        has.iter().map(|r| r.resource.id.clone()).collect()
    }

    #[test]
    fn so_many_are_held_in_the_order_of_the_spec_and_what_is_held_already_stays() {
        let none = &mut Reserved::new();
        assert_eq!(noted(none, &[], 2, &["a", "b", "c"]), [true, true, false]);
        assert_eq!(noted(none, &[held("z", "other")], 2, &["a", "b"]), [true, false]);
        assert_eq!(noted(none, &[held("a", "other")], 1, &["a", "b"]), [true, false], "one place for each resource");
        assert_eq!(noted(none, &[held("z", "other"), held("a", "1")], 1, &["a", "b"]), [true, false], "its own");
        assert!(none.is_empty(), "who only says so claims nothing");
    }

    #[test]
    fn what_is_to_be_held_counts_before_its_quarantine_is_known() {
        let claimed = &mut Reserved::new();
        assert_eq!(claims(claimed, &[], 2, &["a"], now()), ["a"]);
        assert_eq!(claims(claimed, &[], 2, &["b", "c"], now()), ["b"], "another Incident, at the same moment");
        assert_eq!(noted(claimed, &[], 2, &["c", "a"]), [false, true]);
        assert_eq!(claims(claimed, &[], 2, &["a", "b"], now()), ["a", "b"], "each has its place");
        let known = [held("a", "other"), held("b", "other")];
        assert_eq!(claims(claimed, &known, 3, &["c"], now()), ["c"], "none is counted twice");
        assert_eq!(claims(claimed, &[], 2, &["d", "e"], now() + KEPT), ["d", "e"], "what was never made keeps no place");
    }

    #[test]
    fn what_aws_showed_to_be_refused_takes_only_what_others_leave() {
        let two = || {
            let mut two = targets(1, &["a", "b"]);
            two[0].resolved.as_mut().unwrap().ruled_out = true;
            two
        };
        let mut noted = two();
        note(&mut Reserved::new(), Vec::<Quarantine>::new, &incident(), &mut noted, now());
        assert!(noted.iter().all(|t| t.resolved.is_ok()), "the first is refused for what it is");
        let (claimed, both) = (&mut Reserved::new(), two());
        let all = both.iter().filter_map(|t| t.resolved.as_ref().ok()).collect();
        let (has, refused) = claim(claimed, Vec::<Quarantine>::new, &incident(), all, now());
        assert_eq!((has[0].resource.id.as_str(), refused.len(), claimed.len()), ("b", 1, 1));
    }

    #[test]
    fn what_waits_claims_no_place() {
        let (claimed, mut waits) = (&mut Reserved::new(), targets(1, &["a"]));
        waits[0].resolved.as_mut().unwrap().actions.clear();
        let all = waits.iter().filter_map(|t| t.resolved.as_ref().ok()).collect();
        let (has, refused) = claim(claimed, Vec::<Quarantine>::new, &incident(), all, now());
        assert!(has.len() == 1 && refused.is_empty() && claimed.is_empty());
    }
}
