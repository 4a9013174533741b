use super::*;
use crate::containment::example;

const KEY: &str = "terminateSessions";

fn case() -> Case {
    example::case(example::instance())
}

fn session(id: &str) -> OpenSession {
    OpenSession { id: id.into(), target: "i-1".into(), owner: "arn:of/mallory".into(), ending: false }
}

fn command(id: &str) -> OpenCommand {
    OpenCommand { id: id.into(), target: "i-1".into(), document: "AWS-RunShellScript".into(), ending: false }
}

fn look(sessions: &[OpenSession], commands: &[OpenCommand]) -> Look {
    let instance = Instance { id: "i-1".into(), state: "running".into(), ..Instance::default() };
    Look { instance: Some(instance), sessions: sessions.to_vec(), commands: commands.to_vec(), unread: None }
}

fn known() -> Case {
    example::recorded(case(), KEY, &Original { open: vec![] })
}

fn contain(case: &Case, look: &Look) -> Plan {
    SystemsManager::contain(case, &Empty {}, look)
}

#[test]
fn every_session_and_command_ends_at_once_and_is_written_down() {
    let mut look = look(&[session("s-1"), session("s-2")], &[command("c-1")]);
    let plan = contain(&case(), &look);
    let calls: Vec<String> = plan.calls.iter().map(ToString::to_string).collect();
    assert_eq!(
        calls,
        [
            "ssm:TerminateSession s-1 of arn:of/mallory on i-1",
            "ssm:TerminateSession s-2 of arn:of/mallory on i-1",
            "ssm:CancelCommand c-1 (AWS-RunShellScript) on i-1 only",
        ]
    );
    assert_eq!(plan.record[KEY]["open"].as_array().unwrap().len(), 3);
    assert_eq!(plan.verdict.state, ActionState::InProgress);
    plan.calls.iter().for_each(|call| SystemsManager::after(&mut look, call, &Outcome::Done));
    let plan = contain(&example::recorded(case(), KEY, &plan.record[KEY]), &look);
    assert!(plan.is_done() && plan.verdict.state == ActionState::InForce);
    assert!(plan.verdict.message.contains("at first there was session s-1 of arn:of/mallory"), "{}", plan.verdict.message);
}

#[test]
fn what_was_open_at_first_is_for_a_copy_to_say_where_there_may_be_one() {
    let mut look = look(&[session("s-1")], &[]);
    look.instance.as_mut().unwrap().tags = BTreeMap::from([("firebreak.dev/incident".into(), "security/old".into())]);
    let plan = contain(&case(), &look);
    assert!(plan.record.is_empty() && plan.calls.len() == 1, "{plan:?}");
    look.sessions.clear();
    assert_eq!(contain(&case(), &look).verdict.state, ActionState::InForce);
}

#[test]
fn what_aws_is_still_ending_is_in_progress_and_not_asked_for_again() {
    let sessions = [OpenSession { ending: true, ..session("s-1") }];
    let commands = [OpenCommand { ending: true, ..command("c-1") }];
    for look in [look(&sessions, &[]), look(&[], &commands)] {
        let plan = contain(&known(), &look);
        assert!(plan.is_done() && plan.verdict.drift.is_empty(), "{plan:?}");
        assert_eq!(plan.verdict.state, ActionState::InProgress);
        assert!(plan.verdict.message.starts_with("AWS is still ending "), "{}", plan.verdict.message);
    }
}

#[test]
fn what_comes_later_is_drift_with_the_name_of_who_did_it() {
    let plan = contain(&known(), &look(&[session("s-9")], &[command("c-9")]));
    assert_eq!(
        plan.verdict.drift,
        ["session s-9 of arn:of/mallory was open", "command c-9 (AWS-RunShellScript) was going on"]
    );
    assert!(plan.record.is_empty() && plan.calls.len() == 2);
}

#[test]
fn in_force_it_says_what_stops_the_next_one() {
    let message = contain(&known(), &look(&[], &[])).verdict.message;
    assert!(message.starts_with("no session is open and no command waits or goes on, "), "{message}");
    for word in ["ssm:StartSession", "ssm:SendCommand", "isolateNetwork", "revokeInstanceRole", "contain that principal"] {
        assert!(message.contains(word), "{word}: {message}");
    }
}

#[test]
fn of_many_some_are_named_and_all_are_ended() {
    let sessions: Vec<_> = (0..300).map(|n| session(&format!("s-{n}"))).collect();
    let plan = contain(&case(), &look(&sessions, &[]));
    assert_eq!((plan.calls.len(), plan.record[KEY]["open"].as_array().unwrap().len()), (300, NAMED));
    assert!(plan.verdict.message.contains("and 296 more") && plan.verdict.message.len() < 2000);
}

#[test]
fn a_refusal_counts_only_while_it_is_open() {
    let calls = contain(&known(), &look(&[session("s-1")], &[command("c-1")])).calls;
    assert!(calls.iter().all(|c| c.optional() && c.idempotent() && !c.widens()));
}

#[test]
fn what_one_read_shows_ends_though_the_other_fails_and_it_is_not_in_force() {
    let error = |class| AwsError {
        class,
        operation: "ssm:DescribeSessions".into(),
        code: "AccessDeniedException".into(),
        message: "no".into(),
    };
    for (class, state) in [(Class::Denied, ActionState::Failed), (Class::Transient, ActionState::InProgress)] {
        let mut look = look(&[], &[command("c-1")]);
        look.unread = Some(error(class));
        let plan = contain(&known(), &look);
        assert_eq!((plan.calls.len(), plan.verdict.state), (1, state));
        look.commands.clear();
        let plan = contain(&case(), &look);
        assert!(plan.is_done(), "what was there at first is not known yet: {plan:?}");
        assert!(plan.verdict.state == state && plan.verdict.message.contains("ssm:DescribeSessions"));
    }
}

#[test]
fn only_what_is_on_this_instance_is_seen_and_once() {
    let elsewhere = OpenSession { target: "i-2".into(), ..session("s-2") };
    let other = OpenCommand { target: "i-2".into(), ..command("c-1") };
    let mut look = look(&[], &[]);
    look.see("i-1", &[session("s-1"), elsewhere], vec![command("c-1"), other, command("c-1")]);
    assert_eq!((look.sessions, look.commands), (vec![session("s-1")], vec![command("c-1")]));
}

#[test]
fn an_instance_that_aws_does_not_show_is_not_contained() {
    let plan = contain(&case(), &Look::default());
    assert!(plan.is_done() && plan.verdict.state == ActionState::Failed);
    let mut ended = look(&[], &[]);
    ended.instance.as_mut().unwrap().state = "terminated".into();
    let plan = contain(&case(), &ended);
    assert!(plan.record.contains_key("instance/ended") && plan.verdict.state == ActionState::InForce);
}

#[test]
fn a_release_gives_nothing_back_whatever_is_open() {
    for look in [Look::default(), look(&[session("s-1")], &[command("c-1")])] {
        let plan = SystemsManager::release(&known(), &look);
        assert!(plan.is_done() && plan.verdict.state == ActionState::Released && !plan.verdict.message.is_empty());
    }
}

#[test]
fn nobody_begins_again_before_access_is_given_back() {
    let place = |stage| Stage::ALL.iter().position(|s| *s == stage);
    assert!(place(SystemsManager::STAGE) > place(Stage::Access));
}
