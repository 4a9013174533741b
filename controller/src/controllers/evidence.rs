//! The Evidence controller: collects one piece of evidence, once, and follows it until it is complete.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use firebreak_crds::conditions::{READY, RECONCILING, STALLED};
use firebreak_crds::{CustodyEntry, Evidence, EvidenceStatus, Request, RequestOutcome, VolumeSnapshot, is_true};
use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};

use super::{Ctx, Error, account_of, reconcile_requested, write_status};
use crate::aws::{AwsError, Class, Guard, Outcome, Priority, Session, Snapshot};
use crate::clock;
use crate::conditions::{Conditions, bounded};
use crate::events;
use crate::evidence::ebs_snapshots::{self, Next};
use crate::stores::Stores;

/// How often snapshots that are under way are looked at.
const FOLLOW: Duration = Duration::from_secs(5);
/// Two looks that must agree are so far apart.
const AGREE: Duration = Duration::from_secs(2);
/// How often complete ones are: one that vanishes is a finding.
const WATCH: Duration = Duration::from_mins(10);

/// Reconciles one piece of evidence.
///
/// # Errors
/// Where the API server must be asked again; what AWS says goes into conditions.
pub async fn reconcile(evidence: Arc<Evidence>, ctx: Arc<Ctx>) -> Result<Action, Error> {
    if evidence.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let (uid, basis) = (evidence.uid().unwrap_or_default(), basis(&ctx, &evidence));
    if let Some(wait) = ctx.memory.not_due(&uid, &basis) {
        return Ok(Action::requeue(wait));
    }
    let api = Api::<Evidence>::all(ctx.client.clone());
    let turn = Turn { ctx: &ctx, api: &api };
    let (written, wait) = Box::pin(turn.take((*evidence).clone())).await?;
    let memo = ctx.memory.of(&uid);
    let due = std::time::Instant::now() + wait;
    ctx.memory.set(&uid, crate::memory::Memo { basis: self::basis(&ctx, &written), due, ..memo });
    Ok(Action::requeue(wait))
}

/// Whether it is complete, and was seen so at the last look.
pub fn is_complete(evidence: &Evidence) -> bool {
    evidence.status.as_ref().is_some_and(|s| is_true(&s.conditions, READY))
}

/// Its own status writes are no reason to look again; a request, or an account that works now, is.
fn basis(ctx: &Ctx, evidence: &Evidence) -> String {
    let account = Stores::named(&ctx.stores.accounts, &evidence.spec.resource.account_ref.name);
    let ready = account.as_ref().and_then(|a| a.status.as_ref()).is_some_and(|s| is_true(&s.conditions, READY));
    format!("{:?} {ready} {:?}", reconcile_requested(evidence), account.and_then(|a| a.metadata.generation))
}

struct Turn<'a> {
    ctx: &'a Ctx,
    api: &'a Api<Evidence>,
}

