//! `disableInstanceMetadata`: the instance gets no more credentials of its role, no user data and no identity document.
//!
//! Only the endpoint is switched: AWS keeps what a request does not name, so tokens and hop limit stay as they are. They are recorded
//! all the same: an endpoint that comes back must not be weaker than the one that went.
//! <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ModifyInstanceMetadataOptions.html>

use std::collections::BTreeMap;

use firebreak_crds::{ActionState, Empty, OnConflict};
use serde::{Deserialize, Serialize};

use super::action::{Action, Stage};
use super::case::Case;
use super::given::{no_such_key, reads};
use super::plan::{Plan, Verdict};
use super::tag_resource::is_marked_before;
use crate::aws::{AwsError, Call, Instance, MetadataOptions, Outcome, Session};

/// The action.
pub struct Metadata;

/// What is observed; None where there is no such instance.
pub type Look = Option<Instance>;

/// What is recorded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Original {
    enabled: bool,
    http_tokens: String,
    http_put_response_hop_limit: i32,
}

impl Action for Metadata {
    const NAME: &'static str = "disableInstanceMetadata";
    const STAGE: Stage = Stage::Service; // it hands out credentials: not before it is decided what they can reach
    type Params = Empty;
    type Look = Look;

    fn tags(look: &Look) -> Option<&BTreeMap<String, String>> {
        look.as_ref().map(|i| &i.tags)
    }

    fn check(sub: &str, text: &str) -> Result<(), String> {
        match sub {
            "" => reads::<Original>(text),
            _ => no_such_key(),
        }
    }

    async fn look(aws: &Session, case: &Case, _: Option<&Empty>) -> Result<Look, AwsError> {
        let (region, id) = case.instance();
        aws.instance(region, id).await
    }

    fn contain(case: &Case, _: &Empty, look: &Look) -> Plan {
        let Some(instance) = look else { return super::isolate_network::not_seen(case) };
        if instance.is_ended() {
            return Plan::ended(case, instance, "the instance is terminated: it has no metadata service");
        }
        let (mut plan, known) = (Plan::default(), case.original.contains_key(Self::NAME));
        if !known && (case.is_unknown(Self::NAME) || is_marked_before(case, &instance.tags)) {
            plan.unknown(case, Self::NAME);
        } else if !known {
            plan.record(Self::NAME, &Original::of(&instance.metadata));
        }
        if instance.metadata.enabled {
            plan.calls.push(switch(instance, false, None));
            plan.verdict.drift.push("the metadata service was on".into());
        }
        let pending = instance.state == "running" && instance.metadata.pending;
        plan.verdict.state = if plan.is_done() && !pending { ActionState::InForce } else { ActionState::InProgress };
        plan.verdict.message = message(instance, pending, plan.verdict.unknown);
        plan
    }

    fn release(case: &Case, look: &Look) -> Plan {
        let Some(instance) = look.as_ref().filter(|i| !i.is_ended()) else {
            return Plan::gone(case, Self::NAME, look.as_ref());
        };
        let Some(original) = case.recorded::<Original>(Self::NAME) else { return release_unknown(case) };
        match (instance.metadata.enabled, original.enabled) {
            (false, false) => Plan::done(ActionState::Released, ""),
            (true, true) => is_on(case, instance, &original),
            (false, true) => give_back(case, instance, &original), // AWS shows what we put there
            (true, false) => was_off(case, instance),
        }
    }

    fn after(look: &mut Look, call: &Call, _: &Outcome) {
        let (Some(instance), Call::ModifyInstanceMetadataOptions { enabled, tokens, .. }) = (look, call) else { return };
        instance.metadata.enabled = *enabled;
        if let Some((http_tokens, hop_limit)) = tokens {
            instance.metadata.http_tokens.clone_from(http_tokens);
            instance.metadata.hop_limit = *hop_limit;
        }
    }
}

impl Original {
    fn of(options: &MetadataOptions) -> Self {
        Self {
            enabled: options.enabled,
            http_tokens: options.http_tokens.clone(),
            http_put_response_hop_limit: options.hop_limit,
        }
    }

