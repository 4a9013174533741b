//! Under which name AWS shows a contained user. A name can be changed (`iam:UpdateUser`) and policies go with the user: so whoever
//! renames one must neither be out of sight nor, at a release, count as gone. Users are told apart by their unique id.

use std::time::Duration;

use firebreak_crds::{ActionState, ResourceKind};

use super::case::Case;
use super::plan::Plan;
use crate::aws::{AwsError, Session};

/// Two lists must agree before a user counts as gone, this far apart.
const CONFIRM: Duration = Duration::from_secs(2);
/// How a person is told of a user who may be gone, or renamed.
const ID_NOT_KNOWN: &str = "its unique id is not known";

/// What AWS shows of the contained user at the beginning of a pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Whereabouts {
    /// Not asked: it is no user, or its unique id is not on record (yet).
    #[default]
    NotAsked,
    /// It is there, under this name.
    Named(String),
    /// No user of the account has that id.
    Gone,
}

impl Whereabouts {
    /// Looks for the user of a case, where its unique id is on record: under its name, and if that is nobody's or another's now,
    /// in the list of all. Also the unique id of who has its name, where that is another user.
    ///
    /// # Errors
    /// When AWS cannot be read.
    pub async fn of(case: &Case, aws: &Session, releasing: bool) -> Result<(Self, Option<String>), AwsError> {
        let Some(id) = case.user_id() else { return Ok((Self::NotAsked, None)) };
        let name = case.principal().name().to_owned();
        let shown = aws.user(&name).await?;
        if shown.as_ref().is_some_and(|user| user.id == id) {
            return Ok((Self::Named(name), None));
        }
        let another = shown.map(|user| user.id).filter(|_| case.resource.kind == ResourceKind::IamUser);
        let mut found = aws.name_of_user(&id).await?;
        if found.is_none() && (releasing || another.is_some()) {
            // The record goes with the release; and who has the name now is contained in its place.
            tokio::time::sleep(CONFIRM).await;
            found = aws.name_of_user(&id).await?;
        }
        Ok(found.map_or((Self::Gone, None), |name| (Self::Named(name), another)))
    }

    /// The name that the user of a case has now, where it is another than the one under which it was contained.
    #[must_use]
    pub fn renamed<'a>(&'a self, case: &Case) -> Option<&'a str> {
        match self {
            Self::Named(name) if *name != case.declared_principal().name() => Some(name),
            _ => None,
        }
    }
}

/// What is left to do where AWS shows another user under the name than the one who was there when the pass began: nothing but to look
/// again. Calls go by name, and two names can be exchanged. Where nobody has the recorded id any more, who was made again under the name
/// is contained in its place.
#[must_use]
pub fn exchanged(case: &Case, shown: &str) -> Option<Plan> {
    let Whereabouts::Named(name) = &case.whereabouts else { return None };
    let id = case.user_id().filter(|id| id != shown)?;
    let what =
        format!("user {name} was {id} a moment ago and is {shown} now, to whom nothing is done: {id} is looked for again");
    Some(Plan::done(ActionState::InProgress, what))
}

/// A release of what AWS does not show: done where it is gone, and not where it may have another name, unless a person who was told of
/// it knows better.
#[must_use]
pub fn not_shown(case: &Case, action: &str) -> Plan {
    let principal = case.principal();
    let kind = principal.either("user", "role");
    let gone = Plan::absent(format!("{kind} {principal} no longer exists"));
    match &case.whereabouts {
        Whereabouts::Named(_) => Plan::done(
            ActionState::InProgress,
            format!("AWS does not show {kind} {principal}, who was there a moment ago: looked for again"),
        ),
        Whereabouts::NotAsked
            if case.is_of_a_user() && case.has_record_of(action) && !case.keeps_what_was_told(action, ID_NOT_KNOWN) =>
        {
            Plan::done(
                ActionState::Conflict,
                format!(
                    "AWS shows no user {principal}: renamed or deleted, and {ID_NOT_KNOWN}. Where it was deleted, spec.release.onConflict: \
                 KeepTheirs; where it was renamed, give it its name back"
                ),
            )
        }
        Whereabouts::Gone | Whereabouts::NotAsked => gone,
    }
}