impl Turn<'_> {
    async fn take(&self, evidence: Evidence) -> Result<(Evidence, Duration), Error> {
        let suspended = self.is_suspended(&evidence);
        let (mut evidence, result) = if suspended { (evidence, Ok(())) } else { Box::pin(self.go_on(evidence)).await? };
        let before = self.ctx.stores.evidence.get(&kube::runtime::reflector::ObjectRef::new(&evidence.name_any()));
        let standing =
            if suspended { Standing::Suspended } else { result.as_ref().err().map_or(Standing::Asked, Standing::Refused) };
        decide(&mut evidence, standing, clock::now());
        let status = evidence.status.clone().unwrap_or_default();
        let wait = match result {
            Err(error) => error.class.retry_after().max(FOLLOW),
            Ok(()) if ebs_snapshots::complete(&status.volumes) => WATCH,
            Ok(()) => FOLLOW.min(self.ctx.drift_interval),
        };
        if before.as_ref().and_then(|b| b.status.as_ref()) == Some(&status) {
            return Ok((evidence, wait));
        }
        let written = write_status(self.api, &evidence).await?;
        self.publish(before.as_deref(), &written).await;
        Ok((written, wait))
    }

    async fn go_on(&self, evidence: Evidence) -> Result<(Evidence, Result<(), AwsError>), Error> {
        match self.session(&evidence).await {
            Ok(session) => self.collect(evidence, &session).await,
            Err(error) => Ok((evidence, Err(error))),
        }
    }

    /// Whether it is still to be asked for, and a person wants nothing done to the resource.
    fn is_suspended(&self, evidence: &Evidence) -> bool {
        let status = evidence.status.clone().unwrap_or_default();
        let quarantine = self.ctx.stores.quarantine_of(&evidence.spec.resource);
        quarantine.is_some_and(|q| q.spec.suspend) && matches!(ebs_snapshots::next(&status), Next::Send)
    }

    async fn session(&self, evidence: &Evidence) -> Result<Arc<Session>, AwsError> {
        let resource = &evidence.spec.resource;
        let account = Stores::named(&self.ctx.stores.accounts, &resource.account_ref.name);
        self.ctx.accounts.session(account_of(resource, account.as_deref())?).await
    }

    /// The next step; the evidence with what is known now, and what AWS said.
    async fn collect(&self, evidence: Evidence, session: &Session) -> Result<(Evidence, Result<(), AwsError>), Error> {
        let status = evidence.status.clone().unwrap_or_default();
        match ebs_snapshots::next(&status) {
            Next::Send => self.send(evidence, session).await,
            Next::Find => Ok(self.find(evidence, session).await),
            Next::Follow => Ok(self.follow(evidence, session).await),
        }
    }

    /// The intent is stored before the request goes out.
    async fn send(&self, mut evidence: Evidence, session: &Session) -> Result<(Evidence, Result<(), AwsError>), Error> {
        let at = clock::time(clock::now());
        let description = ebs_snapshots::new_description(&evidence);
        let intent = Request { at, outcome: RequestOutcome::Unknown, message: String::new(), description };
        evidence.status.get_or_insert_default().request = Some(intent);
        decide(&mut evidence, Standing::Asked, clock::now());
        let mut evidence = write_status(self.api, &evidence).await?;
        let call = ebs_snapshots::request(&evidence);
        let region = evidence.spec.resource.region.clone();
        let answer = self.ctx.actor.act(session, region.as_deref(), &call, &Guard::Narrowing, Priority::Evidence).await;
        let result = match answer {
            Ok(Outcome::Snapshots(snapshots)) => {
                accept(&mut evidence, &snapshots, session, "CreateSnapshots accepted");
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(error) => {
                refuse(&mut evidence, &error);
                Err(error)
            }
        };
        Ok((evidence, result))
    }

    /// A request of unknown outcome: its snapshots carry our uid, or it never happened.
    async fn find(&self, mut evidence: Evidence, session: &Session) -> (Evidence, Result<(), AwsError>) {
        let region = evidence.spec.resource.region.clone().unwrap_or_default();
        let description = ebs_snapshots::description(&evidence);
        let found = match found_twice(session, &region, &description).await {
            Ok(found) => found,
            Err(error) => return (evidence, Err(error)),
        };
        if !found.is_empty() {
            accept(&mut evidence, &found, session, "found by description after an unknown outcome");
            return (evidence, Ok(()));
        }
        let status = evidence.status.get_or_insert_default();
        if let Some(request) = status.request.as_mut().filter(|r| ebs_snapshots::is_lost(r, clock::now())) {
            request.outcome = RequestOutcome::Refused;
            request.message = "no answer, and no such snapshot for 60 s: sent again".into();
        }
        (evidence, Ok(()))
    }

    async fn follow(&self, mut evidence: Evidence, session: &Session) -> (Evidence, Result<(), AwsError>) {
        let region = evidence.spec.resource.region.clone().unwrap_or_default();
        let status = evidence.status.get_or_insert_default();
        let looks = status.volumes.iter().map(|v| session.snapshot(&region, &v.snapshot_id));
        let (seen, now) = (futures::future::join_all(looks).await, clock::now());
        for (before, seen) in status.volumes.iter_mut().zip(seen) {
            *before = match seen {
                Ok(Some(seen)) => ebs_snapshots::volume(&seen, Some(before), now),
                Ok(None) => ebs_snapshots::unseen(before),
                Err(error) => return (evidence, Err(error)),
            };
        }
        (evidence, Ok(()))
    }

    async fn publish(&self, before: Option<&Evidence>, now: &Evidence) {
        let on = events::reference(now);
        let progress = now.status.as_ref().and_then(|s| s.progress.clone()).unwrap_or_default();
        if is_complete(now) && !before.is_some_and(is_complete) {
            self.ctx.events.normal(&on, "Preserved", format!("{}: {progress} snapshots completed", now.spec.resource)).await;
        }
        if before.is_some_and(is_complete) && !is_complete(now) {
            self.ctx
                .events
                .warning(&on, "EvidenceChanged", format!("{}: {progress} snapshots are there", now.spec.resource))
                .await;
        }
    }
}

