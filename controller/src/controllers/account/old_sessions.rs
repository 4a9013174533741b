//! The denies of old sessions that stay after releases. Whoever may write the policies of the user or role can take them away, and a
//! session of before comes back to life: so they are read with each look at the account, and put back until their time is over.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use firebreak_crds::{AwsAccount, ResidualDeny};
use futures::StreamExt;
use futures::stream;
use k8s_openapi::jiff::Timestamp;
use kube::{Api, ResourceExt};
use tracing::warn;

use crate::aws::{
    AwsError, Call, Class, DenyEdit, Guard, Identity, Principal, Priority, SESSION_DENIES, Session, SessionDenies,
    same_document,
};
use crate::clock;
use crate::containment::{Residual, session_of};
use crate::controllers::{Ctx, kube, write_status};
use crate::events;

/// So many policies are read, or put back, at once.
const AT_ONCE: usize = 8;
/// Two reads must agree, this far apart: a release that ended a moment ago may not be shown everywhere yet.
const CONFIRM: Duration = Duration::from_secs(2);
/// Of each step (reading, reading again, putting back) none is begun after so long: it waits for the next look. What has begun is
/// ended, since a write that is given up may still arrive.
const WITHIN: Duration = Duration::from_secs(30);

/// Puts back what somebody took away or changed, and tells it. One that cannot be read or put holds no other back.
///
/// # Errors
/// The first of those that are not known to be in place.
pub async fn keep(ctx: &Ctx, session: &Session, account: &AwsAccount, denies: &[ResidualDeny]) -> Result<(), AwsError> {
    let denies: Vec<&ResidualDeny> = in_time(denies, clock::now()).collect();
    let (gone, unread) = missing(session, &denies).await;
    if gone.is_empty() {
        return unread.map_or(Ok(()), Err);
    }
    tokio::time::sleep(CONFIRM).await;
    let (gone, still_unread) = missing(session, &gone).await;
    let begin_by = Instant::now() + WITHIN;
    let puts = stream::iter(gone.into_iter().cloned()).map(async |deny: ResidualDeny| {
        in_good_time(begin_by)?;
        Ok(put_back(ctx, session, &deny).await?.map(|done| (deny, done)))
    });
    let (mut first, mut renamed) = (unread.or(still_unread).map_or(Ok(()), Err), Vec::new());
    for put in puts.buffer_unordered(AT_ONCE).collect::<Vec<_>>().await {
        match put {
            Ok(None) => {}
            Ok(Some((deny, done))) => {
                ctx.events.warning(&events::reference(account), "OldSessionsDeniedAgain", done.said).await;
                renamed.extend((done.now != deny).then_some((deny, done.now)));
            }
            Err(error) => first = first.and(Err(error)),
        }
    }
    list_anew(ctx, account, &renamed).await;
    first
}

/// Lists what is of a renamed user under the name that it has now: by name its end takes it away. Where that is not written, the user is
/// looked for again with the next look.
async fn list_anew(ctx: &Ctx, account: &AwsAccount, renamed: &[(ResidualDeny, ResidualDeny)]) {
    if renamed.is_empty() {
        return;
    }
    let api = Api::<AwsAccount>::all(ctx.client.clone());
    let listed = async {
        let mut live = kube("read the AwsAccount", api.get(&account.name_any())).await?;
        rename(&mut live.status.get_or_insert_default().residual_denies, renamed);
        write_status(&api, &live).await
    };
    if let Err(error) = listed.await {
        warn!(account = account.name_any(), %error, "denies of a renamed user are listed under its old name still");
    }
}

/// All of such a user, also what another denies as well.
fn rename(denies: &mut [ResidualDeny], renamed: &[(ResidualDeny, ResidualDeny)]) {
    let of = |deny: &ResidualDeny, old: &ResidualDeny| (&deny.user_name, &deny.user_id) == (&old.user_name, &old.user_id);
    for deny in denies {
        if let Some((_, now)) = renamed.iter().find(|(old, _)| of(deny, old)) {
            deny.user_name.clone_from(&now.user_name);
        }
    }
}

