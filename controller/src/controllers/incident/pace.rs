//! `limits.maxNewPerHour` of an AwsAccount: of more containments within an hour than that, the rest waits for approval. So a mistake in an
//! Incident, or a detection gone wild, reaches no further before somebody has looked.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};

use firebreak_crds::{Quarantine, quarantine_name};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use super::blast_radius::Cause;
use super::resolve::{Refusal, Resolved, Target};
use crate::memory::Reserved;

const HOUR: SignedDuration = SignedDuration::from_hours(1);
/// The reason where others took the last place at the same moment. With the next look it waits for approval.
pub const TAKEN: &str = "LimitReached";

/// What has begun within the last hour.
struct Begun {
    /// By the Quarantine's name: what is held, and what was let go.
    known: HashSet<String>,
    /// By AwsAccount.
    count: HashMap<String, usize>,
}

/// Whether any of the targets is of an account that has such a limit.
pub fn concerns(targets: &[Target]) -> bool {
    targets.iter().filter_map(|t| t.resolved.as_ref().ok()).any(is_limited)
}

/// Says which targets wait for that, in the order of the spec. What anybody holds already is nothing new, and that of which nothing would
/// `begin` now takes no place.
pub fn note<Q: Borrow<Quarantine>>(
    quarantines: &[Q],
    admitted: &mut Reserved,
    targets: &mut [Target],
    begin: &[bool],
    now: Timestamp,
) {
    let mut places = Begun::of(quarantines, admitted, now);
    for (target, _) in targets.iter_mut().zip(begin).filter(|(_, begins)| **begins) {
        let Ok(target) = &mut target.resolved else { continue };
        if let Err(why) = places.take(target) {
            target.causes.push(Cause::too_many(why));
        }
    }
}

/// Takes a place for what begins now. What was approved beyond the limit needs none.
///
/// # Errors
/// Where others took the last one since it was looked at.
pub fn claim<Q: Borrow<Quarantine>>(
    quarantines: impl FnOnce() -> Vec<Q>,
    admitted: &mut Reserved,
    target: &Resolved,
    now: Timestamp,
) -> Result<(), Refusal> {
    if target.causes.iter().any(|c| c.evidence_too) {
        return Ok(());
    }
    let is_new = Begun::of(&quarantines(), admitted, now).take(target).map_err(|why| Refusal::new(TAKEN, why))?;
    if is_new {
        admitted.insert(quarantine_name(&target.resource), (target.account.name_any(), now));
    }
    Ok(())
}

/// Whether its account has such a limit.
pub fn is_limited(target: &Resolved) -> bool {
    target.account.spec.limits.max_new_per_hour.is_some()
}

impl Begun {
    fn of<Q: Borrow<Quarantine>>(quarantines: &[Q], admitted: &mut Reserved, now: Timestamp) -> Self {
        admitted.retain(|_, (_, at)| *at + HOUR > now);
        let mut known: HashSet<String> = quarantines.iter().map(|q| q.borrow().name_any()).collect();
        let mut count = begun(quarantines, now);
        for (_, (account, _)) in admitted.iter().filter(|(name, _)| !known.contains(*name)) {
            *count.entry(account.clone()).or_default() += 1;
        }
        known.extend(admitted.keys().cloned());
        Self { known, count }
    }

    /// Whether it takes a place: what is known has one. Else why there is none.
    fn take(&mut self, target: &Resolved) -> Result<bool, String> {
        let (account, name) = (target.account.name_any(), quarantine_name(&target.resource));
        let Some(max) = target.account.spec.limits.max_new_per_hour else { return Ok(false) };
        if !self.known.insert(name) {
            return Ok(false);
        }
        let begun = self.count.entry(account.clone()).or_default();
        if *begun >= usize::try_from(max).unwrap_or_default() {
            return Err(format!("AwsAccount {account} lets {max} new containments an hour go (spec.limits.maxNewPerHour)"));
        }
        *begun += 1;
        Ok(true)
    }
}

/// By AwsAccount: how many Quarantines were made within the last hour.
fn begun<Q: Borrow<Quarantine>>(quarantines: &[Q], now: Timestamp) -> HashMap<String, usize> {
    let mut begun = HashMap::new();
    for quarantine in quarantines.iter().map(Borrow::borrow) {
        let made = quarantine.metadata.creation_timestamp.as_ref().is_some_and(|t| t.0 + HOUR > now);
        *begun.entry(quarantine.spec.resource.account_ref.name.clone()).or_default() += usize::from(made);
    }
    begun
}

#[cfg(test)]
mod tests {
    use firebreak_crds::ContainAction;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::containment::example::{self, deny_all};
    use crate::controllers::incident::approval::tests::target;

    const NOW: &str = "2026-03-01T12:00:00Z";

