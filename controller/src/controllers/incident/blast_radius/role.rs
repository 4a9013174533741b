//! Who uses a role: what would be cut off with it.

use std::time::Duration;

use firebreak_crds::{BlastRadiusCause, Resource};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use tokio::time::Instant;

use super::{Seen, by};
use crate::aws::{Identity, Principal, Session};
use crate::clock;
use crate::memory::CutOff;

/// Whoever used it within this time uses it.
const RECENTLY: Duration = Duration::from_hours(7 * 24);
/// So many are named.
const SHOWN: usize = 3;

/// Who the role is, and who runs with it, side by side.
pub(super) async fn look(session: &Session, resource: &Resource, deadline: Instant) -> Seen {
    let principal = Principal::of(resource);
    let (identity, running) = futures::join!(
        by(deadline, "iam:GetRole", session.identity(&principal)),
        by(deadline, "iam:ListInstanceProfilesForRole", session.running_with_role(&resource.id)),
    );
    let mut seen = Seen::default();
    let (identity, running) = (seen.take(identity), seen.take(running));
    seen.facts = judged(&identity.unwrap_or_default(), &running, &resource.account_id, clock::now());
    seen
}

/// Who uses it, in words. One that AWS manages is not to be contained at all: that is said when it is to be held.
pub(super) fn judged(role: &Identity, running: &[String], account: &str, now: Timestamp) -> Vec<CutOff> {
    if role.managed_by().is_some() {
        return Vec::new();
    }
    let outside = trusted_outside(role.trust.as_deref().unwrap_or_default(), account);
    let recently = role.last_used.filter(|at| clock::since(*at, now) < RECENTLY);
    let running = some(running, |list| format!("running instances use it: {list}"));
    let outside =
        some(&outside, |list| format!("its trust policy lets others than this account's users and roles assume it: {list}"));
    let recently = recently.map(|at| format!("it was used within the last 7 days, on {}", at.strftime("%F")));
    let all = [
        (BlastRadiusCause::RunningInstances, running),
        (BlastRadiusCause::TrustedFromOutside, outside),
        (BlastRadiusCause::UsedRecently, recently),
    ];
    all.into_iter().filter_map(|(cause, who)| Some((cause, who?))).collect()
}

fn some(list: &[String], say: impl Fn(String) -> String) -> Option<String> {
    let more = list.len().saturating_sub(SHOWN);
    let mut shown: Vec<String> = list.iter().take(SHOWN).cloned().collect();
    shown.extend((more > 0).then(|| format!("{more} more")));
    (!list.is_empty()).then(|| say(shown.join(", ")))
}

/// The principals of a trust policy that are services, identity providers, or of another account.
fn trusted_outside(trust: &str, account: &str) -> Vec<String> {
    let document: Value = serde_json::from_str(trust).unwrap_or_default();
    let allowed = each(&document["Statement"]).filter(|s| s["Effect"] == "Allow");
    let mut outside: Vec<String> = allowed.flat_map(|statement| strangers(statement, account)).collect();
    outside.sort();
    outside.dedup();
    outside
}

/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_principal.html>
fn strangers(statement: &Value, account: &str) -> Vec<String> {
    let principal = match (&statement["Principal"], &statement["NotPrincipal"]) {
        (Value::String(all), _) => return vec![all.clone()],
        (Value::Object(principal), _) => principal,
        (_, Value::Null) => return Vec::new(),
        _ => return vec!["all but some (NotPrincipal)".to_owned()],
    };
    let named = |(kind, who): (&String, &Value)| {
        let who: Vec<String> = each(who).filter_map(Value::as_str).map(str::to_owned).collect();
        who.into_iter().filter(|w| kind != "AWS" || !is_of(w, account)).collect::<Vec<_>>()
    };
    principal.iter().flat_map(named).collect()
}

/// Whether an AWS principal is of that account. The unique id of one that was deleted is nobody.
fn is_of(principal: &str, account: &str) -> bool {
    let owner = principal.strip_prefix("arn:").map_or(principal, |arn| arn.split(':').nth(3).unwrap_or_default());
    let deleted = ["AIDA", "AROA"].iter().any(|prefix| principal.starts_with(prefix));
    owner == account || deleted
}

/// IAM takes one where it takes a list.
fn each(value: &Value) -> impl Iterator<Item = &Value> {
    let list = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    list.iter().filter(|v| !v.is_null())
}
