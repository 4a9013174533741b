//! CEL rules that several types share; the message stands beside the field. A rule of one type stands there too.

use kube::core::Rule;

/// One-key items: `- denyAll: {}`. A key without a value is null, which CEL's `has()` cannot see but `dyn()` counts: so
/// `{denyAll: null, deactivateAccessKeys: {}}` is refused, rather than read as the second alone.
pub fn exactly_one(keys: &[&str]) -> Rule {
    Rule::new(format!("size(dyn(self)) == 1 && ({})", join(keys, " || ", |k| format!("has(self.{k})"))))
}

/// A list of one-key items in which no key appears twice.
pub fn no_key_twice(keys: &[&str]) -> Rule {
    Rule::new(join(keys, " && ", |k| format!("self.filter(item, has(item.{k})).size() <= 1")))
}

/// A list of one-key items that does not have both keys.
pub fn not_both(a: &str, b: &str) -> Rule {
    Rule::new(format!("!(self.exists(item, has(item.{a})) && self.exists(item, has(item.{b})))"))
}

/// Optional sections: one that is written has something beneath it.
pub fn no_empty_section(keys: &[&str]) -> Rule {
    Rule::new(format!("dyn(self).all(k, {})", join(keys, " && ", |k| format!("(k != '{k}' || has(self.{k}))"))))
}

/// `approvals.actions` of a policy: each is the name of an action in some section's `contain`. Untyped, so that it holds for
/// sections and actions of a later version too.
pub fn approvals_are_of_actions() -> Rule {
    let listed = "'contain' in dyn(self)[s] && dyn(self)[s].contain.exists(a, n in a)";
    Rule::new(format!("!has(self.approvals) || self.approvals.actions.all(n, dyn(self).exists(s, {listed}))"))
}

fn join(keys: &[&str], operator: &str, part: impl Fn(&str) -> String) -> String {
    keys.iter().map(|k| part(k)).collect::<Vec<_>>().join(operator)
}