    fn quarantine(minutes_ago: i64) -> Quarantine {
        let mut quarantine = example::quarantine(example::instance(), vec![]);
        let now: Timestamp = NOW.parse().unwrap();
        quarantine.metadata.name = Some(format!("q-{minutes_ago}"));
        quarantine.metadata.creation_timestamp = Some(Time(now - SignedDuration::from_mins(minutes_ago)));
        quarantine
    }

    /// Users `a`, `b`, ... of an account with that limit.
    fn targets(max: Option<i32>, users: &[&str]) -> Vec<Target> {
        let of = |user: &&str| {
            let mut target = target(Vec::<ContainAction>::from([deny_all()]), None);
            let resolved = target.resolved.as_mut().unwrap();
            resolved.resource = firebreak_crds::Resource { id: (*user).into(), ..example::user() };
            let mut account = (*resolved.account).clone();
            account.metadata.name = Some(resolved.resource.account_ref.name.clone());
            account.spec.limits.max_new_per_hour = max;
            resolved.account = account.into();
            target
        };
        users.iter().map(of).collect()
    }

    fn now() -> Timestamp {
        NOW.parse().unwrap()
    }

    /// Which of them wait.
    fn waiting(max: Option<i32>, held: &[Quarantine], users: &[&str]) -> Vec<bool> {
        noted(targets(max, users), held, &mut Reserved::new(), &vec![true; users.len()])
    }

    fn noted(mut targets: Vec<Target>, held: &[Quarantine], admitted: &mut Reserved, begin: &[bool]) -> Vec<bool> {
        note(held, admitted, &mut targets, begin, now());
        targets.iter().map(|t| !t.resolved.as_ref().unwrap().causes.is_empty()).collect()
    }

    /// Which of them are let go.
    fn claims(max: i32, held: &[Quarantine], admitted: &mut Reserved, users: &[&str]) -> Vec<bool> {
        let all = targets(Some(max), users);
        all.iter().map(|t| claim(|| held.to_vec(), admitted, t.resolved.as_ref().unwrap(), now()).is_ok()).collect()
    }

    #[test]
    fn so_many_go_within_an_hour_in_the_order_of_the_spec_and_the_rest_waits() {
        assert_eq!(waiting(None, &[quarantine(1)], &["a", "b"]), [false, false]);
        assert_eq!(waiting(Some(2), &[], &["a", "b", "c"]), [false, false, true]);
        assert_eq!(waiting(Some(2), &[quarantine(59)], &["a", "b", "c"]), [false, true, true]);
        assert_eq!(waiting(Some(2), &[quarantine(61)], &["a", "b", "c"]), [false, false, true]);
        assert_eq!(waiting(Some(0), &[], &["a"]), [true]);
        assert_eq!(waiting(Some(1), &[], &["a", "a", "b"]), [false, false, true], "one that is named twice counts once");
    }

    #[test]
    fn what_was_let_go_counts_before_its_quarantine_is_known() {
        let mut admitted = Reserved::new();
        assert_eq!(claims(2, &[], &mut admitted, &["a"]), [true]);
        assert_eq!(claims(2, &[], &mut admitted, &["b", "c"]), [true, false], "another Incident, at the same moment");
        assert_eq!(claims(2, &[], &mut admitted, &["a", "b"]), [true, true], "they are let go");
        let all = targets(Some(2), &["b", "c"]);
        assert_eq!(noted(all, &[], &mut admitted, &[true, true]), [false, true], "and the next is told so");
        admitted.values_mut().for_each(|(_, at)| *at -= HOUR);
        assert_eq!(claims(2, &[], &mut admitted, &["d", "e"]), [true, true], "an hour later");
    }

    #[test]
    fn what_only_waits_takes_no_place() {
        let mut admitted = Reserved::new();
        let three = || targets(Some(1), &["a", "b", "c"]);
        assert_eq!(noted(three(), &[], &mut admitted, &[false, true, true]), [false, false, true]);
        assert!(admitted.is_empty(), "who only says so takes none, either");
        assert_eq!(noted(three(), &[], &mut admitted, &[true, true, false]), [false, true, false]);
    }

    #[test]
    fn what_was_approved_beyond_the_limit_goes() {
        let mut beyond = targets(Some(0), &["a"]);
        note::<Quarantine>(&[], &mut Reserved::new(), &mut beyond, &[true], now());
        let approved = beyond[0].resolved.as_ref().unwrap();
        assert_eq!(
            (approved.causes.len(), claim(Vec::<Quarantine>::new, &mut Reserved::new(), approved, now())),
            (1, Ok(()))
        );
    }

    #[test]
    fn what_is_held_already_is_nothing_new() {
        let mut mine = quarantine(61);
        let user = firebreak_crds::Resource { id: "b".into(), ..example::user() };
        (mine.metadata.name, mine.spec.resource) = (Some(quarantine_name(&user)), user);
        assert_eq!(waiting(Some(1), &[mine], &["a", "b", "c"]), [false, false, true]);
    }
}
