//! What a release makes of each interface.

use std::collections::BTreeSet;

use firebreak_crds::OnConflict;

use super::{Look, NAME, Original, key, restore, same, swap};
use crate::aws::{AwsError, Call, Change, GroupRole, Interface, Session};
use crate::containment::case::Case;

/// What becomes of one interface.
#[derive(Debug, PartialEq)]
pub(super) enum Way {
    /// It is as it was, or as a person decided. Never left in our groups by a decision: that may have been one about another conflict.
    Done,
    /// Nothing is left to do, and that is worth saying.
    Said(String),
    /// Its groups come back.
    Restore(Call),
    /// A person must decide.
    Ask(String),
}

/// The groups on record that exist no more: AWS takes no interface back into them. Of the interfaces that are still there.
pub(super) async fn lost(aws: &Session, case: &Case, region: &str, look: &Look) -> Result<BTreeSet<String>, AwsError> {
    let there = case.records_of(NAME).filter(|id| look.interface(id).is_some());
    let originals = there.filter_map(|id| case.recorded::<Original>(&key(id)));
    let recorded: BTreeSet<String> = originals.flat_map(|o| o.groups).collect();
    if recorded.is_empty() {
        return Ok(recorded);
    }
    let found = aws.groups(region, recorded.iter().cloned().collect()).await?;
    Ok(recorded.into_iter().filter(|id| !found.iter().any(|g| g.id == *id)).collect())
}

/// What stands open for its seconds is closed first: a person may take days to decide, AWS may refuse what was there before, and a
/// Quarantine that is suspended gives nothing back.
pub(super) fn closings(look: &Look) -> impl Iterator<Item = Call> {
    look.own().filter_map(|i| closing(look, i))
}

fn closing(look: &Look, interface: &Interface) -> Option<Call> {
    let group = look.group(&interface.vpc, GroupRole::Isolation)?;
    (!interface.managed && look.in_group(interface, GroupRole::Conversion))
        .then(|| swap(&interface.id, &group.id, Change::Close))
}

/// What becomes of each interface on record.
pub(super) fn ways<'a>(case: &'a Case, look: &'a Look) -> impl Iterator<Item = Way> + 'a {
    let recorded = case.records_of(NAME).filter_map(|id| Some((id, case.recorded::<Original>(&key(id))?)));
    recorded.map(move |(id, original)| match look.interface(id) {
        None => Way::Said(format!("{id}: no longer exists")),
        Some(now) => match way(case, look, now, &original) {
            Way::Restore(_) if closing(look, now).is_some() => Way::Done, // for now: it is closed first
            way => way,
        },
    })
}

fn way(case: &Case, look: &Look, now: &Interface, original: &Original) -> Way {
    use OnConflict::{KeepTheirs, RestoreOriginal};
    let (gone, left): (Vec<String>, Vec<String>) = original.groups.iter().cloned().partition(|id| look.lost.contains(id));
    let (id, ours, decision) = (&now.id, look.are_ours(&now.groups), case.decision);
    if same(&now.groups, &original.groups) {
        return Way::Done;
    }
    if now.instance.as_ref().is_some_and(|i| *i != case.resource.id) {
        return match decision {
            Some(KeepTheirs) => Way::Done,
            _ => Way::Ask(format!(
                "{id}: is attached to another instance now; detach it, or spec.release.onConflict: KeepTheirs leaves it as it is"
            )),
        };
    }
    match decision {
        Some(KeepTheirs) if !ours => Way::Done,
        Some(RestoreOriginal) if !left.is_empty() && same(&now.groups, &left) => Way::Done,
        Some(RestoreOriginal) if left.is_empty() => Way::Ask(nothing_left(now, original)),
        Some(RestoreOriginal) => Way::Restore(restore(id, &left)),
        // whatever was decided of another conflict: our isolation is nobody's choice
        _ if !gone.is_empty() => Way::Ask(without(now, original, &gone, &left, ours)),
        None if !ours => Way::Ask(conflict(now, original)),
        _ => Way::Restore(restore(id, &original.groups)),
    }
}

fn conflict(now: &Interface, original: &Original) -> String {
    format!("{}: spec.release.onConflict decides (KeepTheirs or RestoreOriginal)", both(now, original))
}

/// Both sides.
fn both(now: &Interface, original: &Original) -> String {
    format!("{}: now [{}], before containment [{}]", now.id, now.groups.join(", "), original.groups.join(", "))
}

fn without(now: &Interface, original: &Original, gone: &[String], left: &[String], ours: bool) -> String {
    let restored = (!left.is_empty()).then(|| format!("RestoreOriginal puts it into [{}]", left.join(", ")));
    let kept =
        if ours { "put into other groups by hand, KeepTheirs leaves it there" } else { "KeepTheirs leaves it as it is now" };
    let ways = restored.into_iter().chain([kept.to_owned()]).collect::<Vec<_>>().join("; ");
    let (both, gone) = (both(now, original), gone.join(", "));
    format!("{both}, of which {gone} no longer exists: spec.release.onConflict decides ({ways})")
}

fn nothing_left(now: &Interface, original: &Original) -> String {
    format!(
        "{}, of which none exists any more: put it into groups by hand, then spec.release.onConflict: KeepTheirs",
        both(now, original)
    )
}