#[cfg(test)]
mod tests {
    use firebreak_crds::OnConflict;

    use super::*;
    use crate::aws::{Credential, Identity, LoginProfile};
    use crate::containment::example;

    const DENIED: &str = r#"{"userId":"AIDA1","awsDenyAllAttached":false}"#;

    fn denied() -> Case {
        example::recorded(
            example::case(example::user()),
            "denyAll",
            &serde_json::from_str::<serde_json::Value>(DENIED).unwrap(),
        )
    }

    #[test]
    fn a_user_is_known_by_its_unique_id_once_something_is_on_record() {
        assert_eq!(denied().user_id().as_deref(), Some("AIDA1"));
        assert_eq!(example::case(example::user()).user_id(), None);
        let key = example::case(example::access_key("AKIA1"));
        assert_eq!(key.user_id(), None, "the first look has no time to lose");
        assert_eq!(example::recorded(key, "deactivateAccessKeys", &true).user_id().as_deref(), Some("AIDA1"));
        assert_eq!(
            example::recorded(example::case(example::role()), "denyAll", &DENIED).user_id(),
            None,
            "a role has one name"
        );
        let role = Case { resource: example::role(), ..denied() };
        assert_eq!((role.user_id(), role.principal_id().as_deref()), (None, Some("AIDA1")));
        assert_eq!(denied().principal_id(), denied().user_id());
    }

    #[test]
    fn what_is_done_is_done_to_the_name_that_it_has_now() {
        let case = denied().at(Whereabouts::Named("eve".into()));
        assert_eq!((case.principal().name(), case.whereabouts.renamed(&case)), ("eve", Some("eve")));
        let same = denied().at(Whereabouts::Named("mallory".into()));
        assert_eq!((same.principal().name(), same.whereabouts.renamed(&same)), ("mallory", None));
        for lost in [Whereabouts::Gone, Whereabouts::NotAsked] {
            let case = denied().at(lost);
            assert_eq!((case.principal().name(), case.whereabouts.renamed(&case)), ("mallory", None));
        }
    }

    #[test]
    fn nothing_is_done_to_who_took_the_name_in_the_middle_of_a_pass() {
        use crate::containment::action::Action;
        use crate::containment::deactivate_access_keys::AccessKeys;
        use crate::containment::deny_all::DenyAll;
        use crate::containment::remove_console_access::ConsoleAccess;
        use firebreak_crds::Empty;

        let ceo = Identity { id: "AIDACEO".into(), ..Identity::default() };
        let key = Credential { id: "AKIACEO".into(), active: true, created: None, expired: false };
        let denies = super::super::deny_all::Look { identity: Some(ceo.clone()), ..Default::default() };
        let keys =
            super::super::credentials::Look { user: Some(ceo.clone()), credentials: vec![key], contained_before: false };
        let created = example::SINCE.parse().unwrap();
        let console = super::super::remove_console_access::Look { user: Some(ceo), profile: Some(LoginProfile { created }) };
        let plans = |case: &Case| {
            let contains = [
                DenyAll::next(case, Some(&Empty {}), &denies),
                AccessKeys::next(case, Some(&Empty {}), &keys),
                ConsoleAccess::next(case, Some(&Empty {}), &console),
            ];
            let releases = [
                DenyAll::next(case, None, &denies),
                AccessKeys::next(case, None, &keys),
                ConsoleAccess::next(case, None, &console),
            ];
            (contains, releases)
        };
        for decision in [None, Some(OnConflict::KeepTheirs), Some(OnConflict::RestoreOriginal)] {
            let case = Case { decision, ..denied().at(Whereabouts::Named("mallory".into())) };
            let (contains, releases) = plans(&case);
            for plan in contains.into_iter().chain(releases) {
                assert!(plan.is_done() && plan.verdict.state == ActionState::InProgress, "{plan:?}");
                assert!(plan.verdict.message.contains("AIDA1") && plan.verdict.message.contains("AIDACEO"), "{plan:?}");
            }
        }
        let (contains, _) = plans(&denied().at(Whereabouts::Gone));
        assert!(contains.iter().all(|plan| !plan.calls.is_empty()), "made again under its name: {contains:?}");
    }

