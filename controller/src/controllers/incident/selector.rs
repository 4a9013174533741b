//! What the `ec2Selector`s of an Incident stand for: a list of instances that is settled once, and kept. Pure, but for `look`.
//!
//! The list is written into the Incident's status before anything of it is held, and each Quarantine says which selector chose
//! it. So what is held never falls out, whatever AWS shows later; and a list that is lost is known to be lost, since something
//! is held by a selector that has none. Then nothing more is taken without an approval.

mod look;
mod record;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use firebreak_crds::{Ec2SelectorTarget, Incident, Joined, MAX_SELECTED, Mode, Quarantine, SelectorStatus};
use k8s_openapi::jiff::Timestamp;

pub use self::look::{Looks, NOT_OBSERVED, look};
use self::record::{Held, records};
pub use self::record::{is_chosen, resource, resources};
use super::resolve::{Refusal, Target};
use crate::clock;
use crate::conditions::bounded;

const HOUR: std::time::Duration = std::time::Duration::from_hours(1);
/// Why an instance that matches waits for people.
const BEYOND: &str = "it matches beyond what maxNewPerHour lets join by itself";
const LOST: &str = "the selector's list was lost, and this instance was not held then";

/// What the selectors of an Incident stand for.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// Those of the spec, in its order; then those that the spec has no more, but of which something is held.
    pub all: Vec<Selection>,
    /// Whether the Incident holds anything.
    pub holds: bool,
}

/// What one selector stands for.
#[derive(Clone, Debug, PartialEq)]
pub struct Selection {
    /// The selector, where the spec has it.
    pub selector: Option<Ec2SelectorTarget>,
    /// Whether its list is settled.
    pub standing: Standing,
    /// The list, as far as it is known.
    pub record: SelectorStatus,
    /// Why that is not all that it should be.
    pub problem: Option<Refusal>,
    /// What an Incident of the same name left behind by the same selector.
    inherited: BTreeSet<String>,
}

/// Whether a selector's list is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Not yet: all that matches will be in it.
    Open,
    /// It was, and is lost: what is held is in it, and all else that matches waits for approval.
    Lost,
    /// It is. Only `follow` adds to it.
    Settled,
}

/// That a selector chose an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The selector's key.
    pub selector: String,
    /// Why nothing is done to it without an approval.
    pub awaits: Option<&'static str>,
}

/// What AWS shows of a selector.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The instances that match.
    pub found: BTreeSet<String>,
    /// Those that awaited approval, and have ended.
    pub ended: BTreeSet<String>,
}

impl Chosen {
    /// Whether AWS is asked: a Plan on an Incident that holds is frozen, and nothing new is held while it is suspended.
    pub fn asks(&self, incident: &Incident) -> bool {
        match incident.spec.mode {
            Mode::Release => false,
            Mode::Contain => !incident.spec.suspend,
            Mode::Plan => !self.holds,
        }
    }

    /// What is known without asking AWS: from the status, and from what is held.
    pub fn known(incident: &Incident, quarantines: &[Arc<Quarantine>], now: Timestamp) -> Self {
        let held = Held::of(incident, quarantines);
        let records = records(incident, held.any);
        let record = |key: &str| records.iter().find(|r| r.key == key);
        let mut all: Vec<Selection> = Vec::new();
        for selector in incident.spec.targets.iter().filter_map(|t| t.ec2_selector.as_ref()) {
            let key = selector.key();
            let selection = Selection::known(selector, &key, record(&key), &held, now);
            match all.iter_mut().find(|s| s.record.key == key) {
                None => all.push(selection),
                Some(first) if selector.follow => *first = selection,
                Some(_) => {}
            }
        }
        let gone = |r: &&SelectorStatus| !all.iter().any(|s| s.record.key == r.key);
        let kept = |r: &&SelectorStatus| incident.spec.mode == Mode::Release || held.own.contains_key(&r.key);
        let gone: Vec<Selection> = records.iter().filter(gone).filter(kept).map(|r| Selection::gone(r, &held)).collect();
        all.extend(gone);
        if incident.spec.mode == Mode::Release {
            all = all.into_iter().map(Selection::for_release).collect();
        }
        Self { all, holds: held.any }
    }

    /// What the selector of that target stands for. Two that differ only in how they follow are one, which follows.
    pub fn of(&self, selector: &Ec2SelectorTarget) -> Option<&Selection> {
        let key = selector.key();
        self.all.iter().find(|s| s.selector.is_some() && s.record.key == key)
    }

