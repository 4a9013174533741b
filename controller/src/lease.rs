//! One leader: the holder of a `Lease`.
//!
//! A claim is a fence: whoever changes AWS checks it, with its expiry, right before each call. It runs from *before* the
//! write that earned it was sent, and when renewals fail it simply runs out, whether or not anyone notices.
//!
//! Clocks of two nodes are never compared: a lease has expired when this process has *watched it unchanged* for as long
//! as it lasts. So a node whose clock is ahead does not take the lease from a living leader. The price is that a new
//! process waits that long once, where a predecessor of another name died without giving the lease up.

use std::future::Future;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::clock;

/// How long before its expiry a claim stops covering: what starts now has to arrive at AWS too.
const MARGIN: SignedDuration = SignedDuration::from_secs(2);

/// How long a lease lasts without renewal, unless a test wants less.
pub const TTL: Duration = Duration::from_secs(15);

/// The right to change AWS, until it expires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Who leads.
    pub holder: String,
    /// From when on somebody else may lead.
    pub expires: Timestamp,
}

impl Claim {
    /// Whether a call may still go out.
    #[must_use]
    pub fn covers(&self, now: Timestamp) -> bool {
        self.expires.duration_since(now) > MARGIN
    }

    /// The claim that a write sent at `sent` earns.
    fn earned(holder: &str, sent: Timestamp, ttl: Duration) -> Self {
        let ttl = SignedDuration::try_from(ttl).unwrap_or(SignedDuration::ZERO);
        // Out of range is a claim that covers nothing.
        Self { holder: holder.to_owned(), expires: sent.checked_add(ttl).unwrap_or(sent) }
    }
}

/// What to do about the lease now.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Acquire, renew or take over by writing this.
    Write(LeaseSpec),
    /// Somebody else holds it: look again after this time.
    Wait(Duration),
}

/// What `me` does about a lease that it has watched unchanged for `watched`.
#[must_use]
pub fn decide(now: Timestamp, lease: Option<&Lease>, watched: Duration, me: &str, ttl: Duration) -> Decision {
    let current = lease.and_then(|lease| lease.spec.clone()).unwrap_or_default();
    match holder(&current) {
        Some(holder) if holder == me => Decision::Write(renewed(current, now, ttl)),
        Some(_) => match lasts(&current, ttl).checked_sub(watched) {
            Some(left) if !left.is_zero() => Decision::Wait(left.min(pause(ttl))),
            _ => Decision::Write(taken(current, now, me, ttl)),
        },
        None => Decision::Write(taken(current, now, me, ttl)),
    }
}

/// The lease as `me` leaves it, so that a successor starts at once; None where `me` does not hold it.
#[must_use]
pub fn release(now: Timestamp, lease: &Lease, me: &str) -> Option<LeaseSpec> {
    let spec = lease.spec.clone().filter(|spec| holder(spec) == Some(me))?;
    Some(LeaseSpec { holder_identity: Some(String::new()), renew_time: Some(MicroTime(now)), ..spec })
}

fn holder(spec: &LeaseSpec) -> Option<&str> {
    spec.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}

/// How long the holder said that its lease lasts.
fn lasts(spec: &LeaseSpec, ttl: Duration) -> Duration {
    let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    seconds.filter(|seconds| *seconds > 0).map_or(ttl, Duration::from_secs)
}

fn renewed(spec: LeaseSpec, now: Timestamp, ttl: Duration) -> LeaseSpec {
    let seconds = i32::try_from(ttl.as_millis().div_ceil(1000)).unwrap_or(i32::MAX).max(1);
    LeaseSpec { lease_duration_seconds: Some(seconds), renew_time: Some(MicroTime(now)), ..spec }
}

fn taken(spec: LeaseSpec, now: Timestamp, me: &str, ttl: Duration) -> LeaseSpec {
    let transitions = spec.lease_transitions.map_or(0, |transitions| transitions.saturating_add(1));
    let acquired = LeaseSpec {
        holder_identity: Some(me.to_owned()),
        acquire_time: Some(MicroTime(now)),
        lease_transitions: Some(transitions),
        ..spec
    };
    renewed(acquired, now, ttl)
}

/// Between two looks at a lease that somebody else holds, and after an error.
fn pause(ttl: Duration) -> Duration {
    ttl / 15
}

/// Competes for the lease until `shutdown` resolves, then gives it up.
///
/// The receiver shows the claim, and None while there is none; check [`Claim::covers`] at each effect all the same.
/// `shutdown` must resolve only when the last call that the claim covers has ended: the successor starts at once.
pub fn start(
    client: Client,
    namespace: &str,
    name: &str,
    identity: &str,
    ttl: Duration,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> (watch::Receiver<Option<Claim>>, JoinHandle<()>) {
    let (claim, receiver) = watch::channel(None);
    let candidate = Candidate {
        api: Api::namespaced(client, namespace),
        name: name.to_owned(),
        me: identity.to_owned(),
        ttl,
        seen: None,
        claim,
        deadline: Instant::now(),
    };
    (receiver, tokio::spawn(candidate.run(shutdown)))
}

/// What was being done when the API server failed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("reading the lease: {0}")]
    Read(Box<kube::Error>),
    #[error("writing the lease: {0}")]
    Write(Box<kube::Error>),
    #[error("the API server did not answer in {0:?}")]
    Silence(Duration),
}

