//! Wiring: connects, watches, and runs the four controllers until told to stop.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use firebreak_crds::{Approval, AwsAccount, ContainmentPolicy, Evidence, Incident, Quarantine};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1::Namespace;
use kube::runtime::controller::{Action, Config as ControllerConfig, applier};
use kube::runtime::reflector::{ObjectRef, Store, store};
use kube::{Client, Config, Resource};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use crate::aws::{Accounts, Actor, own_instance};
use crate::cli::RunArgs;
use crate::containment::Keys;
use crate::controllers::{Ctx, Error, account, evidence, incident, quarantine, terminating_crds};
use crate::events::Events;
use crate::http::{self, Readiness};
use crate::lease::{self, Claim};
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::own_node::own_node_instance;
use crate::stores::{Stores, reflect};
use crate::triggers::{Queue, Triggers};

type Fatal = Box<dyn std::error::Error + Send + Sync>;

/// Runs the controller until SIGTERM or SIGINT.
///
/// # Errors
/// When the API server cannot be reached at all, or the HTTP address is taken.
pub async fn run(args: RunArgs) -> Result<(), Fatal> {
    let stop = Stop::on_signals()?;
    let client = client().await?;
    let identity = args.identity.clone().unwrap_or_else(identity);
    let metrics = Arc::new(Metrics::new());
    let drained = Stop::default();
    let (claim, leading) =
        lease::start(client.clone(), &args.lease_namespace, "firebreak-controller", &identity, lease::TTL, drained.wait());
    let (stores, queues, watches) = watch_all(&client);
    let (accounts, of_imds, of_node) =
        futures::join!(Box::pin(Accounts::load(metrics.clone())), Box::pin(own_instance()), own_node_instance(&client));
    let ctx = Arc::new(Ctx {
        client: client.clone(),
        stores: stores.clone(),
        accounts,
        actor: Actor::new(claim.clone(), client.clone()),
        events: Events::new(client.clone(), identity),
        metrics: metrics.clone(),
        memory: Memory::default(),
        looks: incident::Looks::default(),
        keys: incident::KeyAnswers::default(),
        own_instance: of_imds.or(of_node),
        drift_interval: args.drift_interval,
        mac_key_file: args.mac_key_file.clone(),
    });
    tell_of_keys(args.mac_key_file.as_deref()).await;
    let listener = TcpListener::bind(args.http_addr).await?;
    info!(http = %listener.local_addr()?, drift_interval = ?args.drift_interval, "firebreak-controller {}", env!("CARGO_PKG_VERSION"));
    let readiness = Arc::new(Ready { stores: stores.clone(), client, claim: claim.clone() });
    let server = tokio::spawn(http::serve(listener, readiness, metrics.clone(), drained.wait()));
    tokio::spawn(show_leadership(claim.clone(), metrics));

    let ended = tokio::select! {
        result = reconcile_all(&ctx, claim, queues, &stop) => result,
        () = watches => Err("a watch ended".into()),
    };
    drained.now();
    leading.await?;
    server.await??;
    info!("stopped");
    ended
}

/// Timeouts and retries are ours: kube's default retries one call for many minutes.
///
/// # Errors
/// When no cluster is configured.
pub async fn client() -> anyhow::Result<Client> {
    let mut config = Config::infer().await?;
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}

async fn tell_of_keys(file: Option<&Path>) {
    if let Some(problem) = Keys::read(file).await.problem() {
        warn!(problem, "records are not copied to AWS: if this cluster is lost, nobody knows what was there before");
    }
}

fn identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}-{}", host.trim(), std::process::id())
}

/// The queues of the four controllers.
struct Queues {
    accounts: Queue<AwsAccount>,
    incidents: Queue<Incident>,
    quarantines: Queue<Quarantine>,
    evidence: Queue<Evidence>,
}

/// One reflector per kind; what changed goes to the queues of whom it concerns.
fn watch_all(client: &Client) -> (Stores, Queues, BoxFuture<'static, ()>) {
    let (accounts, accounts_writer) = store::<AwsAccount>();
    let (policies, policies_writer) = store::<ContainmentPolicy>();
    let (incidents, incidents_writer) = store::<Incident>();
    let (quarantines, quarantines_writer) = store::<Quarantine>();
    let (evidence, evidence_writer) = store::<Evidence>();
    let (approvals, approvals_writer) = store::<Approval>();
    let (namespaces, namespaces_writer) = store::<Namespace>();
    let stores = Stores { accounts, policies, incidents, quarantines, evidence, approvals, namespaces };
    let (t, accounts, incidents, quarantines, evidence) = Triggers::new(stores.clone());
    let [t1, t2, t3, t4, t5, t6, t7] = std::array::from_fn(|_| t.clone());
    let watches = futures::future::join_all([
        reflect(client.clone(), accounts_writer, move |o| t1.account(o)).boxed(),
        reflect(client.clone(), policies_writer, move |o| t2.policy(o)).boxed(),
        reflect(client.clone(), incidents_writer, move |o| t3.incident(o)).boxed(),
        reflect(client.clone(), quarantines_writer, move |o| t4.quarantine(o)).boxed(),
        reflect(client.clone(), evidence_writer, move |o| t5.evidence(o)).boxed(),
        reflect(client.clone(), approvals_writer, move |o| t6.approval(o)).boxed(),
        reflect::<Namespace>(client.clone(), namespaces_writer, move |o| t7.namespace(o)).boxed(),
    ]);
    (stores, Queues { accounts, incidents, quarantines, evidence }, watches.map(drop).boxed())
}

