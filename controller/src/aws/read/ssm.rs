//! AWS Systems Manager: who has a session open on an instance, and which commands run there.
//!
//! Read for the whole region, once for all who look at instances there: few sessions are open and few commands run at a time,
//! AWS filters by one instance only, and not at all where a command waits.
//! <https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_CommandFilter.html>

use std::collections::HashMap;
use std::sync::Arc;

use aws_sdk_ssm::types::{
    CommandFilter, CommandFilterKey, CommandInvocation, CommandInvocationStatus, SessionState, SessionStatus,
};
use futures::future::try_join_all;

use super::{Read, error};
use crate::aws::error::AwsError;
use crate::aws::model::{OpenCommand, OpenSession};
use crate::aws::session::Session;

pub(super) const SESSIONS: (&str, &str, usize) = ("ssm", "DescribeSessions", 1);
pub(super) const COMMANDS: (&str, &str, usize) = ("ssm", "ListCommandInvocations", 1);

/// The statuses of a command that has not ended on an instance. A filter takes one of them.
pub(super) const UNFINISHED: [CommandInvocationStatus; 3] =
    [CommandInvocationStatus::Pending, CommandInvocationStatus::InProgress, CommandInvocationStatus::Delayed];

impl Session {
    /// The sessions that are open in a region.
    pub async fn open_sessions(&self, region: &str) -> Read<Arc<Vec<OpenSession>>> {
        let reader = &self.region(region)?.sessions;
        Ok(self.measured("ssm:DescribeSessions", reader.get(())).await?.unwrap_or_default())
    }

    /// The commands that wait or run in a region; one that moves on between two reads may be there twice.
    pub async fn open_commands(&self, region: &str) -> Read<Vec<OpenCommand>> {
        let readers = &self.region(region)?.commands;
        let reads = readers.iter().map(|reader| self.measured("ssm:ListCommandInvocations", reader.get(())));
        let found = try_join_all(reads).await?;
        Ok(found.into_iter().flatten().flat_map(|commands| commands.to_vec()).collect())
    }

    /// The Systems Manager client of a region, for calls that change something.
    pub(in crate::aws) fn systems_manager(&self, region: &str) -> Read<&aws_sdk_ssm::Client> {
        Ok(&self.region(region)?.ssm)
    }
}

pub(super) async fn fetch_sessions(client: aws_sdk_ssm::Client, _: Vec<()>) -> Read<HashMap<(), Arc<Vec<OpenSession>>>> {
    let request = client.describe_sessions().state(SessionState::Active).max_results(200);
    let found: Vec<_> = request
        .into_paginator()
        .items()
        .send()
        .collect::<Result<_, _>>()
        .await
        .map_err(|e| error("ssm:DescribeSessions", &e))?;
    Ok(HashMap::from([((), Arc::new(found.into_iter().filter_map(session).collect()))]))
}

/// `Disconnected` is open: whoever left it can come back to it.
fn session(s: aws_sdk_ssm::types::Session) -> Option<OpenSession> {
    let ended = matches!(s.status, Some(SessionStatus::Terminated | SessionStatus::Failed));
    (!ended).then(|| OpenSession {
        ending: s.status == Some(SessionStatus::Terminating),
        id: s.session_id.unwrap_or_default(),
        target: s.target.unwrap_or_default(),
        owner: s.owner.unwrap_or_default(),
    })
}

pub(super) async fn fetch_commands(
    (client, status): (aws_sdk_ssm::Client, CommandInvocationStatus),
    _: Vec<()>,
) -> Read<HashMap<(), Arc<Vec<OpenCommand>>>> {
    let operation = "ssm:ListCommandInvocations";
    let filter = CommandFilter::builder().key(CommandFilterKey::Status).value(status.as_str()).build();
    let filter = filter.map_err(|e| AwsError::fenced(operation, e.to_string()))?;
    let request = client.list_command_invocations().filters(filter).max_results(50);
    let found: Vec<_> =
        request.into_paginator().items().send().collect::<Result<_, _>>().await.map_err(|e| error(operation, &e))?;
    Ok(HashMap::from([((), Arc::new(found.into_iter().map(command).collect()))]))
}

fn command(c: CommandInvocation) -> OpenCommand {
    OpenCommand {
        ending: c.status == Some(CommandInvocationStatus::Cancelling),
        id: c.command_id.unwrap_or_default(),
        target: c.instance_id.unwrap_or_default(),
        document: c.document_name.unwrap_or_default(),
    }
}
