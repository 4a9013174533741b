//! The one place that reads the wall clock; everything that decides takes the time as an argument.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use std::time::Duration;

/// Now, in whole seconds: what Kubernetes can store.
#[must_use]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// A time as Kubernetes stores it: whole seconds.
#[must_use]
pub fn time(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

/// How long ago `then` was; zero where it is in the future.
#[must_use]
pub fn since(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}
