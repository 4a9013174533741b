//! The ground that Firebreak is tested on: a real Kubernetes control plane and an AWS emulator, both processes on
//! loopback, with an HTTP proxy between the controller and AWS that counts, delays, fails and holds calls.
//!
//! - [`plane`]: etcd, kube-apiserver, kube-controller-manager
//! - [`emulator`]: moto's server, and clients of an AWS account in it
//! - [`proxy`]: what the controller takes for AWS
//! - [`scene`]: an account with something to contain
//! - [`cases`]: every action by itself, on each kind of target
//! - [`in_force`], [`tampering`]: whether an action is in force in AWS, and undoing it there
//! - [`approving`]: a second person
//! - [`controller_process`]: the controller's binary
//! - [`credentials`]: what the user has besides access keys
//! - [`enforcing`]: an emulator that enforces IAM
//! - [`eventually`]: waiting for a condition
//! - [`everything`]: all that AWS shows of a scene
//! - [`imds`]: which instance the controller takes for its own
//! - [`judge`]: whether any call gives access where none is to be given
//! - [`kept`]: processes and folders that go when the test process goes, however it does
//! - [`served`]: a server in Python
//! - [`shared`]: the plane and the emulator that ordinary tests share
//! - [`watching`]: what tests wait for
//! - [`world`]: Firebreak installed, and what each test has for itself
//! - [`sight`]: what AWS shows
//! - [`milestones`]: when the attacker was cut off

// This is test code: what is not as it should be ends the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc, clippy::missing_errors_doc)]
#![allow(clippy::must_use_candidate)]

pub mod approving;
pub mod audit;
pub mod cases;
pub mod controller_process;
pub mod credentials;
pub mod emulator;
pub mod enforcing;
pub mod eventually;
pub mod everything;
pub mod imds;
pub mod in_force;
pub mod judge;
pub mod kept;
pub mod milestones;
pub mod plane;
pub mod proxy;
pub mod scene;
pub mod served;
pub mod shared;
pub mod sight;
pub mod tampering;
pub mod tools;
pub mod watching;
pub mod world;
