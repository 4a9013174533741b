//! End to end: the controller's binary, a real control plane, an AWS emulator.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod access_keys;
mod addresses;
mod admission;
mod adoption;
mod answers;
mod approvals;
mod balancers;
mod console;
mod conversion;
mod credentials;
mod denied;
mod drift;
mod ending;
mod examples;
mod ground;
mod ground_up;
mod holders;
mod main_job;
mod metadata;
mod modes;
mod protect;
mod refusals;
mod release;
mod roles;
mod scaling;
