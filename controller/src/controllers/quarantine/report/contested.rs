//! Whether somebody puts an action out of force again and again: another controller, or the attacker. It is put back each time, but
//! calling that contained would be a lie.

use firebreak_crds::{Quarantine, Undone};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::{Seen, before};
use crate::clock;
use crate::conditions::bounded;
use crate::containment::Report;

/// So often within `WINDOW`.
const TIMES: usize = 5;
const WINDOW: SignedDuration = SignedDuration::from_mins(10);
/// What the API has room for.
const KEPT: usize = 8;

/// When the action was found out of force within the last ten minutes, this pass included; the oldest first. Once for each pass, in
/// whatever way it was undone.
pub fn undone(quarantine: &Quarantine, seen: &Seen, report: &Report, now: Timestamp) -> Vec<Undone> {
    let earlier = before(quarantine, report.name).map(|b| b.undone.clone()).unwrap_or_default();
    let this = seen.undone(quarantine).find(|r| r.name == report.name).map(|r| what(&r.verdict.drift));
    let this = this.map(|what| Undone { what: bounded(what, 500), at: clock::time(now) });
    let mut all: Vec<Undone> = earlier.into_iter().filter(|u| now < u.at.0 + WINDOW).chain(this).collect();
    all.drain(..all.len().saturating_sub(KEPT));
    all
}

fn what(drift: &[String]) -> String {
    match drift {
        [one] => one.clone(),
        [first, more @ ..] => format!("{first}, and {} more", more.len()),
        [] => String::new(),
    }
}

/// How it was undone the last time, where that was too often.
pub fn again_and_again(undone: &[Undone]) -> Option<&str> {
    undone.last().filter(|_| undone.len() >= TIMES).map(|u| u.what.as_str())
}

/// How the action stands, and what is undone.
pub fn message(so_far: &str, what: &str) -> String {
    format!(
        "{so_far}; undone {TIMES} times within 10 minutes, and put back each time: the last time {what}. CloudTrail says who does it: contain that principal, or stop that controller"
    )
}
