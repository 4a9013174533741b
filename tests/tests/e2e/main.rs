//! End to end: the controller's binary, a real control plane, an AWS emulator.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod ground;
mod ground_up;
mod main_job;
