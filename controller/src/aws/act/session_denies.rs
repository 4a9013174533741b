//! The one writer of each role's list of denied sessions.
//!
//! Instances that share a role share that list, so whoever changes it reads it, changes it and writes it while nobody else does.
//! One process leads, so a lock in the process is enough. Those who wait to deny a session go with the next write.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Actor, Outcome, Sending};
use crate::aws::call::Call;
use crate::aws::error::{AwsError, Class};
use crate::aws::model::Principal;
use crate::aws::session_denies::{DenyEdit, SESSION_DENIES, SessionDenies};

/// So long after a write what was written counts, and not what IAM shows: it may still show what was before.
const LAG: Duration = Duration::from_secs(10);

/// The writer of each role, by account and name.
#[derive(Default)]
pub(super) struct Writers(Mutex<HashMap<(String, String), Arc<Writer>>>);

#[derive(Default)]
struct Writer {
    /// Who waits to have their sessions denied.
    asked: Mutex<BTreeSet<String>>,
    last: tokio::sync::Mutex<Option<(Instant, SessionDenies)>>,
}

/// One change that is asked for.
pub(super) struct Asked<'a> {
    pub(super) sending: Sending<'a>,
    pub(super) role: &'a str,
    pub(super) edit: &'a DenyEdit,
}

impl Writers {
    fn of(&self, account: &str, role: &str) -> Arc<Writer> {
        let mut writers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        writers.entry((account.to_owned(), role.to_owned())).or_default().clone()
    }
}

/// A place among those who wait: gone when its owner is.
struct Place<'a>(&'a Writer, Option<&'a String>);

impl<'a> Place<'a> {
    fn of(writer: &'a Writer, edit: &'a DenyEdit) -> Self {
        let DenyEdit::Deny(session) = edit else { return Self(writer, None) };
        writer.asked.lock().unwrap_or_else(PoisonError::into_inner).insert(session.clone());
        Self(writer, Some(session))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut asked = self.0.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = self.1 {
            asked.remove(session);
        }
    }
}

impl Writer {
    /// What is denied after the change, with all who wait to be denied and fit.
    fn with_others(&self, next: &SessionDenies) -> SessionDenies {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone();
        asked.into_iter().fold(next.clone(), |all, other| all.after(&DenyEdit::Deny(other)).unwrap_or(all))
    }
}

impl Actor {
    pub(super) async fn edit_denies(&self, asked: Asked<'_>) -> Result<Outcome, AwsError> {
        let writer = self.writers.of(&asked.sending.session.account_id, asked.role);
        let (since, _place) = (Instant::now(), Place::of(&writer, asked.edit));
        let mut last = writer.last.lock().await;
        if let (DenyEdit::Deny(session), Some((at, written))) = (asked.edit, &*last)
            && *at >= since
            && written.standing.contains(session)
        {
            return Ok(Outcome::Done); // went with somebody else's
        }
        let known = last.as_ref().filter(|(at, _)| at.elapsed() < LAG).map(|(_, written)| written.clone());
        let now = match known {
            Some(written) => written,
            None => asked.read().await?,
        };
        let next = now.after(asked.edit).ok_or_else(|| no_room(asked.sending.asked, asked.role))?;
        if matches!(asked.edit, DenyEdit::EndExpired(_)) && next == now {
            return Ok(Outcome::Done);
        }
        let all = if let DenyEdit::Deny(_) = asked.edit { writer.with_others(&next) } else { next.clone() };
        let mut written = all.clone();
        let mut result = self.write_denies(&asked, &all).await;
        if all != next && result.as_ref().is_err_and(|e| e.code == "LimitExceeded") {
            (written, result) = (next.clone(), self.write_denies(&asked, &next).await);
        }
        if let Err(error) = result {
            *last = None; // it may have been written: the next edit reads what there is
            return Err(error);
        }
        *last = Some((Instant::now(), written));
        Ok(Outcome::Done)
    }

    async fn write_denies(&self, asked: &Asked<'_>, denies: &SessionDenies) -> Result<Outcome, AwsError> {
        let (principal, policy) = (Principal::Role(asked.role.to_owned()), SESSION_DENIES.to_owned());
        let call = match (denies.is_empty(), asked.edit) {
            (false, _) => Call::PutPolicy { principal, policy, document: denies.document() },
            (true, DenyEdit::EndExpired(_)) => Call::DeleteExpiredSessionsDeny { principal, policy },
            (true, _) => Call::DeletePolicy { principal, policy },
        };
        let sent = self.again(Sending { region: None, ..asked.sending }, &call).await;
        match sent {
            Err(error) if denies.is_empty() && error.class == Class::NotFound => Ok(Outcome::Done),
            sent => sent,
        }
    }
}

impl Asked<'_> {
    async fn read(&self) -> Result<SessionDenies, AwsError> {
        let principal = Principal::Role(self.role.to_owned());
        let text = self.sending.session.inline_policy(&principal, SESSION_DENIES).await?;
        Ok(text.map(|text| SessionDenies::read(&text)).unwrap_or_default())
    }
}

fn no_room(call: &Call, role: &str) -> AwsError {
    AwsError {
        class: Class::Terminal,
        operation: call.operation().into(),
        code: "LimitExceeded".into(),
        message: format!("the inline policies of role {role} have no room for one more instance"),
    }
}
