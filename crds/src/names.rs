//! The names of the objects that the controller makes: readable where they can be, never random.

use sha2::{Digest, Sha256};

use crate::Resource;

/// The name of a resource's Quarantine: `<kind>-<account id>-<region or "global">-<id>` where that is a valid name, else a
/// slug of it and 20 hex digits of the SHA-256 of its ARN.
#[must_use]
pub fn quarantine_name(resource: &Resource) -> String {
    let region = resource.region.as_deref().unwrap_or("global");
    let plain = format!("{}-{}-{region}-{}", resource.slug(), resource.account_id, resource.id);
    if is_valid(&plain) { plain } else { format!("{}-{}", slug(&plain), &hex(&resource.arn())[..20]) }
}

/// The name of a piece of evidence. Carries 8 hex digits of the Incident's uid, so that evidence of an earlier incident of
/// the same name never counts.
#[must_use]
pub fn evidence_name(kind: &str, resource: &Resource, incident_uid: &str) -> String {
    let uid: String = incident_uid.chars().filter(char::is_ascii_hexdigit).take(8).collect();
    format!("{}-{kind}-{uid}", quarantine_name(resource))
}

/// <https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#dns-subdomain-names>, without dots; and room
/// for evidence's suffix.
fn is_valid(name: &str) -> bool {
    name.len() <= 200
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && !name.ends_with('-')
}

fn slug(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let slug: String = lower.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(160).collect();
    slug.trim_end_matches('-').to_owned()
}

fn hex(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NameRef, ResourceKind};

    fn user(name: &str) -> Resource {
        Resource {
            kind: ResourceKind::IamUser,
            account_ref: NameRef { name: "prod".into() },
            account_id: "111122223333".into(),
            region: None,
            id: name.into(),
        }
    }

    #[test]
    fn a_plain_id_is_readable_in_the_name() {
        assert_eq!(quarantine_name(&user("mallory")), "iamuser-111122223333-global-mallory");
    }

    #[test]
    fn users_that_differ_only_in_case_have_different_names() {
        let (upper, lower) = (quarantine_name(&user("Mallory")), quarantine_name(&user("mallory")));
        assert_ne!(upper, lower);
        assert!(is_valid(&upper), "{upper}");
    }

    #[test]
    fn every_user_name_that_aws_allows_gives_a_valid_name() {
        for name in ["a+b=c,d.e@f_g", "-", "x-", &"y".repeat(64), "UPPER"] {
            assert!(is_valid(&quarantine_name(&user(name))), "{name}");
        }
    }

    #[test]
    fn evidence_of_another_incident_has_another_name() {
        let (a, b) = ("0f1e2d3c-0000", "1f1e2d3c-0000");
        assert_ne!(evidence_name("ebssnapshots", &user("m"), a), evidence_name("ebssnapshots", &user("m"), b));
    }
}