/// What two equal looks show: AWS may show the snapshots of one call one after the other.
async fn found_twice(session: &Session, region: &str, description: &str) -> Result<Vec<Snapshot>, AwsError> {
    let ids = |list: &[Snapshot]| list.iter().map(|s| s.id.clone()).collect::<BTreeSet<_>>();
    let mut before = session.snapshots_described(region, description).await?;
    while !before.is_empty() {
        tokio::time::sleep(AGREE).await;
        let now = session.snapshots_described(region, description).await?;
        if ids(&now) == ids(&before) {
            return Ok(now);
        }
        before = now;
    }
    Ok(before)
}

fn accept(evidence: &mut Evidence, snapshots: &[Snapshot], session: &Session, how: &str) {
    let now = clock::now();
    let status = evidence.status.get_or_insert_default();
    if let Some(request) = status.request.as_mut() {
        request.outcome = RequestOutcome::Accepted;
        request.message = String::new();
    }
    status.volumes = snapshots.iter().map(|s| ebs_snapshots::volume(s, None, now)).collect();
    let ids: Vec<&str> = snapshots.iter().map(|s| s.id.as_str()).collect();
    custody(status, &session.caller_arn, format!("{how}: {}", ids.join(", ")), now);
}

fn custody(status: &mut EvidenceStatus, by: &str, what: String, now: Timestamp) {
    if status.custody.len() < 64 {
        status.custody.push(CustodyEntry { at: clock::time(now), by: by.into(), what: bounded(what, 1000) });
    }
}

/// An answer that says no means that nothing happened; no answer means nothing.
fn refuse(evidence: &mut Evidence, error: &AwsError) {
    if let Some(request) = evidence.status.get_or_insert_default().request.as_mut() {
        request.at = clock::time(clock::now()); // it may have waited for its turn: looks count from here
        request.outcome = if error.class == Class::Unknown { RequestOutcome::Unknown } else { RequestOutcome::Refused };
        request.message = bounded(error.to_string(), 2000);
    }
}

/// What came of a turn.
#[derive(Clone, Copy)]
enum Standing<'a> {
    Asked,
    Refused(&'a AwsError),
    Suspended,
}

/// Every condition, decided once.
fn decide(evidence: &mut Evidence, standing: Standing<'_>, now: Timestamp) {
    let (generation, requested) = (evidence.metadata.generation, reconcile_requested(evidence));
    let status = evidence.status.get_or_insert_default();
    status.observed_generation = generation;
    status.last_handled_reconcile_at = requested;
    status.progress = (!status.volumes.is_empty()).then(|| ebs_snapshots::progress(&status.volumes));
    if ebs_snapshots::complete(&status.volumes) && status.digest.is_none() {
        status.digest = Some(ebs_snapshots::digest(&status.volumes));
        custody(status, "firebreak (this record)", "all snapshots completed; record digested".into(), now);
    }
    let previous = std::mem::take(&mut status.conditions);
    let mut c = Conditions::new(&previous, generation, now);
    ready(&mut c, &status.volumes, status.request.as_ref(), standing);
    status.conditions = c.done();
}

fn ready(c: &mut Conditions<'_>, volumes: &[VolumeSnapshot], request: Option<&Request>, standing: Standing<'_>) {
    let count = ebs_snapshots::progress(volumes);
    let bad: Vec<String> = volumes
        .iter()
        .filter(|v| !matches!(v.state.as_str(), "pending" | "completed"))
        .map(|v| format!("{} is {}", v.snapshot_id, v.state))
        .collect();
    if let Standing::Suspended = standing {
        let what = "its Quarantine is suspended (spec.suspend): nothing is written to AWS, so no snapshot is asked for";
        c.set(READY, "False", "Suspended", what);
        c.set(STALLED, "True", "Suspended", what);
    } else if let Standing::Refused(error) = standing {
        let dead_end = matches!(error.class, Class::Denied | Class::Terminal | Class::NotFound);
        c.set(READY, "False", error.class.reason(), error.to_string());
        c.set(if dead_end { STALLED } else { RECONCILING }, "True", error.class.reason(), error.to_string());
    } else if !bad.is_empty() {
        c.set(READY, "False", "SnapshotFailed", bad.join("; "));
        c.set(STALLED, "True", "SnapshotFailed", bad.join("; "));
    } else if ebs_snapshots::complete(volumes) {
        c.set(READY, "True", "Completed", format!("{count} snapshots completed"));
    } else {
        let asked = request.is_some_and(|r| r.outcome == RequestOutcome::Accepted);
        let text =
            if asked { format!("{count} snapshots completed") } else { "the snapshots are being asked for".to_owned() };
        c.set(READY, "False", "InProgress", &*text);
        c.set(RECONCILING, "True", "InProgress", text);
    }
}
