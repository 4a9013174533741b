use super::*;
use crate::containment::example::{self, deny_all, keys_off, recorded_in};

fn named(name: &str, quarantine: Quarantine) -> Quarantine {
    let mut quarantine = quarantine;
    quarantine.metadata.name = Some(name.into());
    quarantine
}

fn user(actions: Vec<firebreak_crds::ContainAction>) -> Quarantine {
    named("user", example::quarantine(example::user(), vec![example::holder("1", "inc", actions)]))
}

fn key(id: &str) -> Quarantine {
    named(id, example::quarantine(example::access_key(id), vec![example::holder("1", "inc", vec![keys_off()])]))
}

#[test]
fn a_user_and_its_keys_are_beside_each_other_and_nobody_else_is() {
    let mut of_another = key("AKIA3");
    of_another.spec.resource.user.as_mut().unwrap().name = "eve".into();
    let mut elsewhere = key("AKIA4");
    elsewhere.spec.resource.account_id = "444455556666".into();
    let mut role = named("role", example::quarantine(example::role(), vec![]));
    role.spec.resource.id = "mallory".into();
    let all = [user(vec![keys_off()]), key("AKIA1"), key("AKIA2"), of_another, elsewhere, role.clone()];
    let names = |q: &Quarantine| beside(q, || all.to_vec()).into_iter().map(|b| b.name).collect::<Vec<_>>();
    assert_eq!(names(&all[0]), ["AKIA1", "AKIA2"]);
    assert_eq!(names(&all[1]), ["user", "AKIA2"]);
    assert!(names(&role).is_empty(), "a role of the same name is another");
}

#[test]
fn a_user_and_a_key_share_that_key_and_two_keys_share_none() {
    let shared =
        |mine: &Quarantine, theirs: Quarantine| beside(mine, || vec![theirs])[0].shared_key(mine).map(str::to_owned);
    assert_eq!(shared(&user(vec![]), key("AKIA1")).as_deref(), Some("AKIA1"));
    assert_eq!(shared(&key("AKIA1"), user(vec![])).as_deref(), Some("AKIA1"));
    assert_eq!(shared(&key("AKIA1"), key("AKIA2")), None);
}

#[test]
fn it_keeps_off_what_it_holds_and_nothing_else() {
    let back = |release: &ReleasePolicy| release.reactivate_access_keys;
    let off =
        |other: Quarantine, id: &str| beside(&key("AKIA1"), || vec![other])[0].keeps_off("deactivateAccessKeys", id, back);
    assert!(off(user(vec![keys_off()]), "AKIA1"), "the user's keys are all off");
    assert!(!off(user(vec![deny_all()]), "AKIA1"), "its policy leaves keys alone");
    assert!(off(key("AKIA2"), "AKIA2") && !off(key("AKIA2"), "AKIA1"), "a key's own, and no other");
    let recorded = |q| recorded_in(q, "deactivateAccessKeys/AKIA1", r#"{"active":true}"#);
    assert!(off(recorded(user(vec![])), "AKIA1"), "what is on record is kept until nobody holds");
    let mut let_go = recorded(user(vec![keys_off()]));
    let_go.spec.holders.clear();
    assert!(off(let_go.clone(), "AKIA1"), "it is being released, and leaves keys off");
    let_go.spec.let_go = Some(ReleasePolicy { reactivate_access_keys: true, ..ReleasePolicy::default() });
    assert!(!off(let_go, "AKIA1"), "it is being released, and gives keys back");
}