fn in_good_time(begin_by: Instant) -> Result<(), AwsError> {
    if Instant::now() < begin_by {
        return Ok(());
    }
    Err(AwsError {
        class: Class::Transient,
        operation: "iam:GetUserPolicy".into(),
        code: "Late".into(),
        message: format!("AWS answers slowly: what was not begun within {} s waits for the next look", WITHIN.as_secs()),
    })
}

/// Those whose time is not over, and which no other denies as well.
fn in_time(denies: &[ResidualDeny], now: Timestamp) -> impl Iterator<Item = &ResidualDeny> {
    denies.iter().filter(move |deny| deny.until.0 > now && !denies.iter().any(|other| covers(other, deny)))
}

/// Whether one denies all that the other does: of the same sessions, those that were issued later, too.
fn covers(one: &ResidualDeny, other: &ResidualDeny) -> bool {
    let listed = [one, other].iter().any(|deny| deny.policy_name == SESSION_DENIES);
    let same = (&one.user_name, &one.role_name) == (&other.user_name, &other.role_name);
    one.until.0 > other.until.0 && !listed && same && session_of(&one.policy_name) == session_of(&other.policy_name)
}

/// Those that AWS does not show as they are to be, and why not all could be read. Each policy is read once.
async fn missing<'d>(session: &Session, denies: &[&'d ResidualDeny]) -> (Vec<&'d ResidualDeny>, Option<AwsError>) {
    let begin_by = Instant::now() + WITHIN;
    let mut places: HashMap<(Principal, String), Vec<&'d ResidualDeny>> = HashMap::new();
    for deny in denies {
        if let Some(principal) = Principal::denied(deny) {
            places.entry((principal, deny.policy_name.clone())).or_default().push(deny);
        }
    }
    let (places, of_each): (Vec<_>, Vec<_>) = places.into_iter().unzip();
    let read = async |(principal, policy): &(Principal, String)| {
        in_good_time(begin_by)?;
        session.inline_policy(principal, policy).await
    };
    let reads = stream::iter(places).enumerate().map(async |(nth, place)| (read(&place).await, nth));
    let (mut gone, mut unread) = (Vec::new(), None);
    for (text, nth) in reads.buffer_unordered(AT_ONCE).collect::<Vec<_>>().await {
        match text {
            Ok(text) => gone.extend(of_each[nth].iter().copied().filter(|deny| call(deny, text.as_deref()).is_some())),
            Err(error) => unread = unread.or(Some(error)),
        }
    }
    (gone, unread)
}

/// What puts it in its place; None where it is there, or where it is not known what it denies.
fn call(deny: &ResidualDeny, text: Option<&str>) -> Option<Call> {
    let (principal, residual) = (Principal::denied(deny)?, Residual::listed(deny)?);
    let document = residual.document();
    let Residual { policy, cutoff, userid, .. } = residual;
    match (principal, userid) {
        (Principal::Role(role), Some(one)) if policy == SESSION_DENIES => {
            let there = text.and_then(SessionDenies::exactly).is_some_and(|denies| denies.keeps(&one, cutoff));
            (!there).then_some(Call::EditSessionDenies { role, edit: DenyEdit::Keep(one, cutoff) })
        }
        (principal, _) => {
            let there = text.is_some_and(|text| same_document(text, &document));
            (!there).then_some(Call::PutPolicy { principal, policy, document })
        }
    }
}

/// What was done for a deny that was not in its place.
struct Done {
    /// In words.
    said: String,
    /// The deny under the name that its user has now.
    now: ResidualDeny,
}

