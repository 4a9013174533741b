//! Waiting for a condition instead of sleeping.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use kube::{Api, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

/// Looks until `look` gives `Ok`, and returns that. An `Err` is what was seen instead; after `deadline` the last one
/// is in the panic.
pub async fn eventually<T>(what: &str, deadline: Duration, mut look: impl AsyncFnMut() -> anyhow::Result<T>) -> T {
    let started = Instant::now();
    loop {
        let seen = match look().await {
            Ok(value) => return value,
            Err(seen) => seen,
        };
        assert!(started.elapsed() < deadline, "after {deadline:?} still not: {what}\nlast seen: {seen:#}");
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}

/// Waits, as `kubectl wait` does, until the object's condition has this status for its present generation.
pub async fn condition<K>(api: &Api<K>, name: &str, kind: &str, status: &str, deadline: Duration) -> K
where
    K: Resource + Clone + DeserializeOwned + Serialize + Debug,
{
    eventually(&format!("{name}: {kind}={status}"), deadline, async || {
        let object = api.get(name).await?;
        ensure_condition(&serde_json::to_value(&object)?, kind, status)?;
        Ok(object)
    })
    .await
}

/// Waits until no object of this name exists.
pub async fn gone<K>(api: &Api<K>, name: &str, deadline: Duration)
where
    K: Resource + Clone + DeserializeOwned + Serialize + Debug,
{
    eventually(&format!("{name} is gone"), deadline, async || match api.get_opt(name).await? {
        None => Ok(()),
        Some(object) => anyhow::bail!("{}", serde_json::to_string_pretty(&object)?),
    })
    .await;
}

fn ensure_condition(object: &Value, kind: &str, status: &str) -> anyhow::Result<()> {
    let shown = || serde_json::to_string_pretty(&object["status"]).unwrap();
    let conditions = object["status"]["conditions"].as_array().context("no conditions yet")?;
    let found = conditions.iter().find(|condition| condition["type"] == kind).with_context(shown)?;
    ensure!(found["status"] == status, "{}", shown());
    let observed = &found["observedGeneration"];
    let current = observed.is_null() || *observed == object["metadata"]["generation"];
    ensure!(current, "of an older generation: {}", shown());
    Ok(())
}