struct Candidate {
    api: Api<Lease>,
    name: String,
    me: String,
    ttl: Duration,
    /// The lease as last read, and since when it is like that.
    seen: Option<(LeaseSpec, Instant)>,
    claim: watch::Sender<Option<Claim>>,
    /// When the claim runs out, by the clock that nobody sets.
    deadline: Instant,
}

impl Candidate {
    async fn run(mut self, shutdown: impl Future<Output = ()> + Send) {
        tokio::pin!(shutdown);
        loop {
            let (leads, deadline) = (self.leads(), self.deadline);
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                () = sleep_until(deadline), if leads => self.lose("it ran out"),
                () = self.turn() => {}
            }
        }
        self.give_up().await;
    }

    fn leads(&self) -> bool {
        self.claim.borrow().is_some()
    }

    /// One round, and the pause after it.
    async fn turn(&mut self) {
        let wait = self.round().await.unwrap_or_else(|error| {
            tracing::warn!(lease = self.name, %error, "cannot compete for the lease; trying again");
            pause(self.ttl)
        });
        sleep(wait).await;
    }

    /// Looks, decides, writes; returns when to do so again.
    async fn round(&mut self) -> Result<Duration, Error> {
        let lease = self.read().await?;
        let watched = self.watched(lease.as_ref());
        let (now, sent) = (clock::now(), Instant::now());
        let spec = match decide(now, lease.as_ref(), watched, &self.me, self.ttl) {
            Decision::Write(spec) => spec,
            Decision::Wait(wait) => {
                self.lose("somebody else holds it");
                return Ok(wait);
            }
        };
        if !self.write(lease, spec).await? {
            return Ok(pause(self.ttl) / 10);
        }
        self.win(now, sent);
        Ok(self.ttl / 3)
    }

    /// How long the lease has been as it is, as far as this process has seen.
    fn watched(&mut self, lease: Option<&Lease>) -> Duration {
        let spec = lease.and_then(|lease| lease.spec.clone()).unwrap_or_default();
        match &self.seen {
            Some((seen, since)) if *seen == spec => since.elapsed(),
            _ => {
                self.seen = Some((spec, Instant::now()));
                Duration::ZERO
            }
        }
    }

    fn win(&mut self, now: Timestamp, sent: Instant) {
        self.deadline = sent + self.ttl;
        let before = self.claim.send_replace(Some(Claim::earned(&self.me, now, self.ttl)));
        if before.is_none() {
            tracing::info!(lease = self.name, holder = self.me, "leading");
        }
    }

    fn lose(&self, why: &str) {
        if self.claim.send_replace(None).is_some() {
            tracing::warn!(lease = self.name, holder = self.me, why, "no longer leading");
        }
    }

    async fn give_up(self) {
        self.claim.send_replace(None);
        match self.hand_over().await {
            Ok(true) => tracing::info!(lease = self.name, holder = self.me, "gave the lease up"),
            Ok(false) => {}
            Err(error) => tracing::warn!(lease = self.name, %error, "cannot give the lease up; it will expire"),
        }
    }

    /// False where this process does not hold the lease.
    async fn hand_over(&self) -> Result<bool, Error> {
        let Some(lease) = self.read().await? else { return Ok(false) };
        let Some(spec) = release(clock::now(), &lease, &self.me) else { return Ok(false) };
        self.write(Some(lease), spec).await
    }

    async fn read(&self) -> Result<Option<Lease>, Error> {
        self.bounded(self.api.get_opt(&self.name)).await?.map_err(|error| Error::Read(Box::new(error)))
    }

    /// Writes over exactly what was read; false where that is no longer what is there.
    async fn write(&self, read: Option<Lease>, spec: LeaseSpec) -> Result<bool, Error> {
        let create = read.is_none();
        let metadata = read.map_or_else(|| named(&self.name), |lease| lease.metadata);
        let lease = Lease { metadata, spec: Some(spec) };
        let params = PostParams::default();
        let written = if create {
            self.bounded(self.api.create(&params, &lease)).await?
        } else {
            self.bounded(self.api.replace(&self.name, &params, &lease)).await?
        };
        match written {
            Ok(_) => Ok(true),
            // 409: written meanwhile; 404: deleted meanwhile.
            Err(kube::Error::Api(status)) if status.code == 409 || (status.code == 404 && !create) => Ok(false),
            Err(error) => Err(Error::Write(Box::new(error))),
        }
    }

    /// A round is two calls, and two rounds must fit into a claim.
    async fn bounded<T>(&self, call: impl Future<Output = T>) -> Result<T, Error> {
        let limit = self.ttl / 5;
        timeout(limit, call).await.map_err(|_| Error::Silence(limit))
    }
}

fn named(name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
