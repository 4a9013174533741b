//! Firebreak's controller: makes AWS match the Incidents that are declared in Kubernetes.
//!
//! - `run` wires everything; `cli` says how it is called.
//! - `controllers` decide: one per kind. `stores` is what they know of the cluster.
//! - `containment` has one file per action, pure plans, and the loop that carries them out; `evidence` likewise.
//! - `aws` reads AWS, and changes it in one place. `lease` says who may.
//! - `backup` and `inventory` are for the day on which the cluster is lost.
//! - `own_node` is the instance that must never be contained.
//! - `conditions`, `events`, `metrics` and `http` are what people see.

mod aws;
mod backup;
mod cli;
mod clock;
mod conditions;
mod containment;
mod controllers;
mod events;
mod evidence;
mod http;
mod inventory;
mod lease;
mod memory;
mod metrics;
mod own_node;
mod run;
mod stores;
mod triggers;

pub use cli::main;
