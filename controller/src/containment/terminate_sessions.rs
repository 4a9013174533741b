//! `terminateSessions`: nobody stays on the instance by way of Systems Manager. Every session of Session Manager on it ends, and
//! every command of Run Command that waits or runs on it is cancelled there, again at each look.
//!
//! No security group stops these: an open channel is a flow of the instance's own agent. Whoever may begin a session can begin the
//! next one at once, so the status says what stops that. Nothing of it is given back. A release goes on ending them until access is
//! given back, and then does not look.
//! <https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_TerminateSession.html>
//! <https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_CancelCommand.html>

use std::collections::{BTreeMap, BTreeSet};

use firebreak_crds::{ActionState, Empty};
use serde::{Deserialize, Serialize};

use super::action::{Action, Stage};
use super::case::Case;
use super::given::{no_such_key, reads};
use super::plan::Plan;
use super::tag_resource::is_marked_before;
use crate::aws::{AwsError, Call, Class, Instance, OpenCommand, OpenSession, Outcome, Session};
use crate::conditions::few;

/// So many of what was open at first are written down by name: the copy of the record has to fit into tags.
const NAMED: usize = 4;

const AGAIN: &str = "whoever may call ssm:StartSession or ssm:SendCommand can begin again until isolateNetwork, or \
                     revokeInstanceRole, cuts its agent off: contain that principal, too";

/// The action.
pub struct SystemsManager;

/// What is observed.
#[derive(Clone, Debug, Default)]
pub struct Look {
    pub(super) instance: Option<Instance>,
    /// Those on this instance.
    pub(super) sessions: Vec<OpenSession>,
    /// Those on this instance.
    pub(super) commands: Vec<OpenCommand>,
    /// Why not both could be read: what is shown ends all the same.
    pub(super) unread: Option<AwsError>,
}

/// What was open at the first look, in words: who was on the instance is worth knowing later.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Original {
    open: Vec<String>,
}

impl Action for SystemsManager {
    const NAME: &'static str = "terminateSessions";
    const STAGE: Stage = Stage::Service; // until access is given back, nobody begins again
    type Params = Empty;
    type Look = Look;

    async fn look(aws: &Session, case: &Case, params: Option<&Empty>) -> Result<Look, AwsError> {
        if params.is_none() {
            return Ok(Look::default());
        }
        let (region, id) = case.instance();
        let read = futures::join!(aws.instance(region, id), aws.open_sessions(region), aws.open_commands(region));
        let (instance, sessions, commands) = (read.0?, read.1, read.2);
        let unread = sessions.as_ref().err().or(commands.as_ref().err()).cloned();
        let mut look = Look { instance, unread, ..Look::default() };
        look.see(id, &sessions.unwrap_or_default(), commands.unwrap_or_default());
        Ok(look)
    }

    fn contain(case: &Case, _: &Empty, look: &Look) -> Plan {
        let Some(instance) = &look.instance else { return super::isolate_network::not_seen(case) };
        if instance.is_terminated() {
            return Plan::ended(case, instance, "the instance is terminated: nobody can be on it");
        }
        let mut plan = Plan::default();
        let something = look.unread.is_none() || !look.open().is_empty();
        // What was open when the containment began is in the copy that such marks may come with.
        let first = !case.original.contains_key(Self::NAME) && !is_marked_before(case, &instance.tags);
        if something && first {
            plan.record(Self::NAME, &Original { open: look.open().into_iter().take(NAMED).collect() });
        }
        plan.calls = look.calls(&instance.id);
        plan.verdict.drift = look.going_on();
        let ended = look.sessions.is_empty() && look.commands.is_empty();
        plan.verdict.state = match &look.unread {
            Some(error) if error.class != Class::Transient => ActionState::Failed,
            None if plan.is_done() && ended => ActionState::InForce,
            _ => ActionState::InProgress,
        };
        plan.verdict.message = said(case, look);
        plan
    }

    fn release(_: &Case, _: &Look) -> Plan {
        Plan::done(ActionState::Released, "the sessions and commands that were ended stay ended")
    }

    fn tags(look: &Look) -> Option<&BTreeMap<String, String>> {
        look.instance.as_ref().map(|i| &i.tags)
    }

    fn check(sub: &str, text: &str) -> Result<(), String> {
        match sub {
            "" => reads::<Original>(text),
            _ => no_such_key(),
        }
    }

    fn after(look: &mut Look, call: &Call, _: &Outcome) {
        match call {
            Call::TerminateSession { session, .. } => look.sessions.retain(|s| s.id != *session),
            Call::CancelCommand { command, .. } => look.commands.retain(|c| c.id != *command),
            _ => {}
        }
    }
}

impl Look {
    /// Takes what is on this instance.
    fn see(&mut self, id: &str, sessions: &[OpenSession], commands: Vec<OpenCommand>) {
        self.sessions = sessions.iter().filter(|s| s.target == id).cloned().collect();
        let mut once = BTreeSet::new();
        self.commands = commands.into_iter().filter(|c| c.target == id && once.insert(c.id.clone())).collect();
    }

    /// What AWS is not ending already. All at once, side by side.
    fn calls(&self, instance: &str) -> Vec<Call> {
        let sessions = self.sessions.iter().filter(|s| !s.ending).map(|s| Call::TerminateSession {
            instance: instance.to_owned(),
            session: s.id.clone(),
            owner: s.owner.clone(),
        });
        let commands = self.commands.iter().filter(|c| !c.ending).map(|c| Call::CancelCommand {
            instance: instance.to_owned(),
            command: c.id.clone(),
            document: c.document.clone(),
        });
        sessions.chain(commands).collect()
    }

    fn open(&self) -> Vec<String> {
        self.sessions.iter().map(session).chain(self.commands.iter().map(command)).collect()
    }

    fn going_on(&self) -> Vec<String> {
        let sessions = self.sessions.iter().filter(|s| !s.ending).map(|s| format!("{} was open", session(s)));
        let commands = self.commands.iter().filter(|c| !c.ending).map(|c| format!("{} was going on", command(c)));
        sessions.chain(commands).collect()
    }
}

fn session(s: &OpenSession) -> String {
    format!("session {} of {}", s.id, s.owner)
}

fn command(c: &OpenCommand) -> String {
    format!("command {} ({})", c.id, c.document)
}

/// How it stands, in one sentence.
fn said(case: &Case, look: &Look) -> String {
    if let Some(error) = &look.unread {
        return error.to_string();
    }
    let open = look.open();
    let stubborn = if look.calls("").is_empty() { "AWS is still ending " } else { "" };
    if !open.is_empty() {
        return format!("{stubborn}{}; {AGAIN}", few(&open, NAMED));
    }
    let first = case.recorded::<Original>(SystemsManager::NAME).map(|o| o.open).unwrap_or_default();
    let first = if first.is_empty() { String::new() } else { format!(" (at first there was {})", few(&first, NAMED)) };
    format!(
        "no session is open and no command waits or goes on, but for what AWS is cancelling and lists no more{first}; {AGAIN}"
    )
}

#[cfg(test)]
#[path = "terminate_sessions_tests.rs"]
mod tests;
