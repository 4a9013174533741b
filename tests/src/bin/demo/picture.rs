//! What AWS shows of the scene at one moment, in words that can be put side by side.

use std::collections::BTreeMap;

use firebreak_tests::emulator::Aws;
use firebreak_tests::scene::Scene;
use firebreak_tests::sight;

use crate::narrator::table;

/// What to look at, and what is there.
pub type Picture = Vec<(String, Vec<String>)>;

/// Looks at the scene's instance and user, past Firebreak and its proxy.
pub async fn take(aws: &Aws, scene: &Scene) -> anyhow::Result<Picture> {
    let (instance, mut rows) = (&scene.instances[0], Picture::new());
    let names = group_names(aws).await?;
    let groups = sight::groups(aws, &instance.interfaces).await?;
    for (nth, interface) in instance.interfaces.iter().enumerate() {
        let of_it = groups.get(interface).into_iter().flatten();
        let cell = of_it.map(|id| names.get(id).unwrap_or(id).clone()).collect();
        rows.push((format!("groups of interface {nth}"), cell));
    }
    let mut tags: Vec<String> = sight::marks(aws, &instance.id).await?.into_keys().map(one_of_a_copy).collect();
    tags.dedup();
    rows.push(("tags of the instance".into(), tags));
    rows.push(("snapshots".into(), vec![sight::snapshots(aws).await?.len().to_string()]));
    for (key, status) in sight::keys(aws).await? {
        rows.push((format!("key ...{}", &key[key.len().saturating_sub(6)..]), vec![status]));
    }
    rows.push(("user's inline policies".into(), sight::inline_policies(aws).await?));
    rows.push(("user's attached policies".into(), sight::attached_policies(aws).await?));
    rows.push(("user's permissions boundary".into(), sight::boundary(aws).await?.into_iter().collect()));
    Ok(rows)
}

/// The copy of the original takes several tags.
fn one_of_a_copy(tag: String) -> String {
    if tag.starts_with("firebreak.dev/original-") { "firebreak.dev/original-*".into() } else { tag }
}

async fn group_names(aws: &Aws) -> anyhow::Result<BTreeMap<String, String>> {
    let answer = aws.ec2.describe_security_groups().send().await?;
    let named = |g: &aws_sdk_ec2::types::SecurityGroup| Some((g.group_id.clone()?, g.group_name.clone()?));
    Ok(answer.security_groups().iter().filter_map(named).collect())
}

/// Several pictures of one scene, side by side.
pub fn side_by_side(pictures: &[(&str, &Picture)]) {
    let headings: Vec<&str> = ["AWS shows"].into_iter().chain(pictures.iter().map(|(title, _)| *title)).collect();
    let cell = |picture: &Picture, what: &str| {
        let lines = picture.iter().find(|(name, _)| name == what).map(|(_, lines)| lines.clone()).unwrap_or_default();
        if lines.is_empty() { vec!["-".to_owned()] } else { lines }
    };
    let row = |what: &String| {
        [vec![what.clone()]].into_iter().chain(pictures.iter().map(|(_, picture)| cell(picture, what))).collect()
    };
    let rows: Vec<Vec<Vec<String>>> = pictures[0].1.iter().map(|(what, _)| row(what)).collect();
    table(&headings, &rows);
}
