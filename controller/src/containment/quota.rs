//! The quota of inline policies, which an attacker can fill: what to do where it keeps a deny of ours out.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html>

use crate::aws::{AwsError, Call, Principal, Session};
use crate::conditions::few;

/// So many names are told.
const TOLD: usize = 10;

/// The error; where that quota is full, with the names of what fills it. They are read only then.
pub async fn explained(aws: &Session, call: &Call, error: AwsError) -> AwsError {
    let Call::PutPolicy { principal, .. } = call else { return error };
    if error.code != "LimitExceeded" {
        return error;
    }
    let advice = match aws.inline_policy_names(principal).await {
        Ok(names) => advice(principal, &names),
        Err(unread) => format!("which inline policies of {principal} fill the quota cannot be seen: {unread}"),
    };
    AwsError { message: format!("{}; {advice}", error.message), ..error }
}

fn advice(principal: &Principal, names: &[String]) -> String {
    let mut foreign: Vec<&str> = names.iter().map(String::as_str).filter(|name| !name.starts_with("firebreak-")).collect();
    foreign.sort_unstable();
    let kind = principal.either("user", "role");
    if foreign.is_empty() {
        return format!(
            "{kind} {principal} has no inline policies but Firebreak's: denies of old sessions go at the time in their names"
        );
    }
    let quota = principal.either("2,048", "10,240");
    format!(
        "the inline policies of {kind} {principal} share {quota} characters, and others than Firebreak's fill them: delete what is not needed of {}",
        few(foreign, TOLD)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_names_what_others_put_there_and_not_what_is_ours() {
        let mallory = Principal::User("mallory".into());
        let names = |all: &[&str]| all.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let said = advice(&mallory, &names(&["own", "firebreak-deny-all", "filler"]));
        assert!(said.contains("2,048") && said.ends_with("of filler, own") && !said.contains("deny-all"), "{said}");
        let ours = advice(&mallory, &names(&["firebreak-sessions-until-20260302T000030Z"]));
        assert!(ours.contains("no inline policies but Firebreak's"), "{ours}");
        let many: Vec<String> = (0..13).map(|n| format!("p{n:02}")).collect();
        let said = advice(&Principal::Role("build".into()), &many);
        assert!(said.contains("10,240") && said.contains("p09 and 3 more") && !said.contains("p10"), "{said}");
    }
}