    /// With what AWS shows now, for each selector: None where it was not asked.
    pub fn settle(mut self, seen: Vec<Option<Result<Seen, Refusal>>>, now: Timestamp) -> Self {
        let mut size: usize = self.all.iter().map(Selection::size).sum();
        for (selection, seen) in self.all.iter_mut().zip(seen) {
            let before = selection.size();
            match seen {
                None => {}
                Some(Err(problem)) => selection.problem = Some(problem),
                Some(Ok(seen)) => selection.settle(&seen, MAX_SELECTED - size.min(MAX_SELECTED), now),
            }
            size = size - before + selection.size();
        }
        self
    }

    /// For the status. `approved`: what awaited approval and has it, with the selector's key.
    pub fn records(&self, approved: &HashSet<(String, String)>) -> Vec<SelectorStatus> {
        let settled = self.all.iter().filter(|s| s.standing == Standing::Settled);
        settled.map(|s| with_the_approved(s.record.clone(), approved)).collect()
    }

    /// What the status must say of the selectors themselves, beside their instances. `before`: what was known before AWS was
    /// asked, of which the instances are told one by one.
    pub fn open(&self, before: &Self, incident: &Incident) -> Vec<Target> {
        let in_spec =
            self.all.iter().zip(&before.all).filter_map(|(now, before)| Some((now.selector.as_ref()?, now, before)));
        let refused = in_spec.filter_map(|(selector, now, before)| {
            let Refusal { reason, message } = now.open(before, incident)?;
            Some(Target { resource: None, resolved: Err(Refusal::new(reason, format!("{selector}: {message}"))) })
        });
        refused.collect()
    }
}

fn with_the_approved(mut record: SelectorStatus, approved: &HashSet<(String, String)>) -> SelectorStatus {
    let has_it = |id: &&String| approved.contains(&(record.key.clone(), (*id).clone()));
    let joins: Vec<String> = record.awaiting_approval.iter().filter(has_it).cloned().collect();
    add(&mut record, joins);
    record
}

impl Selection {
    fn known(selector: &Ec2SelectorTarget, key: &str, record: Option<&SelectorStatus>, held: &Held, now: Timestamp) -> Self {
        let (own, inherited) = (Held::take(&held.own, key), Held::take(&held.inherited, key));
        let standing = match record {
            Some(_) => Standing::Settled,
            None if own.is_empty() => Standing::Open,
            None => Standing::Lost,
        };
        let mut record = record.cloned().unwrap_or_else(|| new(selector, key, now));
        // whatever a hand wrote into the status, the spec says where they are
        (record.account_ref, record.region) = (selector.account_ref.clone(), selector.region.clone());
        record.joined.retain(|j| clock::since(j.at.0, now) < HOUR);
        if !selector.follow && record.rebuilt_at.is_none() {
            record.awaiting_approval.clear();
        }
        add(&mut record, own);
        // What is held awaits nothing, though it was named in another way: else nothing would ever join after it.
        let awaited: Vec<String> = record.awaiting_approval.iter().filter(|id| held.ids.contains(*id)).cloned().collect();
        add(&mut record, awaited);
        Self { selector: Some(selector.clone()), standing, record, problem: None, inherited }
    }

    /// A release ends what is held, and what a predecessor left behind: that is all that there is to tell.
    fn for_release(mut self) -> Self {
        add(&mut self.record, std::mem::take(&mut self.inherited));
        if !self.record.instances.is_empty() {
            self.standing = Standing::Settled;
        }
        self
    }

    /// One that the spec has no more: what it chose is held until the release.
    fn gone(record: &SelectorStatus, held: &Held) -> Self {
        let mut record = record.clone();
        record.awaiting_approval.clear();
        let own = Held::take(&held.own, &record.key);
        add(&mut record, own);
        Self { selector: None, standing: Standing::Settled, record, problem: None, inherited: BTreeSet::new() }
    }

    fn size(&self) -> usize {
        self.record.instances.len() + self.record.awaiting_approval.len()
    }

    /// Whether AWS has anything to say that would change it.
    fn is_open(&self) -> bool {
        self.selector.as_ref().is_some_and(|s| s.follow || self.standing != Standing::Settled)
    }

    /// With what AWS shows now, if there is room for it.
    fn settle(&mut self, seen: &Seen, room: usize, now: Timestamp) {
        let before = self.size();
        let mut next = self.clone();
        match self.standing {
            Standing::Open => next.freeze(seen, now),
            Standing::Lost => next.rebuild(seen, now),
            Standing::Settled => next.follow(seen, now),
        }
        if next.size() > before + room {
            let what = format!(
                "{} instances match, and an Incident has room for {MAX_SELECTED}: narrow the selector, or make several Incidents",
                seen.found.len()
            );
            self.problem = Some(Refusal::new("TooManyMatches", what));
        } else {
            *self = next;
        }
    }

    fn freeze(&mut self, seen: &Seen, now: Timestamp) {
        let inherited = std::mem::take(&mut self.inherited);
        add(&mut self.record, seen.found.iter().cloned().chain(inherited));
        (self.record.resolved_at, self.standing) = (clock::time(now), Standing::Settled);
    }