/// Nothing is reconciled before all stores are ready and this process leads. One that led and lost the lease ends at once:
/// somebody else writes statuses now.
async fn reconcile_all(
    ctx: &Arc<Ctx>,
    mut claim: watch::Receiver<Option<Claim>>,
    queues: Queues,
    stop: &Stop,
) -> Result<(), Fatal> {
    let ready = async {
        let led = claim.wait_for(Option::is_some).await.is_ok();
        led && ctx.stores.ready().await.is_ok()
    };
    tokio::select! {
        leads = ready => if !leads { return Err("a watch ended before it began".into()) },
        () = stop.wait() => return Ok(()),
    }
    info!("leading; all stores are ready");
    let mut controllers = JoinSet::new();
    controllers.spawn(controller(
        "AwsAccount",
        ctx.clone(),
        ctx.stores.accounts.clone(),
        queues.accounts,
        stop.wait(),
        account::reconcile,
    ));
    controllers.spawn(controller(
        "Incident",
        ctx.clone(),
        ctx.stores.incidents.clone(),
        queues.incidents,
        stop.wait(),
        incident::reconcile,
    ));
    controllers.spawn(controller(
        "Quarantine",
        ctx.clone(),
        ctx.stores.quarantines.clone(),
        queues.quarantines,
        stop.wait(),
        quarantine::reconcile,
    ));
    controllers.spawn(controller(
        "Evidence",
        ctx.clone(),
        ctx.stores.evidence.clone(),
        queues.evidence,
        stop.wait(),
        evidence::reconcile,
    ));
    tokio::select! {
        ended = all_end(controllers, stop) => ended,
        _ = claim.wait_for(Option::is_none) => Err("the lease is lost: another controller may lead now".into()),
    }
}

/// A controller that ends before it is told to leaves its kind to nobody: then the process ends, and is started again.
async fn all_end(mut controllers: JoinSet<()>, stop: &Stop) -> Result<(), Fatal> {
    while let Some(ended) = controllers.join_next().await {
        ended?;
        if !*stop.0.borrow() {
            return Err("a controller ended by itself".into());
        }
    }
    Ok(())
}

/// Runs one controller until `stop`; what is under way is finished.
async fn controller<K, F>(
    kind: &'static str,
    ctx: Arc<Ctx>,
    store: Store<K>,
    queue: Queue<K>,
    stop: BoxFuture<'static, ()>,
    reconcile: fn(Arc<K>, Arc<Ctx>) -> F,
) where
    K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Action, Error>> + Send + 'static,
{
    let timed = move |object: Arc<K>, ctx: Arc<Ctx>| {
        async move {
            let started = Instant::now();
            let result = reconcile(object, ctx.clone()).await;
            let outcome = result.as_ref().map_or_else(Error::reason, |_| "ok");
            ctx.metrics.reconcile(kind, outcome, started.elapsed());
            result
        }
        .boxed()
    };
    let retry = |_: Arc<K>, error: &Error, _: Arc<Ctx>| Action::requeue(error.retry_after());
    let queue = queue.map(Ok::<ObjectRef<K>, std::convert::Infallible>).take_until(stop);
    applier(timed, retry, ctx, store, queue, ControllerConfig::default())
        .for_each(|result| async move {
            match result {
                Ok(_) => {}
                Err(error @ kube::runtime::controller::Error::ObjectNotFound(_)) => debug!(kind, %error, "gone"),
                Err(kube::runtime::controller::Error::ReconcilerFailed(error, _))
                    if error.is_gone() || matches!(error, Error::Changed(_)) =>
                {
                    debug!(kind, %error, "again");
                }
                Err(error) => warn!(kind, %error, "tried again"),
            }
        })
        .await;
}

async fn show_leadership(mut claim: watch::Receiver<Option<Claim>>, metrics: Arc<Metrics>) {
    loop {
        metrics.leader(claim.borrow_and_update().is_some());
        if claim.changed().await.is_err() {
            return;
        }
    }
}

/// `/readyz`: says why not.
struct Ready {
    stores: Stores,
    client: Client,
    claim: watch::Receiver<Option<Claim>>,
}

impl Readiness for Ready {
    fn problems(&self) -> BoxFuture<'_, Vec<String>> {
        async {
            let mut problems = Vec::new();
            if self.stores.ready().now_or_never().is_none() {
                problems.push("the stores are not filled yet".to_owned());
            }
            if self.claim.borrow().is_none() {
                problems.push("this process does not hold the lease".to_owned());
            }
            match tokio::time::timeout(Duration::from_secs(3), terminating_crds(&self.client)).await {
                Ok(Ok(crds)) => problems.extend(crds.iter().map(|c| {
                    format!(
                        "the CRD {c} is missing or being deleted: what is contained stays contained, and nothing is released"
                    )
                })),
                Ok(Err(error)) => problems.push(error.to_string()),
                Err(_) => problems.push("the API server does not answer".to_owned()),
            }
            problems
        }
        .boxed()
    }
}

/// Something that happens once and is awaited in several places.
#[derive(Clone)]
struct Stop(Arc<watch::Sender<bool>>);

impl Default for Stop {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }
}

impl Stop {
    fn now(&self) {
        self.0.send_replace(true);
    }

    fn wait(&self) -> BoxFuture<'static, ()> {
        let mut receiver = self.0.subscribe();
        async move { drop(receiver.wait_for(|stop| *stop).await) }.boxed()
    }

    fn on_signals() -> Result<Self, Fatal> {
        let stop = Self::default();
        let (mut term, mut int, at_signal) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, stop.clone());
        tokio::spawn(async move {
            tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
            info!("stopping: what is under way is finished");
            at_signal.now();
        });
        Ok(stop)
    }
}
