//! `limits.maxNewPerHour` of an AwsAccount: of more containments within an hour than that, the rest waits for approval. So a mistake in an
//! Incident, or a detection gone wild, reaches no further before somebody has looked.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};

use firebreak_crds::{Quarantine, quarantine_name};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use super::blast_radius::Cause;
use super::resolve::Target;

const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// By the Quarantine's name: of which AwsAccount a containment is that was let go, and when. Many Incidents may ask at once, before the
/// first Quarantine is known.
pub type Admitted = HashMap<String, (String, Timestamp)>;

/// Says which targets wait for that, in the order of the spec. What anybody holds already is nothing new.
pub fn note<Q: Borrow<Quarantine>>(quarantines: &[Q], admitted: &mut Admitted, targets: &mut [Target], now: Timestamp) {
    let limited = |t: &Target| t.resolved.as_ref().is_ok_and(|r| r.account.spec.limits.max_new_per_hour.is_some());
    if !targets.iter().any(limited) {
        return; // then nobody looks through them
    }
    admitted.retain(|_, (_, at)| *at + HOUR > now);
    let mut held: HashSet<String> = quarantines.iter().map(|q| q.borrow().name_any()).collect();
    let mut begun = begun(quarantines, now);
    for (_, (account, _)) in admitted.iter().filter(|(name, _)| !held.contains(*name)) {
        *begun.entry(account.clone()).or_default() += 1;
    }
    held.extend(admitted.keys().cloned());
    for target in targets.iter_mut().filter_map(|t| t.resolved.as_mut().ok()) {
        let (account, name) = (target.account.name_any(), quarantine_name(&target.resource));
        let Some(max) = target.account.spec.limits.max_new_per_hour else { continue };
        if !held.insert(name.clone()) {
            continue;
        }
        let begun = begun.entry(account.clone()).or_default();
        if *begun >= usize::try_from(max).unwrap_or_default() {
            target.causes.push(Cause::too_many(format!(
                "AwsAccount {account} lets {max} new containments an hour go (spec.limits.maxNewPerHour)"
            )));
        } else {
            *begun += 1;
            admitted.insert(name, (account, now));
        }
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

    /// Users `a`, `b`, ... of an account with that limit: which of them wait.
    fn waiting(max: Option<i32>, held: &[Quarantine], users: &[&str]) -> Vec<bool> {
        waiting_with(max, held, &mut Admitted::new(), users)
    }

    fn waiting_with(max: Option<i32>, held: &[Quarantine], admitted: &mut Admitted, users: &[&str]) -> Vec<bool> {
        let mut targets: Vec<Target> =
            users.iter().map(|_| target(Vec::<ContainAction>::from([deny_all()]), None)).collect();
        for (target, user) in targets.iter_mut().zip(users) {
            let resolved = target.resolved.as_mut().unwrap();
            resolved.resource = firebreak_crds::Resource { id: (*user).into(), ..example::user() };
            let mut account = (*resolved.account).clone();
            account.metadata.name = Some(resolved.resource.account_ref.name.clone());
            account.spec.limits.max_new_per_hour = max;
            resolved.account = account.into();
        }
        note(held, admitted, &mut targets, NOW.parse().unwrap());
        targets.iter().map(|t| !t.resolved.as_ref().unwrap().causes.is_empty()).collect()
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
        let mut admitted = Admitted::new();
        assert_eq!(waiting_with(Some(2), &[], &mut admitted, &["a"]), [false]);
        assert_eq!(
            waiting_with(Some(2), &[], &mut admitted, &["b", "c"]),
            [false, true],
            "another Incident, at the same moment"
        );
        assert_eq!(waiting_with(Some(2), &[], &mut admitted, &["a", "b"]), [false, false], "they are let go");
        admitted.values_mut().for_each(|(_, at)| *at -= HOUR);
        assert_eq!(waiting_with(Some(2), &[], &mut admitted, &["d", "e"]), [false, false], "an hour later");
    }

    #[test]
    fn what_is_held_already_is_nothing_new() {
        let mut mine = quarantine(61);
        let user = firebreak_crds::Resource { id: "b".into(), ..example::user() };
        (mine.metadata.name, mine.spec.resource) = (Some(quarantine_name(&user)), user);
        assert_eq!(waiting(Some(1), &[mine], &["a", "b", "c"]), [false, false, true]);
    }
}
