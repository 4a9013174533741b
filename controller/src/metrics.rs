//! What Firebreak tells Prometheus about itself.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// From a call that is answered nearby to one that has met its time limit.
const AWS_CALL_SECONDS: [f64; 10] = [0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// From a pass that finds nothing to do to one that waits for AWS.
const RECONCILE_SECONDS: [f64; 11] = [0.005, 0.01, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Every metric, and the registry that prints them.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    aws_calls: Family<AwsCall, Counter>,
    aws_call_seconds: Family<Operation, Histogram>,
    drift_repairs: Family<Action, Counter>,
    reconciles: Family<Reconcile, Counter>,
    reconcile_seconds: Family<Kind, Histogram>,
    last_look: Family<Quarantine, Gauge<f64, AtomicU64>>,
    leader: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AwsCall {
    account: String,
    service: String,
    operation: String,
    outcome: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    service: String,
    operation: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Action {
    action: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reconcile {
    kind: String,
    result: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Quarantine {
    quarantine: String,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("firebreak"),
            aws_calls: Family::default(),
            aws_call_seconds: Family::new_with_constructor(|| Histogram::new(AWS_CALL_SECONDS)),
            drift_repairs: Family::default(),
            reconciles: Family::default(),
            reconcile_seconds: Family::new_with_constructor(|| Histogram::new(RECONCILE_SECONDS)),
            last_look: Family::default(),
            leader: Gauge::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    /// Every metric at zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The registry adds the prefix, the unit, and a counter's `_total`.
    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("aws_calls", "Calls to AWS", self.aws_calls.clone());
        let help = "Time that calls to AWS took";
        registry.register_with_unit("aws_call", help, Unit::Seconds, self.aws_call_seconds.clone());
        registry.register("drift_repairs", "Containment put back after someone undid it", self.drift_repairs.clone());
        registry.register("reconciles", "Passes over one object", self.reconciles.clone());
        let help = "Time that passes over one object took";
        registry.register_with_unit("reconcile", help, Unit::Seconds, self.reconcile_seconds.clone());
        let help = "When a contained resource was last looked at with success";
        registry.register_with_unit("last_look_timestamp", help, Unit::Seconds, self.last_look.clone());
        registry.register("leader", "1 while this process holds the lease", self.leader.clone());
    }

    /// A call to AWS ended: `outcome` is `ok` or the class of its error.
    pub fn aws_call(&self, account: &str, service: &str, operation: &str, outcome: &str, elapsed: Duration) {
        let [account, service, operation, outcome] = [account, service, operation, outcome].map(str::to_owned);
        let timed = Operation { service: service.clone(), operation: operation.clone() };
        self.aws_call_seconds.get_or_create(&timed).observe(elapsed.as_secs_f64());
        self.aws_calls.get_or_create(&AwsCall { account, service, operation, outcome }).inc();
    }

    /// Someone undid this action, and it was put back.
    pub fn drift(&self, action: &str) {
        self.drift_repairs.get_or_create(&Action { action: action.to_owned() }).inc();
    }

    /// A pass over one object of this kind ended: `result` is `ok` or the class of its error.
    pub fn reconcile(&self, kind: &str, result: &str, elapsed: Duration) {
        let [kind, result] = [kind, result].map(str::to_owned);
        self.reconcile_seconds.get_or_create(&Kind { kind: kind.clone() }).observe(elapsed.as_secs_f64());
        self.reconciles.get_or_create(&Reconcile { kind, result }).inc();
    }

    /// The resource that this Quarantine contains was looked at with success.
    pub fn looked(&self, quarantine: &str, now: Timestamp) {
        let series = Quarantine { quarantine: quarantine.to_owned() };
        self.last_look.get_or_create(&series).set(now.as_duration().as_secs_f64());
    }

    /// This Quarantine is gone: its series would otherwise look like a resource that nobody watches.
    pub fn forget(&self, quarantine: &str) {
        self.last_look.remove(&Quarantine { quarantine: quarantine.to_owned() });
    }

    /// Whether this process holds the lease.
    pub fn leader(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// Every metric as `OpenMetrics` text.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        if let Err(error) = text::encode(&mut text, &self.registry) {
            tracing::error!(%error, "cannot print the metrics");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(metrics: &Metrics, prefix: &str) -> Vec<String> {
        metrics.encode().lines().filter(|line| line.starts_with(prefix)).map(str::to_owned).collect()
    }

    #[test]
    fn a_call_is_counted_by_outcome_and_timed_by_operation() {
        let metrics = Metrics::new();
        metrics.aws_call("prod", "ec2", "CreateTags", "ok", Duration::from_millis(300));
        metrics.aws_call("prod", "ec2", "CreateTags", "Denied", Duration::from_millis(200));
        let calls = lines(&metrics, "firebreak_aws_calls_total{");
        assert_eq!(calls.len(), 2);
        assert!(calls.iter().all(|line| line.ends_with("} 1")));
        assert!(calls.contains(
            &r#"firebreak_aws_calls_total{account="prod",service="ec2",operation="CreateTags",outcome="ok"} 1"#.to_owned()
        ));
        let count = r#"firebreak_aws_call_seconds_count{service="ec2",operation="CreateTags"} 2"#;
        assert_eq!(lines(&metrics, "firebreak_aws_call_seconds_count"), [count]);
        assert_eq!(lines(&metrics, "# UNIT firebreak_aws_call"), ["# UNIT firebreak_aws_call_seconds seconds"]);
    }

    #[test]
    fn a_pass_is_counted_by_result_and_timed_by_kind() {
        let metrics = Metrics::new();
        metrics.reconcile("Incident", "ok", Duration::from_millis(3));
        metrics.reconcile("Incident", "Transient", Duration::from_secs(3));
        let failed = r#"firebreak_reconciles_total{kind="Incident",result="Transient"} 1"#;
        assert_eq!(lines(&metrics, r#"firebreak_reconciles_total{kind="Incident",result="T"#), [failed]);
        let fast = r#"firebreak_reconcile_seconds_bucket{le="0.005",kind="Incident"} 1"#;
        assert_eq!(lines(&metrics, r#"firebreak_reconcile_seconds_bucket{le="0.005""#), [fast]);
    }

    #[test]
    fn drift_is_counted_by_action() {
        let metrics = Metrics::new();
        metrics.drift("isolateNetwork");
        metrics.drift("isolateNetwork");
        let repaired = r#"firebreak_drift_repairs_total{action="isolateNetwork"} 2"#;
        assert_eq!(lines(&metrics, "firebreak_drift_repairs_total"), [repaired]);
    }

    #[test]
    fn the_last_look_is_a_time_until_the_quarantine_is_gone() {
        let metrics = Metrics::new();
        metrics.looked("q", Timestamp::new(1_700_000_000, 500_000_000).unwrap());
        let looked = r#"firebreak_last_look_timestamp_seconds{quarantine="q"} 1700000000.5"#;
        assert_eq!(lines(&metrics, "firebreak_last_look"), [looked]);
        metrics.forget("q");
        assert!(lines(&metrics, "firebreak_last_look").is_empty());
    }

    #[test]
    fn the_leader_is_one() {
        let metrics = Metrics::new();
        assert_eq!(lines(&metrics, "firebreak_leader"), ["firebreak_leader 0"]);
        metrics.leader(true);
        assert_eq!(lines(&metrics, "firebreak_leader"), ["firebreak_leader 1"]);
    }

    #[test]
    fn the_text_is_complete() {
        assert!(Metrics::new().encode().ends_with("# EOF\n"));
    }
}
