use proptest::prelude::*;

use super::*;

fn session(n: usize) -> String {
    format!("AROAEXAMPLEEXAMPLE123:i-0123456789abc{n:04}")
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

/// One after another, as many as there is room for, and no more than that.
fn denied(most: usize) -> SessionDenies {
    let mut denies = SessionDenies::default();
    for n in 0..most {
        let Some(next) = denies.after(&DenyEdit::Deny(session(n))) else { break };
        denies = next;
    }
    denies
}

#[test]
fn sixty_instances_fit_one_role_and_three_hundred_do_not() {
    let sixty = denied(60);
    assert_eq!((sixty.standing.len(), SessionDenies::exactly(&sixty.document())), (60, Some(sixty.clone())));
    let most = denied(300);
    assert!((205..225).contains(&most.standing.len()), "{}", most.standing.len());
    assert!(most.document().len() <= QUOTA && most.after(&DenyEdit::Deny(session(999))).is_none());
    assert!(most.after(&DenyEdit::Deny(session(0))).is_some(), "whoever is in it stays");
}

#[test]
fn what_fits_can_be_released_together_and_leaves_one_statement() {
    let mut denies = denied(300);
    for id in denies.standing.clone() {
        let cutoff = denies.cutoff_within(at(30), at(600)).unwrap_or(at(600));
        denies = denies.after(&DenyEdit::Release(id.clone(), Some(cutoff))).expect("a release is never short of room");
        assert!(denies.is_released(&id, Some(at(600))));
    }
    assert_eq!((denies.standing.len(), denies.before.len()), (0, 1));
    let over = until(at(600));
    let just_before = denies.after(&DenyEdit::EndExpired(over - SignedDuration::from_secs(1))).unwrap();
    assert_eq!(just_before, denies);
    assert!(denies.after(&DenyEdit::EndExpired(over)).unwrap().is_empty());
}

#[test]
fn what_was_released_is_kept_denied_before_its_cutoff_and_no_more_than_that() {
    let keep = |denies: &SessionDenies, n, second| denies.after(&DenyEdit::Keep(session(n), at(second))).unwrap();
    let gone = SessionDenies::default();
    assert!(!gone.keeps(&session(0), at(600)));
    let again = keep(&gone, 0, 600);
    assert!(again.is_released(&session(0), Some(at(600))) && again.keeps(&session(0), at(600)));
    assert!(!again.keeps(&session(0), at(601)) && !again.keeps(&session(1), at(600)));
    assert_eq!(keep(&again, 0, 540), again, "a later cutoff denies these, too");
    let earlier = keep(&again, 0, 660);
    assert!(earlier.keeps(&session(0), at(660)), "one that somebody put earlier");
    let held = denied(1);
    assert_eq!(keep(&held, 0, 600), held, "one that is held again is denied whenever its sessions were issued");
}

#[test]
fn a_release_never_makes_the_list_longer_however_full_the_role_is() {
    let mut denies = denied(40);
    let mut length = denies.document().len();
    for (n, id) in denies.standing.clone().into_iter().enumerate() {
        denies = denies.after(&DenyEdit::Release(id, Some(at([600, 660, 720][n % 3])))).unwrap();
        assert!(denies.document().len() <= length, "{} after {length}", denies.document().len());
        length = denies.document().len();
        assert_eq!(SessionDenies::exactly(&denies.document()), Some(denies.clone()));
    }
    assert!(denies.rooms == 0 && denies.before.len() == 3 && !denies.document().contains(ROOM));
    assert_eq!(denies.after(&DenyEdit::Deny(session(0))).unwrap().rooms, ROOMS, "and again for the next");
}

#[test]
fn whoever_changes_a_letter_is_noticed_and_the_ids_are_kept() {
    let denies = denied(2).after(&DenyEdit::Release(session(1), Some(at(0)))).unwrap();
    let text = denies.document();
    for (from, to) in [("\"*\"", "\"s3:*\""), ("\"Deny\"", "\"Allow\""), ("DateLessThan", "DateGreaterThan")] {
        let changed = text.replace(from, to);
        assert!(changed != text && SessionDenies::exactly(&changed).is_none(), "{from}");
        assert!(SessionDenies::read(&changed).standing.contains(&session(0)), "{from}");
    }
    assert_eq!(SessionDenies::read("no JSON"), SessionDenies::default());
    assert!(text.contains(r#""Sid":"FirebreakUntil"#) && !text.contains(' '), "{text}");
}

#[test]
fn an_instance_that_is_held_again_has_one_cutoff_in_the_end() {
    let once = denied(1).after(&DenyEdit::Release(session(0), Some(at(0)))).unwrap();
    let again = once.after(&DenyEdit::Deny(session(0))).unwrap();
    assert!(again.standing.contains(&session(0)) && !again.is_released(&session(0), Some(at(0))));
    let released = again.after(&DenyEdit::Release(session(0), Some(at(100)))).unwrap();
    assert!(released.is_released(&session(0), Some(at(100))) && released.before.len() == 1);
    assert!(again.after(&DenyEdit::Release(session(0), None)).unwrap().is_empty());
}

proptest! {
    /// Whatever is done for one instance changes nothing for the others, and the text says all of it.
    #[test]
    fn no_edit_touches_another_session(edits in prop::collection::vec((0..3_usize, 0..6_usize, 0..4_i64), 0..40)) {
        let mut denies = SessionDenies::default();
        for (kind, n, second) in edits {
            let edit = match kind {
                0 => DenyEdit::Deny(session(n)),
                1 => DenyEdit::Release(session(n), Some(at(second))),
                _ => DenyEdit::Release(session(n), None),
            };
            let next = denies.after(&edit).unwrap();
            prop_assert_eq!(SessionDenies::exactly(&next.document()), Some(next.clone()));
            prop_assert_eq!(next.standing.contains(&session(n)), kind == 0);
            for other in (0..6).filter(|other| *other != n).map(session) {
                prop_assert_eq!(next.standing.contains(&other), denies.standing.contains(&other));
                let before = |d: &SessionDenies| d.before.iter().filter(|(_, ids)| ids.contains(&other)).map(|(at, _)| *at).collect::<Vec<_>>();
                prop_assert_eq!(before(&next), before(&denies));
            }
            denies = next;
        }
    }
}

#[test]
fn a_cutoff_at_the_end_of_time_denies_more_and_breaks_nothing() {
    let mut denies = denied(1);
    denies = denies.after(&DenyEdit::Release(session(0), Some(at(0)))).unwrap();
    let text = denies.document().replace(&at(0).to_string(), "9999-12-30T22:00:00Z");
    let read = SessionDenies::read(&text);
    assert_eq!(read.standing.iter().collect::<Vec<_>>(), [&session(0)]);
    assert_eq!(SessionDenies::exactly(&text), None);
    assert!(read.after(&DenyEdit::EndExpired(at(0))).is_some());
}
