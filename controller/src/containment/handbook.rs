//! What each action does, in words: `docs/actions.md`. Each action says it in a file beside its own, with these parts in this order.

use std::fmt::Write;

const PARTS: [&str; 4] = ["What it changes", "How it is undone", "What it cannot do", "AWS permissions"];
const HEAD: &str = "<!-- Written by `make generate`, from controller/src/containment/*.md. -->

# Actions

What a policy can list under `contain`, and what each does to AWS. [api.md](api.md) has the fields, [limits.md](limits.md) what cannot be
done, [targets.md](targets.md) what an action can be on. Each has its part below, with what it cannot do and the permissions that it needs.

| action | on | what it changes | how it is undone |
| --- | --- | --- | --- |
";

/// What one action's file says.
pub(super) struct Entry<'a> {
    /// The action's name.
    pub(super) name: &'a str,
    /// The kinds of resource that it is for.
    pub(super) on: &'a str,
    parts: [&'a str; 4],
}

impl<'a> Entry<'a> {
    /// None where a part is missing, or in another place.
    pub(super) fn read(text: &'a str) -> Option<Self> {
        let (name, rest) = text.strip_prefix("# ")?.split_once("\n\n")?;
        let (on, mut rest) = rest.split_once("\n\n")?;
        let mut parts = [""; 4];
        for (part, title) in parts.iter_mut().zip(PARTS) {
            let body = rest.strip_prefix("## ")?.strip_prefix(title)?.strip_prefix("\n\n")?;
            (*part, rest) = body.split_once("\n\n## ").map_or((body, ""), |(part, _)| (part, &body[part.len() + 2..]));
        }
        (rest.is_empty() && parts.iter().all(|part| !part.trim().is_empty())).then_some(Self { name, on, parts })
    }

    /// The last part: the operations, each with its service.
    #[cfg(test)]
    pub(super) fn permissions(&self) -> &'a str {
        self.parts[3]
    }

    fn row(&self) -> String {
        let [changes, undone, ..] = self.parts.map(first_sentence);
        format!("| [`{0}`](#{1}) | {2} | {changes} | {undone} |\n", self.name, self.name.to_lowercase(), self.on)
    }

    fn section(&self) -> String {
        let parts = PARTS.iter().zip(self.parts).fold(String::new(), |mut text, (title, part)| {
            let _ = write!(text, "\n**{title}.** {}\n", part.trim()); // a String takes it all
            text
        });
        format!("\n## `{}`\n\nOn: {}.\n{parts}", self.name, self.on)
    }
}

/// A part begins with what matters most.
fn first_sentence(part: &str) -> String {
    let line = part.split("\n\n").next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
    let end = line.find(". ").map_or(line.len(), |at| at + 1);
    line[..end].trim_end_matches('.').to_owned()
}

/// The whole document. A test sees to it that every action's file can be read.
#[must_use]
pub fn handbook() -> String {
    let all: Vec<Entry<'_>> = super::wanted::TEXTS.iter().filter_map(|text| Entry::read(text)).collect();
    let rows: String = all.iter().map(Entry::row).collect();
    let sections: String = all.iter().map(Entry::section).collect();
    format!("{HEAD}{rows}{sections}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::aws::iam_policy;
    use crate::containment::wanted::{NAMES, TEXTS};

    /// What is needed besides: for evidence, selectors, who depends on a target, the inventory, tags that protect, groups made ahead.
    const OF_NO_ACTION: &[&str] = &[
        "ec2:CreateSnapshots",
        "ec2:DescribeSnapshots",
        "ec2:DescribeVpcs",
        "iam:GetAccountAuthorizationDetails",
        "iam:ListInstanceProfilesForRole",
    ];

    fn entries() -> Vec<Entry<'static>> {
        TEXTS.iter().map(|text| Entry::read(text).unwrap_or_else(|| panic!("{}", &text[..40]))).collect()
    }

    #[test]
    fn each_action_says_under_its_name_what_it_does() {
        let named: Vec<&str> = entries().iter().map(|e| e.name).collect();
        let actions: Vec<&str> = NAMES.iter().copied().chain(["tagResource"]).collect();
        assert_eq!(named, actions);
    }

    #[test]
    fn the_permissions_that_actions_name_are_those_of_the_policy() {
        let policy = iam_policy();
        let allowed = policy["Statement"].as_array().unwrap().iter().filter(|s| s["Effect"] == "Allow");
        let listed = allowed.flat_map(|s| s["Action"].as_array().cloned().unwrap_or_else(|| vec![s["Action"].clone()]));
        let policy: BTreeSet<String> = listed.map(|action| action.as_str().unwrap().to_owned()).collect();
        let quoted = |text: &'static str| text.split('`').skip(1).step_by(2).filter(|word| word.contains(':'));
        let named: BTreeSet<String> = entries().iter().flat_map(|e| quoted(e.permissions())).map(str::to_owned).collect();
        assert_eq!(named.difference(&policy).collect::<Vec<_>>(), Vec::<&String>::new(), "not allowed");
        let unnamed: Vec<&String> = policy.difference(&named).collect();
        assert_eq!(unnamed, OF_NO_ACTION, "named by no action");
    }

    #[test]
    fn a_file_without_a_part_or_with_another_is_none() {
        let whole = TEXTS[0];
        assert!(Entry::read(whole).is_some());
        for wrong in [
            whole.replace("## What it cannot do", "## Limits"),
            whole.replace("## AWS permissions\n\n", ""),
            format!("{whole}\n## More\n\nOf it.\n"),
        ] {
            assert!(Entry::read(&wrong).is_none(), "{wrong}");
        }
        assert!(Entry::read(&whole[2..]).is_none());
    }
}
