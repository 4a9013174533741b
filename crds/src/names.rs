//! The names of the objects that the controller makes: readable where they can be, never random.

use sha2::{Digest, Sha256};

use crate::{Resource, ResourceKind};

/// The name of a resource's Quarantine: `<kind>-<account id>-<region or "global">-<id>` where that is a valid name, else a
/// slug of it, a dot and 20 hex digits of the SHA-256 of its ARN. Readable names have no dot: so nobody can make a user
/// whose readable name is another's hashed one, and block that one's containment.
#[must_use]
pub fn quarantine_name(resource: &Resource) -> String {
    let region = resource.region.as_deref().unwrap_or("global");
    let id = match resource.kind {
        ResourceKind::AccessKey => resource.id.to_ascii_lowercase(), // such ids have no small letters: none is another's
        _ => resource.id.clone(),
    };
    let plain = format!("{}-{}-{region}-{id}", resource.slug(), resource.account_id);
    if is_valid(&plain) { plain } else { format!("{}.{}", slug(&plain), &hex::encode(Sha256::digest(resource.arn()))[..20]) }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NameRef;

    fn user(name: &str) -> Resource {
        Resource {
            kind: ResourceKind::IamUser,
            account_ref: NameRef { name: "prod".into() },
            account_id: "111122223333".into(),
            region: None,
            id: name.into(),
            user: None,
        }
    }

    fn instance(region: &str, id: &str) -> Resource {
        Resource { kind: ResourceKind::Ec2Instance, region: Some(region.into()), ..user(id) }
    }

    /// As the API server does: RFC 1123, dot-separated.
    fn api_server_accepts(name: &str) -> bool {
        let ends = |label: &str, at: fn(&str) -> Option<char>| at(label).is_some_and(|c| c.is_ascii_alphanumeric());
        name.len() <= 253
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c))
            && name.split('.').all(|l| ends(l, |l| l.chars().next()) && ends(l, |l| l.chars().last()))
    }

    #[test]
    fn a_plain_id_is_readable_in_the_name() {
        assert_eq!(quarantine_name(&user("mallory")), "iamuser-111122223333-global-mallory");
        assert_eq!(
            quarantine_name(&instance("eu-west-1", "i-0123456789abcdef0")),
            "ec2instance-111122223333-eu-west-1-i-0123456789abcdef0"
        );
        let key = Resource { kind: ResourceKind::AccessKey, ..user("AKIAIOSFODNN7EXAMPLE") };
        assert_eq!(quarantine_name(&key), "accesskey-111122223333-global-akiaiosfodnn7example");
    }

    #[test]
    fn names_never_change_between_versions() {
        let name = quarantine_name(&user("Mallory@example.com"));
        assert_eq!(name, "iamuser-111122223333-global-mallory-example-com.bb9aab964ee6f60fdffb");
    }

    #[test]
    fn different_resources_have_different_names() {
        let elsewhere = Resource { account_id: "444455556666".into(), ..user("mallory") };
        let all = [
            user("mallory"),
            user("Mallory"),
            user("m-allory"),
            user("m_allory"),
            user("m.allory"),
            elsewhere,
            instance("eu-west-1", "i-0123456789abcdef0"),
            instance("eu-west-2", "i-0123456789abcdef0"),
            Resource { kind: ResourceKind::AccessKey, ..user("AKIAIOSFODNN7EXAMPLE") },
            user("accesskey-AKIAIOSFODNN7EXAMPLE"),
            Resource { kind: ResourceKind::RoleSession, ..user("ci/a-b") },
            Resource { kind: ResourceKind::RoleSession, ..user("ci-a/b") },
        ];
        let names: std::collections::BTreeSet<_> = all.iter().map(quarantine_name).collect();
        assert_eq!(names.len(), all.len(), "{names:?}");
    }

    #[test]
    fn no_readable_name_is_another_resources_hashed_name() {
        let hashed = quarantine_name(&user("Mallory"));
        let decoy = hashed.trim_start_matches("iamuser-111122223333-global-");
        assert_ne!(quarantine_name(&user(decoy)), hashed);
        assert_ne!(quarantine_name(&user(&decoy.replace('.', "-"))), hashed);
    }

    #[test]
    fn every_user_name_that_aws_allows_gives_a_valid_name() {
        for id in ["a+b=c,d.e@f_g", "-", "x-", "+", ".", "UPPER", &"y".repeat(64), &"=".repeat(64)] {
            let (name, evidence) = (quarantine_name(&user(id)), evidence_name("ebssnapshots", &user(id), "0f1e2d3c-0000"));
            assert!(api_server_accepts(&name) && api_server_accepts(&evidence), "{id}: {name}, {evidence}");
        }
    }

    #[test]
    fn evidence_carries_the_start_of_its_incidents_uid() {
        let of = |uid| evidence_name("ebssnapshots", &instance("eu-west-1", "i-0123456789abcdef0"), uid);
        let name = of("0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f0");
        assert_eq!(name, "ec2instance-111122223333-eu-west-1-i-0123456789abcdef0-ebssnapshots-0f1e2d3c");
        assert_ne!(name, of("1f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f0"));
    }
}