/// None where who was denied is there no more: its sessions went with it.
async fn put_back(ctx: &Ctx, session: &Session, deny: &ResidualDeny) -> Result<Option<Done>, AwsError> {
    let Some(now) = under_its_name(session, deny).await? else { return Ok(None) };
    let Some(principal) = Principal::denied(&now) else { return Ok(None) };
    let renamed = now != *deny;
    let there = if renamed { session.inline_policy(&principal, &now.policy_name).await? } else { None };
    let mut said = Vec::new();
    if renamed {
        let before = deny.user_name.as_deref().unwrap_or_default();
        said.push(format!("user {before} was renamed (iam:UpdateUser) to {principal}, whose old sessions stay denied"));
    }
    if let Some(call) = call(&now, there.as_deref()) {
        match ctx.actor.act(session, None, &call, &Guard::Narrowing, Priority::Sweep).await {
            Ok(_) => said.push(format!(
                "somebody took away or changed what denies the old sessions of {principal} until {}; put back: {call}",
                now.until.0
            )),
            Err(error) if error.class == Class::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok((!said.is_empty()).then(|| Done { said: said.join("; "), now }))
}

/// The deny, of a user under the name that it has now; None where who was denied is there no more. A role keeps its name.
async fn under_its_name(session: &Session, deny: &ResidualDeny) -> Result<Option<ResidualDeny>, AwsError> {
    let Some(principal) = Principal::denied(deny) else { return Ok(None) };
    if session.identity(&principal).await?.is_some_and(|shown| is_it(deny, &shown)) {
        return Ok(Some(deny.clone()));
    }
    let (Principal::User(_), Some(id)) = (principal, id(deny)) else { return Ok(None) };
    let name = session.name_of_user(id).await?;
    Ok(name.map(|name| ResidualDeny { user_name: Some(name), ..deny.clone() }))
}

/// Whether that is who was denied, and not another who was made again under the name. Where no id is listed, the name is all there is.
fn is_it(deny: &ResidualDeny, shown: &Identity) -> bool {
    id(deny).is_none_or(|id| id == shown.id)
}

/// The unique id of the user or role.
fn id(deny: &ResidualDeny) -> Option<&str> {
    deny.user_id.as_deref().and_then(|id| id.split(':').next())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::SignedDuration;

    use super::*;

    const NOW: &str = "2026-03-01T12:00:00Z";

    fn now() -> Timestamp {
        NOW.parse().unwrap()
    }

    fn deny(user: bool, policy: &str, hours: i64, user_id: Option<&str>) -> ResidualDeny {
        ResidualDeny {
            user_name: user.then(|| "mallory".into()),
            role_name: (!user).then(|| "build".into()),
            policy_name: policy.into(),
            until: clock::time(now() + SignedDuration::from_hours(hours)),
            user_id: user_id.map(str::to_owned),
        }
    }

    #[test]
    fn what_is_gone_or_another_is_put_as_it_was() {
        let of_a_user = deny(true, "firebreak-sessions-until-20260303T000000Z", 36, Some("AIDA1"));
        let Some(Call::PutPolicy { policy, document, .. }) = call(&of_a_user, None) else { panic!("nothing is put") };
        assert_eq!(policy, of_a_user.policy_name);
        assert!(
            document.contains(r#""aws:TokenIssueTime":"2026-03-01T12:00:00Z""#) && !document.contains("userid"),
            "{document}"
        );
        assert_eq!(call(&of_a_user, Some(&document)), None);
        let later = document.replace("2026-03-01T12", "2026-01-01T12");
        assert!(call(&of_a_user, Some(&later)).is_some(), "fewer are denied");

        let one = deny(false, "firebreak-sessions-until-20260302T000000Z-ci", 12, Some("AROA1:ci"));
        let Some(Call::PutPolicy { document, .. }) = call(&one, None) else { panic!("nothing is put") };
        assert!(document.contains(r#""aws:userid":"AROA1:ci""#), "{document}");
        assert_eq!(call(&ResidualDeny { user_id: None, ..one }, None), None, "whose it was is not known");
    }

    #[test]
    fn an_instance_stays_in_the_list_of_its_role_at_least_before_its_cutoff() {
        let of_it = deny(false, SESSION_DENIES, 12, Some("AROA1:i-1"));
        let keep = Call::EditSessionDenies { role: "build".into(), edit: DenyEdit::Keep("AROA1:i-1".into(), now()) };
        let list = |edit| SessionDenies::default().after(&edit).unwrap().document();
        let kept = list(DenyEdit::Keep("AROA1:i-1".into(), now()));
        for (text, call_is) in [
            (None, Some(&keep)),
            (Some(list(DenyEdit::Deny("AROA1:i-2".into()))), Some(&keep)),
            (Some(kept.replace("StringEquals", "StringLike")), Some(&keep)),
            (Some(kept), None),
            (Some(list(DenyEdit::Deny("AROA1:i-1".into()))), None),
        ] {
            assert_eq!(call(&of_it, text.as_deref()).as_ref(), call_is, "{text:?}");
        }
    }

    #[test]
    fn who_was_made_again_under_the_name_is_another() {
        let policy = "firebreak-sessions-until-20260302T000000Z";
        let shown = |id: &str| Identity { id: id.into(), ..Identity::default() };
        for (listed, shown_id, is) in [
            (Some("AROA1"), "AROA1", true),
            (Some("AROA1"), "AROA2", false),
            (Some("AROA1:ci"), "AROA1", true),
            (Some("AROA1:ci"), "AROA2", false),
            (None, "AROA2", true),
        ] {
            assert_eq!(is_it(&deny(false, policy, 12, listed), &shown(shown_id)), is, "{listed:?} {shown_id}");
        }
        let whole = deny(false, policy, 12, Some("AROA1"));
        let Some(Call::PutPolicy { document, .. }) = call(&whole, None) else { panic!("nothing is put") };
        assert!(!document.contains("userid"), "all of the role's sessions: {document}");
    }

    #[test]
    fn all_that_is_listed_of_a_renamed_user_gets_its_new_name_and_nothing_else_does() {
        let of = |policy: &str, id| deny(true, policy, 36, id);
        let mut listed = [of("A", Some("AIDA1")), of("B", Some("AIDA1")), of("A", Some("AIDA2")), of("A", None)];
        let before = listed.clone();
        let now = ResidualDeny { user_name: Some("eve".into()), ..before[0].clone() };
        rename(&mut listed, &[(before[0].clone(), now)]);
        assert_eq!(listed.each_ref().map(|d| d.user_name.as_deref().unwrap()), ["eve", "eve", "mallory", "mallory"]);
    }

    #[test]
    fn what_is_not_begun_in_time_is_told_and_left_to_the_next_look() {
        let now = Instant::now();
        assert!(in_good_time(now + WITHIN).is_ok());
        let late = in_good_time(now).unwrap_err();
        assert!(late.class == Class::Transient && late.message.contains("next look"), "{late}");
    }

    #[test]
    fn what_is_over_or_denied_by_a_later_one_is_not_put_back() {
        let of = |policy: &str, hours| deny(true, policy, hours, None);
        let denies = [
            of("firebreak-sessions-until-A", -1),
            of("firebreak-sessions-until-B", 1),
            of("firebreak-sessions-until-C", 2),
            deny(false, "firebreak-sessions-until-20260302T000000Z-ci", 1, Some("AROA1:ci")),
            deny(false, SESSION_DENIES, 1, Some("AROA1:i-1")),
            deny(false, SESSION_DENIES, 2, Some("AROA1:i-2")),
        ];
        let kept: Vec<usize> = (0..denies.len()).filter(|n| in_time(&denies, now()).any(|d| *d == denies[*n])).collect();
        assert_eq!(kept, [2, 3, 4, 5]);
    }
}