    #[test]
    fn nor_of_a_key_and_its_release_ends_on_no_look_at_another_user() {
        use crate::containment::action::Action;
        use crate::containment::deactivate_access_keys::AccessKeys;
        use crate::containment::revoke_sessions::Sessions;
        use firebreak_crds::Empty;

        let ceo = Identity { id: "AIDACEO".into(), ..Identity::default() };
        let keys =
            super::super::credentials::Look { user: Some(ceo.clone()), credentials: Vec::new(), contained_before: false };
        let sessions = super::super::revoke_sessions::Look { identity: Some(ceo), ..Default::default() };
        let key = example::recorded(example::case(example::access_key("AKIA1")), "deactivateAccessKeys", &true);
        let plans = |case: &Case| {
            let contains =
                [AccessKeys::next(case, Some(&Empty {}), &keys), Sessions::next(case, Some(&Empty {}), &sessions)];
            (contains, [AccessKeys::next(case, None, &keys), Sessions::next(case, None, &sessions)])
        };
        for decision in [None, Some(OnConflict::KeepTheirs), Some(OnConflict::RestoreOriginal)] {
            let case = Case { decision, ..key.clone() };
            let (contains, releases) = plans(&case.clone().at(Whereabouts::Named("mallory".into())));
            for plan in contains.into_iter().chain(releases) {
                assert!(plan.is_done() && plan.verdict.state == ActionState::InProgress, "looked for again: {plan:?}");
            }
            let (contains, releases) = plans(&case.at(Whereabouts::Gone));
            assert!(contains.iter().all(|p| p.is_done() && p.verdict.state == ActionState::Failed), "{contains:?}");
            for plan in releases {
                let state = decision.map_or(ActionState::Conflict, |_| ActionState::Released);
                assert!(plan.is_done() && plan.verdict.state == state, "{plan:?}");
                assert_eq!(plan.verdict.absent, decision.is_some(), "seen twice: {plan:?}");
            }
        }
    }

    #[test]
    fn only_a_user_that_is_nowhere_counts_as_gone() {
        use ActionState::{Conflict, InProgress, Released};
        let unknown = || example::recorded(example::case(example::user()), "deactivateAccessKeys", &true);
        let role = || example::recorded(example::case(example::role()), "denyAll", &true);
        let kept = Some(OnConflict::KeepTheirs);
        let asked = not_shown(&unknown(), "deactivateAccessKeys").verdict.message;
        let told = || example::told(unknown(), "deactivateAccessKeys", Conflict, &asked);
        for (what, case, decision, state) in [
            ("nowhere", denied().at(Whereabouts::Gone), None, Released),
            ("renamed just now", denied().at(Whereabouts::Named("mallory".into())), None, InProgress),
            (
                "renamed just now, and another conflict decided",
                denied().at(Whereabouts::Named("mallory".into())),
                kept,
                InProgress,
            ),
            ("its id is not known", unknown(), None, Conflict),
            ("its id is not known, overruled", unknown(), Some(OnConflict::RestoreOriginal), Conflict),
            ("its id is not known, decided before it was told", unknown(), kept, Conflict),
            ("its id is not known, and told", told(), None, Conflict),
            ("its id is not known, and a person knows", told(), kept, Released),
            ("nothing was done to it", example::case(example::user()), None, Released),
            ("a role", role(), None, Released),
        ] {
            let action = if case.has_record_of("denyAll") { "denyAll" } else { "deactivateAccessKeys" };
            let plan = not_shown(&Case { decision, ..case }, action);
            assert_eq!((plan.is_done(), plan.verdict.state), (true, state), "{what}");
        }
    }
}
