//! Policy documents.

use firebreak_crds::{ActionState, OnConflict};
use serde_json::Value;

use super::case::Case;
use super::plan::{Plan, Verdict};
use crate::aws::Call;
pub use crate::aws::same_document as equal;

/// So many characters of a document are shown.
const SHOWN: usize = 300;

/// Puts an inline policy on the user or role that is contained.
pub fn put(case: &Case, policy: &str, document: &str) -> Call {
    Call::PutPolicy { principal: case.principal(), policy: policy.into(), document: document.into() }
}

/// At a release: an inline policy goes where AWS still shows what Firebreak put there, or a person said so. `ours`: whether a text is
/// one of ours.
pub fn lift(plan: &mut Plan, case: &Case, policy: &str, there: Option<&String>, ours: impl Fn(&str) -> bool) {
    let Some(text) = there else { return };
    match (ours(text), case.decision) {
        (false, None) => {
            let what = format!(
                "inline policy {policy}, which Firebreak put there, was changed by somebody, and is {} now (KeepTheirs leaves that, RestoreOriginal deletes it): spec.release.onConflict decides",
                shown(text)
            );
            plan.verdict = Verdict::new(ActionState::Conflict, what);
        }
        (false, Some(OnConflict::KeepTheirs)) => {}
        _ => plan.calls.push(Call::DeletePolicy { principal: case.principal(), policy: policy.into() }),
    }
}

/// A document as messages show it: without white space, and not more of it than people read.
pub fn shown(text: &str) -> String {
    let compact = compact(text);
    match compact.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}... ({} characters)", &compact[..at], compact.chars().count()),
        None => compact,
    }
}

/// The same document without white space: AWS counts none against its quotas, so that padding could make it longer than a record.
pub fn compact(text: &str) -> String {
    let (mut quoted, mut escaped) = (false, false);
    let counts = |c: &char| {
        let counts = quoted || !c.is_ascii_whitespace();
        quoted ^= *c == '"' && !escaped;
        escaped = quoted && *c == '\\' && !escaped;
        counts
    };
    text.chars().filter(counts).collect()
}

/// The principals of every statement, each as written: an ARN, an account, a service, a provider, `*`, or a unique id where AWS
/// shows that whoever it was is gone.
pub fn principals(text: &str) -> Vec<String> {
    let document: Value = serde_json::from_str(text).unwrap_or_default();
    let mut found = Vec::new();
    for statement in list(&document["Statement"]) {
        for key in ["Principal", "NotPrincipal"] {
            collect(&statement[key], &mut found);
        }
    }
    found.sort();
    found.dedup();
    found
}

fn list(value: &Value) -> Vec<&Value> {
    value.as_array().map_or_else(|| vec![value], |all| all.iter().collect())
}

fn collect(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => found.push(text.clone()),
        Value::Array(all) => all.iter().for_each(|v| collect(v, found)),
        Value::Object(fields) => fields.values().for_each(|v| collect(v, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_and_the_order_of_keys_mean_nothing() {
        assert!(equal(r#"{"a":1,"b":[2]}"#, "{ \"b\": [2],\n \"a\": 1 }"));
        assert!(!equal(r#"{"a":1}"#, r#"{"a":2}"#) && !equal("", ""));
    }

    #[test]
    fn padding_is_no_part_of_a_document() {
        let padded = format!(r#"{{ "b":{} [1, "c d\" \\"], "a": 2 }}"#, " ".repeat(20_000));
        assert_eq!(compact(&padded), r#"{"b":[1,"c d\" \\"],"a":2}"#);
        assert!(equal(&compact(&padded), &padded));
    }

    #[test]
    fn what_is_shown_of_a_document_is_short() {
        assert_eq!(shown("{ \"a\": \"b c\" }"), r#"{"a":"b c"}"#);
        let long = format!(r#"{{"a":"{}"}}"#, "\u{e9}".repeat(400));
        let said = shown(&long);
        assert!(said.starts_with(r#"{"a":"é"#) && said.ends_with("... (408 characters)"), "{said}");
        assert_eq!(said.chars().count(), SHOWN + "... (408 characters)".len());
    }

    #[test]
    fn principals_are_found_however_they_are_written() {
        let text = r#"{"Statement":[{"Principal":{"AWS":["b","AROA1"],"Service":"ec2"}},{"Principal":"*"}]}"#;
        assert_eq!(principals(text), ["*", "AROA1", "b", "ec2"]);
        assert_eq!(principals(r#"{"Statement":{"Principal":{"AWS":"a"}}}"#), ["a"]);
    }
}