    fn rebuild(&mut self, seen: &Seen, now: Timestamp) {
        self.record.awaiting_approval = self.news(seen);
        (self.record.rebuilt_at, self.standing) = (Some(clock::time(now)), Standing::Settled);
    }

    /// What is new joins, as many as the hour has room for; the others wait for people. While any wait, so does all that comes
    /// later: what people look at stays what they approve.
    fn follow(&mut self, seen: &Seen, now: Timestamp) {
        self.record.awaiting_approval.retain(|id| !seen.ended.contains(id));
        let follows = self.selector.as_ref().is_some_and(|s| s.follow);
        if !follows || !self.record.awaiting_approval.is_empty() {
            return;
        }
        let mut joins = self.news(seen);
        let waits = joins.split_off(self.hour_has_room().min(joins.len()));
        if !joins.is_empty() {
            let count = i32::try_from(joins.len()).unwrap_or(i32::MAX);
            self.record.joined.push(Joined { at: clock::time(now), count });
        }
        add(&mut self.record, joins);
        self.record.awaiting_approval = waits;
    }

    /// What matches and is not in the list, in its order.
    fn news(&self, seen: &Seen) -> Vec<String> {
        let known: BTreeSet<&String> = self.record.instances.iter().collect();
        seen.found.iter().filter(|id| !known.contains(id)).cloned().collect()
    }

    fn hour_has_room(&self) -> usize {
        let max = self.selector.as_ref().and_then(|s| s.max_new_per_hour).unwrap_or_default();
        let joined = self.record.joined.iter().map(|j| j.count).fold(0, i32::saturating_add);
        usize::try_from(max.saturating_sub(joined)).unwrap_or_default()
    }

    /// Its instances with what chose them, those that await approval last.
    pub fn choices(&self) -> impl Iterator<Item = (&String, Choice)> {
        let why = if self.record.rebuilt_at.is_some() { LOST } else { BEYOND };
        let choice = |awaits| move |id| (id, Choice { selector: self.record.key.clone(), awaits });
        let waiting = self.record.awaiting_approval.iter().map(choice(Some(why)));
        self.record.instances.iter().map(choice(None)).chain(waiting)
    }

    /// What the status must say of it.
    fn open(&self, before: &Self, incident: &Incident) -> Option<Refusal> {
        if let Some(problem) = &self.problem {
            return Some(problem.clone());
        }
        let known: HashSet<&String> = before.choices().map(|(id, _)| id).collect();
        let more = self.choices().filter(|(id, _)| !known.contains(id)).count();
        match (incident.spec.mode, self.standing) {
            (Mode::Release, Standing::Settled) => None,
            (Mode::Release, _) => Some(Refusal::new("Released", "nothing of it was held")),
            (Mode::Plan, Standing::Open | Standing::Lost) => {
                Some(Refusal::new("PlanOnly", "mode is Plan: nothing new is chosen"))
            }
            (_, Standing::Open | Standing::Lost) if incident.spec.suspend => {
                Some(Refusal::new("Suspended", "spec.suspend: nothing new is chosen"))
            }
            (_, Standing::Open | Standing::Lost) => Some(Refusal::new("Resolving", "who matches is being asked of AWS")),
            (Mode::Contain, Standing::Settled) if more > 0 => {
                Some(Refusal::new("Containing", format!("{more} instances match, and are being looked at")))
            }
            (_, Standing::Settled) if self.size() == 0 => Some(Refusal::new("NothingMatches", self.nothing())),
            (_, Standing::Settled) => None,
        }
    }

    fn nothing(&self) -> &'static str {
        match &self.selector {
            Some(selector) if selector.follow => "no instance matches so far: what matches later joins",
            _ => "no instance matched: mend the selector, or set mode to Plan and then to Contain to look again",
        }
    }
}

fn new(selector: &Ec2SelectorTarget, key: &str, now: Timestamp) -> SelectorStatus {
    SelectorStatus {
        key: key.to_owned(),
        selector: bounded(selector.to_string(), 1000),
        account_ref: selector.account_ref.clone(),
        region: selector.region.clone(),
        resolved_at: clock::time(now),
        rebuilt_at: None,
        instances: Vec::new(),
        awaiting_approval: Vec::new(),
        joined: Vec::new(),
    }
}

/// Adds instances to the list; none of them waits any more.
fn add(record: &mut SelectorStatus, more: impl IntoIterator<Item = String>) {
    let all: BTreeSet<String> = record.instances.drain(..).chain(more).collect();
    record.awaiting_approval.retain(|id| !all.contains(id));
    record.instances = all.into_iter().collect();
}

#[cfg(test)]
#[path = "selector_tests.rs"]
mod tests;
