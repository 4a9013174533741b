//! Which resources carry a tag that the account protects, and since when that is known. Whoever is in the account can write tags: only
//! what was seen before an incident began says anything of it.

use std::collections::HashSet;

use firebreak_crds::{AwsAccount, ProtectedByTag, ResourceKind};
use futures::future::join_all;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use crate::aws::{AwsError, Carrier, Session};
use crate::clock;

/// What the status has room for.
const REMEMBERED: usize = 1000;

/// What carries a protected tag now is `known`. Nothing is read where no tag is protected.
///
/// # Errors
/// The first of what could not be read: what was known of that region, or of IAM, stays so.
pub async fn look(session: &Session, account: &AwsAccount, known: &mut Vec<ProtectedByTag>) -> Result<(), AwsError> {
    let tags = &account.spec.protected.tags;
    if tags.is_empty() {
        known.clear();
        return Ok(());
    }
    let regions = join_all(account.spec.regions.iter().map(|region| session.instances_carrying(region, tags)));
    let (instances, principals) = futures::join!(regions, session.principals_carrying(tags));
    let places = account.spec.regions.iter().map(Some).chain([None]); // IAM is global
    let (mut seen, mut unread, mut first) = (Vec::new(), Vec::new(), Ok(()));
    for (place, read) in places.zip(instances.into_iter().chain([principals])) {
        match read {
            Ok(carriers) => seen.extend(carriers),
            Err(error) => {
                unread.push(place.cloned());
                first = first.and(Err(error));
            }
        }
    }
    if seen.len() > REMEMBERED {
        let (account, seen) = (account.name_any(), seen.len());
        tracing::warn!(
            account,
            seen,
            "more resources carry a protected tag than are remembered: the first {REMEMBERED} count"
        );
    }
    *known = remember(known, seen, &unread, clock::now());
    first
}

type Key<'a> = (ResourceKind, Option<&'a str>, &'a str);

fn key(known: &ProtectedByTag) -> Key<'_> {
    (known.kind, known.region.as_deref(), &known.id)
}

/// What was known stays as long as it is seen, or where it could not be read, and first, so that nobody crowds it out; what is new
/// comes after it.
fn remember(
    before: &[ProtectedByTag],
    mut seen: Vec<Carrier>,
    unread: &[Option<String>],
    now: Timestamp,
) -> Vec<ProtectedByTag> {
    seen.sort_by(|a, b| (&a.region, &a.id).cmp(&(&b.region, &b.id)));
    let there: HashSet<Key<'_>> = seen.iter().map(|s| (s.kind, s.region.as_deref(), s.id.as_str())).collect();
    let known: HashSet<Key<'_>> = before.iter().map(key).collect();
    let kept = before.iter().filter(|b| there.contains(&key(b)) || unread.contains(&b.region)).cloned();
    let new = seen.iter().filter(|s| !known.contains(&(s.kind, s.region.as_deref(), s.id.as_str())));
    let new = new.map(|Carrier { kind, region, id, key }| ProtectedByTag {
        kind: *kind,
        region: region.clone(),
        id: id.clone(),
        key: key.clone(),
        since: clock::time(now),
    });
    kept.chain(new).take(REMEMBERED).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(ids: &[&str]) -> Vec<Carrier> {
        let carrier = |id: &&str| Carrier {
            kind: ResourceKind::Ec2Instance,
            region: Some("eu-west-1".into()),
            id: (*id).into(),
            key: "tier".into(),
        };
        ids.iter().map(carrier).collect()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn ids(known: &[ProtectedByTag]) -> Vec<(&str, i64)> {
        known.iter().map(|k| (k.id.as_str(), k.since.0.as_second())).collect()
    }

    #[test]
    fn what_was_seen_keeps_its_time_as_long_as_it_is_seen() {
        let first = remember(&[], seen(&["i-2", "i-3"]), &[], at(10));
        assert_eq!(ids(&first), [("i-2", 10), ("i-3", 10)]);
        let second = remember(&first, seen(&["i-1", "i-3"]), &[], at(20));
        assert_eq!(ids(&second), [("i-3", 10), ("i-1", 20)]);
        let back = remember(&second, seen(&["i-1", "i-2", "i-3"]), &[], at(30));
        assert_eq!(ids(&back), [("i-3", 10), ("i-1", 20), ("i-2", 30)], "who lost the tag begins anew");
        assert_eq!(
            remember(&back, seen(&["i-3", "i-2", "i-1"]), &[], at(40)),
            back,
            "nothing changed, so the status does not"
        );
    }

    #[test]
    fn what_was_known_stays_where_it_cannot_be_read() {
        let mut first = remember(&[], seen(&["i-1"]), &[], at(10));
        first.push(ProtectedByTag { kind: ResourceKind::IamRole, region: None, ..first[0].clone() });
        let kinds = |known: &[ProtectedByTag]| known.iter().map(|k| (k.kind, k.since.0.as_second())).collect::<Vec<_>>();
        let (instance, role) = ((ResourceKind::Ec2Instance, 10), (ResourceKind::IamRole, 10));
        assert_eq!(kinds(&remember(&first, vec![], &[Some("eu-west-1".into())], at(20))), [instance]);
        assert_eq!(kinds(&remember(&first, vec![], &[None], at(20))), [role]);
        assert_eq!(kinds(&remember(&first, vec![], &[None, Some("eu-west-2".into())], at(20))), [role]);
    }

    #[test]
    fn nobody_crowds_out_what_was_known_before() {
        let first = remember(&[], seen(&["i-z"]), &[], at(10));
        let many: Vec<String> = (0..2 * REMEMBERED).map(|n| format!("i-{n}")).collect();
        let all: Vec<&str> = many.iter().map(String::as_str).chain(["i-z"]).collect();
        let known = remember(&first, seen(&all), &[], at(20));
        assert_eq!((known.len(), ids(&known)[0]), (REMEMBERED, ("i-z", 10)));
    }

    #[test]
    fn a_user_and_a_role_of_one_name_are_two() {
        let of = |kind| Carrier { kind, region: None, id: "build".into(), key: "tier".into() };
        let known = remember(&[], vec![of(ResourceKind::IamRole)], &[], at(10));
        let both = remember(&known, vec![of(ResourceKind::IamUser), of(ResourceKind::IamRole)], &[], at(20));
        assert_eq!(
            both.iter().map(|k| (k.kind, k.since.0.as_second())).collect::<Vec<_>>(),
            [(ResourceKind::IamRole, 10), (ResourceKind::IamUser, 20)]
        );
    }
}
