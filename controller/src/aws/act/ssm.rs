//! AWS Systems Manager.

use aws_config::retry::RetryConfig;
use aws_sdk_ssm::Client;

use super::Outcome;
use crate::aws::call::Call;
use crate::aws::error::AwsError;

/// A command is cancelled on one instance: without its id it would be cancelled on all.
pub(super) async fn send(client: &Client, call: &Call) -> Result<Outcome, AwsError> {
    match call {
        Call::TerminateSession { session, .. } => {
            sent!(aws_sdk_ssm, call, client.terminate_session().session_id(session))?;
        }
        Call::CancelCommand { instance, command, .. } => {
            sent!(aws_sdk_ssm, call, client.cancel_command().command_id(command).instance_ids(instance))?;
        }
        other => return Err(super::unknown(other)),
    }
    Ok(Outcome::Done)
}
