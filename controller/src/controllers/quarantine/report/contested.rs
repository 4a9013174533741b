//! Whether somebody undoes the same thing again and again: another controller, or the attacker. It is put back each time, but calling
//! that contained would be a lie.

use firebreak_crds::{PutBack, Quarantine};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::{Seen, before};
use crate::clock;
use crate::conditions::bounded;
use crate::containment::Report;

/// So often within `WINDOW`.
const TIMES: usize = 5;
const WINDOW: SignedDuration = SignedDuration::from_mins(10);
/// What the API has room for.
const KEPT: usize = 32;

/// What was put back within the last ten minutes, this pass included; the oldest first.
pub fn put_back(quarantine: &Quarantine, seen: &Seen, report: &Report, now: Timestamp) -> Vec<PutBack> {
    let earlier = before(quarantine, report.name).map(|b| b.put_back.clone()).unwrap_or_default();
    let drifted = seen.drifted(quarantine).filter(|r| r.name == report.name && r.wrote);
    let these = drifted.flat_map(|r| &r.verdict.drift);
    let these = these.map(|what| PutBack { what: bounded(what.clone(), 500), at: clock::time(now) });
    let mut all: Vec<PutBack> = earlier.into_iter().filter(|p| now < p.at.0 + WINDOW).chain(these).collect();
    all.drain(..all.len().saturating_sub(KEPT));
    all
}

/// What was put back too often, if anything was.
pub fn again_and_again(put_back: &[PutBack]) -> Option<&str> {
    let times = |what: &str| put_back.iter().filter(|p| p.what == what).count();
    put_back.iter().map(|p| p.what.as_str()).find(|what| times(what) >= TIMES)
}

/// How the action stands, and what is undone.
pub fn message(so_far: &str, what: &str) -> String {
    format!(
        "{so_far}; undone again and again, and put back each time: {what} ({TIMES} times within 10 minutes). CloudTrail says who does it: contain that principal, or stop that controller"
    )
}