    fn has_tokens_of(&self, options: &MetadataOptions) -> bool {
        (&self.http_tokens, self.http_put_response_hop_limit) == (&options.http_tokens, options.hop_limit)
    }

    /// Tokens that were required and are optional now, or a hop limit that grew.
    fn is_stricter_than(&self, options: &MetadataOptions) -> bool {
        let optional = self.http_tokens == "required" && options.http_tokens != "required";
        optional || options.hop_limit > self.http_put_response_hop_limit
    }

    fn tokens(&self) -> String {
        format!("HttpTokens {}, hop limit {}", self.http_tokens, self.http_put_response_hop_limit)
    }
}

/// It is on, as before: but not with tokens that are weaker than they were, unless a person says so.
fn is_on(case: &Case, instance: &Instance, original: &Original) -> Plan {
    let before = (original.http_tokens.clone(), original.http_put_response_hop_limit);
    match case.decision {
        _ if !original.is_stricter_than(&instance.metadata) => Plan::done(ActionState::Released, ""),
        None => conflict(&format!(
            "the metadata service is on with {}, before containment it had {}: spec.release.onConflict decides (KeepTheirs or RestoreOriginal)",
            Original::of(&instance.metadata).tokens(),
            original.tokens()
        )),
        Some(OnConflict::KeepTheirs) => Plan::done(ActionState::Released, ""),
        Some(OnConflict::RestoreOriginal) => Plan { calls: vec![switch(instance, true, Some(before))], ..Plan::default() },
    }
}

/// Switches it on again: as it was, unless a person wants it as somebody set it since.
fn give_back(case: &Case, instance: &Instance, original: &Original) -> Plan {
    let same = original.has_tokens_of(&instance.metadata);
    let before = (original.http_tokens.clone(), original.http_put_response_hop_limit);
    let tokens = match case.decision {
        None if !same => {
            let now = Original::of(&instance.metadata).tokens();
            let what = format!("the metadata service is off with {now}, before containment it had {}", original.tokens());
            return conflict(&format!("{what}: spec.release.onConflict decides with which it is switched on"));
        }
        Some(OnConflict::RestoreOriginal) if !same => Some(before),
        _ => None,
    };
    let calls = vec![switch(instance, true, tokens)];
    Plan { calls, verdict: Verdict::new(ActionState::InProgress, ""), ..Plan::default() }
}

/// It was off before, and somebody switched it on since the last look.
fn was_off(case: &Case, instance: &Instance) -> Plan {
    match case.decision {
        None => conflict(
            "the metadata service was off before containment and is on now: spec.release.onConflict decides (KeepTheirs or RestoreOriginal)",
        ),
        Some(OnConflict::KeepTheirs) => Plan::done(ActionState::Released, ""),
        Some(OnConflict::RestoreOriginal) => Plan { calls: vec![switch(instance, false, None)], ..Plan::default() },
    }
}

/// Nothing was recorded: either nothing was done, or the record is lost.
fn release_unknown(case: &Case) -> Plan {
    if !case.is_unknown(Metadata::NAME) || case.decision == Some(OnConflict::KeepTheirs) {
        return Plan::done(ActionState::Released, "");
    }
    conflict(
        "whether the metadata service was on before is not known: set it by hand, then spec.release.onConflict: KeepTheirs",
    )
}

fn conflict(what: &str) -> Plan {
    Plan::done(ActionState::Conflict, what)
}

fn switch(instance: &Instance, enabled: bool, tokens: Option<(String, i32)>) -> Call {
    Call::ModifyInstanceMetadataOptions { instance: instance.id.clone(), enabled, tokens }
}

fn message(instance: &Instance, pending: bool, unknown: bool) -> String {
    let how = match (instance.metadata.enabled, pending) {
        (true, _) => "the metadata service is on",
        (false, true) => "AWS is still switching the metadata service off",
        (false, false) => {
            "the metadata service is off; role credentials that it handed out stay valid until they expire or revokeInstanceRole denies them"
        }
    };
    let lost = if unknown {
        "; the instance carried Firebreak's marks before this record began: whether it was on is not known"
    } else {
        ""
    };
    format!("{how}{lost}")
}

#[cfg(test)]
#[path = "disable_instance_metadata_tests.rs"]
mod tests;
