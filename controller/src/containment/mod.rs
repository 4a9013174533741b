//! Containment: one file per action, each with what it observes, its pure plan, its merge and how it is undone.
//!
//! `actions!` in `wanted` is the one list. Adding an action touches its own file, the policy type in `crds/`, and that list.

mod action;
mod adopt;
mod beside;
mod case;
mod credentials;
mod deactivate_access_keys;
mod deactivate_service_credentials;
mod deactivate_signing_certificates;
mod deactivate_ssh_keys;
mod deny_all;
mod deny_session;
mod deregister_from_load_balancers;
mod detach_from_auto_scaling;
mod disable_instance_metadata;
mod document;
mod drive;
mod dry_run;
mod ending;
mod given;
mod handbook;
mod isolate_network;
mod ledger;
mod plan;
mod progress;
mod protect_from_termination;
mod quota;
mod refused;
mod remove_console_access;
mod remove_public_addresses;
mod report;
mod residual;
mod revoke_instance_role;
mod revoke_sessions;
mod seal_trust_policy;
mod second_copy;
mod stop_instance;
mod tag_resource;
mod terminate_instance;
mod terminate_sessions;
mod wanted;
mod whereabouts;
mod window;

pub use action::Stage;
pub use adopt::{Adopted, Adoption};
pub use beside::{beside, keeps_keys_off, stays_off};
pub use case::{Case, action_of, contained_since, merge_release, release_of};
pub use drive::Pass;
pub use dry_run::DryRun;
pub use given::problems as problems_of_given;
pub use handbook::handbook;
pub use ledger::{Ledger, LedgerError, Told};
#[cfg(test)]
pub use plan::Verdict;
pub use progress::{PATIENCE, Progress};
pub use report::Report;
pub use residual::{Residual, left as what_is_left, session_of};
pub use second_copy::{Keys, SecondCopy, is_of_copy};
pub use wanted::{DESTRUCTIVE, Planned, Wanted, asked_of, digest, grow, holds_digest, name_of, wanted};
pub use whereabouts::Whereabouts;

pub use isolate_network::{NAME as ISOLATE_NETWORK, prepare_group};
pub use revoke_instance_role::{NAME as REVOKE_INSTANCE_ROLE, prepare_profile};
pub use tag_resource::NAME as TAG_RESOURCE;

#[cfg(test)]
pub mod example;
#[cfg(test)]
mod property_tests;
