//! End to end, each with a control plane of its own: what kills the controller, counts its writes, or takes away what it
//! stands on.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod adoption;
mod apart;
mod backup;
mod cascade;
mod chart;
mod enforced;
mod kills;
mod lease;
mod many;
mod places;
mod quiet;
mod rolled_back;
mod scenario;
mod victim;
