use std::time::Instant;

use super::*;

fn judged(action: &str, params: &[(&str, &str)]) -> Needs {
    let groups =
        [("sg-i", "firebreak-isolation"), ("sg-c", "firebreak-conversion"), ("sg-l", "firebreak-isolation-0000002a")];
    let params = params.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let (service, action) = (String::new(), action.to_owned());
    let call = Call { seq: 0, started: Instant::now(), finished: None, service, action, params, status: None, error: None };
    needs(&call, &groups.map(|(k, v)| (k.to_owned(), v.to_owned())).into(), "2026-03-01T12:00:00Z".parse().unwrap())
}

fn swapped(groups: &[(&str, &str)]) -> Needs {
    judged("ModifyNetworkInterfaceAttribute", &[&[("NetworkInterfaceId", "eni-1")], groups].concat())
}

#[test]
fn only_the_isolation_group_alone_needs_no_leave() {
    assert_eq!(swapped(&[("SecurityGroupId.1", "sg-i")]), Needs::Nothing);
    assert_eq!(swapped(&[("SecurityGroupId.1", "sg-c")]), Needs::OpenWindow("eni-1".into()));
    let web = Needs::OwnGroupOrRelease { interface: "eni-1".into(), group: "sg-web".into() };
    assert_eq!(swapped(&[("SecurityGroupId.1", "sg-web")]), web);
    assert_eq!(swapped(&[("SecurityGroupId.1", "sg-i"), ("SecurityGroupId.2", "sg-c")]), Needs::Release("eni-1".into()));
    assert!(matches!(swapped(&[("SourceDestCheck.Value", "false")]), Needs::Never(_)));
}

#[test]
fn idle_flows_are_forgotten_sooner_without_leave_and_later_only_after_a_release() {
    let [tcp, udp] = ["TcpEstablishedTimeout", "UdpStreamTimeout"].map(|t| format!("ConnectionTrackingSpecification.{t}"));
    assert_eq!(swapped(&[(tcp.as_str(), "60"), (udp.as_str(), "60")]), Needs::Nothing);
    assert_eq!(swapped(&[(tcp.as_str(), "432000"), (udp.as_str(), "60")]), Needs::Release("eni-1".into()));
    assert_eq!(swapped(&[(tcp.as_str(), "60")]), Needs::Release("eni-1".into()));
}

#[test]
fn somebody_elses_groups_are_not_edited() {
    assert_eq!(judged("RevokeSecurityGroupEgress", &[("GroupId", "sg-i")]), Needs::Nothing);
    assert_eq!(judged("AuthorizeSecurityGroupIngress", &[("GroupId", "sg-c")]), Needs::Nothing);
    assert!(matches!(judged("AuthorizeSecurityGroupIngress", &[("GroupId", "sg-i")]), Needs::Never(_)));
    assert!(matches!(judged("RevokeSecurityGroupIngress", &[("GroupId", "sg-web")]), Needs::Never(_)));
}

#[test]
fn an_allow_list_opens_only_what_the_holders_list() {
    assert_eq!(swapped(&[("SecurityGroupId.1", "sg-l")]), Needs::AllowList("eni-1".into()));
    let rule = |peer: &str, value: &str| {
        let peer = format!("IpPermissions.1.{peer}");
        let ports = [("GroupId", "sg-l"), ("IpPermissions.1.IpProtocol", "tcp"), ("IpPermissions.1.FromPort", "22")];
        judged("AuthorizeSecurityGroupIngress", &[&ports[..], &[(peer.as_str(), value)]].concat())
    };
    assert_eq!(rule("IpRanges.1.CidrIp", "10.0.0.5/32"), Needs::Allowed(vec!["10.0.0.5/32".into()]));
    assert!(matches!(rule("IpRanges.1.CidrIp", "0.0.0.0/0"), Needs::Never(_)));
    assert!(matches!(rule("Ipv6Ranges.1.CidrIpv6", "::/0"), Needs::Never(_)));
    assert!(matches!(rule("Groups.1.GroupId", "sg-web"), Needs::Never(_)));
    assert_eq!(judged("RevokeSecurityGroupIngress", &[("GroupId", "sg-l")]), Needs::Nothing);
}

#[test]
fn an_instance_may_be_destroyed_only_after_a_release() {
    let set = |params: &[(&str, &str)]| judged("ModifyInstanceAttribute", &[&[("InstanceId", "i-1")], params].concat());
    let volume = |delete| {
        set(&[("BlockDeviceMapping.1.DeviceName", "/dev/sda1"), ("BlockDeviceMapping.1.Ebs.DeleteOnTermination", delete)])
    };
    assert_eq!(set(&[("DisableApiTermination.Value", "true")]), Needs::Nothing);
    assert_eq!(set(&[("DisableApiTermination.Value", "false")]), Needs::Release("i-1".into()));
    assert_eq!(set(&[("DisableApiStop.Value", "false")]), Needs::StopOrRelease("i-1".into()));
    assert_eq!(set(&[("InstanceInitiatedShutdownBehavior.Value", "stop")]), Needs::Nothing);
    assert_eq!(set(&[("InstanceInitiatedShutdownBehavior.Value", "terminate")]), Needs::Release("i-1".into()));
    assert_eq!((volume("false"), volume("true")), (Needs::Nothing, Needs::Release("i-1".into())));
    assert!(matches!(set(&[("UserData.Value", "x")]), Needs::Never(_)) && matches!(set(&[]), Needs::Never(_)));
}

#[test]
fn an_instance_is_ended_only_where_it_is_decided_and_runs_again_only_after_a_release() {
    let end = |action, params: &[(&str, &str)]| judged(action, &[&[("InstanceId.1", "i-1")], params].concat());
    for (action, name) in [("StopInstances", "stopInstance"), ("TerminateInstances", "terminateInstance")] {
        assert_eq!(end(action, &[("SkipOsShutdown", "true")]), Needs::Decided(name, "i-1".into()));
        assert!(matches!(end(action, &[]), Needs::Never(_)), "{action}");
        assert!(matches!(end(action, &[("SkipOsShutdown", "true"), ("InstanceId.2", "i-2")]), Needs::Never(_)));
    }
    assert_eq!(end("StartInstances", &[]), Needs::Release("i-1".into()));
}

#[test]
fn the_metadata_service_comes_back_only_in_a_release() {
    let set =
        |params: &[(&str, &str)]| judged("ModifyInstanceMetadataOptions", &[&[("InstanceId", "i-1")], params].concat());
    assert_eq!(set(&[("HttpEndpoint", "disabled")]), Needs::Nothing);
    assert_eq!(set(&[("HttpEndpoint", "enabled")]), Needs::Release("i-1".into()));
    assert!(matches!(set(&[("HttpTokens", "optional")]), Needs::Never(_)));
    assert!(matches!(set(&[("HttpEndpoint", "disabled"), ("HttpTokens", "optional")]), Needs::Never(_)));
}

#[test]
fn public_addresses_come_back_only_in_a_release_and_never_from_somebody() {
    let on = |value| swapped(&[("AssociatePublicIpAddress", value)]);
    assert_eq!((on("false"), on("true")), (Needs::Nothing, Needs::Release("eni-1".into())));
    let back = |value| judged("AssociateAddress", &[("NetworkInterfaceId", "eni-1"), ("AllowReassociation", value)]);
    assert_eq!(back("false"), Needs::Release("eni-1".into()));
    assert!(matches!(back("true"), Needs::Never(_)));
    assert_eq!(judged("DisassociateAddress", &[]), Needs::Nothing);
}

#[test]
fn a_users_deny_goes_only_in_a_release_and_a_residual_one_only_when_expired() {
    let delete = |policy| judged("DeleteUserPolicy", &[("UserName", "m"), ("PolicyName", policy)]);
    assert_eq!(delete("firebreak-deny-all"), Needs::Release("m".into()));
    assert_eq!(delete("firebreak-sessions-until-20260301T115959Z"), Needs::Nothing);
    assert!(matches!(delete("firebreak-sessions-until-20260301T120001Z"), Needs::Never(_)));
    assert!(matches!(delete("own"), Needs::Never(_)));
}

#[test]
fn a_users_credentials_go_on_only_in_a_release() {
    for action in ["UpdateSSHPublicKey", "UpdateServiceSpecificCredential", "UpdateSigningCertificate"] {
        let switched = |status| judged(action, &[("UserName", "m"), ("Status", status)]);
        assert_eq!((switched("Inactive"), switched("Active")), (Needs::Nothing, Needs::Release("m".into())), "{action}");
        assert_eq!(judged(action, &[("UserName", "m")]), Needs::Release("m".into()), "{action}");
    }
}

#[test]
fn an_access_key_goes_on_only_when_neither_it_nor_its_user_is_held() {
    let switched = |status| judged("UpdateAccessKey", &[("UserName", "m"), ("AccessKeyId", "AKIA1"), ("Status", status)]);
    let on = || Needs::KeyRelease { key: "AKIA1".into(), user: "m".into() };
    assert_eq!((switched("Inactive"), switched("Active")), (Needs::Nothing, on()));
    let held = |id: &str, holders: serde_json::Value| -> Quarantine {
        let resource = serde_json::json!({ "kind": "IamUser", "accountRef": { "name": "a" }, "accountId": "1", "id": id });
        let spec = serde_json::json!({ "resource": resource, "holders": holders });
        Quarantine::new(id, serde_json::from_value(spec).unwrap())
    };
    let asks = serde_json::json!([{
        "uid": "1", "namespace": "n", "name": "i", "state": "Holding", "actions": [{ "deactivateAccessKeys": {} }]
    }]);
    let nobody = || serde_json::json!([]);
    for (what, quarantines, right) in [
        ("both let go", vec![held("m", nobody()), held("AKIA1", nobody())], true),
        ("the key is held", vec![held("m", nobody()), held("AKIA1", asks.clone())], false),
        ("the user is held", vec![held("m", asks.clone()), held("AKIA1", nobody())], false),
        ("another is held", vec![held("m", nobody()), held("AKIA2", asks)], true),
        ("nobody released it", vec![], false),
    ] {
        assert_eq!(meets(&on(), Ok(quarantines), Ok(vec![])).is_ok(), right, "{what}");
    }
    let policy = ("PolicyName", "firebreak-revoke-sessions-AKIA1");
    assert_eq!(judged("DeleteUserPolicy", &[("UserName", "m"), policy]), Needs::Release("AKIA1".into()));
}

#[test]
fn a_roles_deny_goes_only_in_a_release_too() {
    let role = |action, more: (&str, &str)| judged(action, &[("RoleName", "build"), more]);
    let release = Needs::Release("build".into());
    assert_eq!(role("DeleteRolePolicy", ("PolicyName", "firebreak-deny-all")), release);
    assert_eq!(role("DetachRolePolicy", ("PolicyArn", "arn:aws:iam::aws:policy/AWSDenyAll")), release);
    assert_eq!(role("AttachRolePolicy", ("PolicyArn", "arn:aws:iam::aws:policy/AWSDenyAll")), Needs::Nothing);
    assert_eq!(role("DeleteRolePolicy", ("PolicyName", "firebreak-revoke-sessions")), release);
    let session = role("DeleteRolePolicy", ("PolicyName", "firebreak-deny-session-ci-job"));
    assert_eq!(session, Needs::Release("build/ci-job".into()));
    let ended = "firebreak-sessions-until-20260301T115959Z-ci-job";
    assert_eq!(role("DeleteRolePolicy", ("PolicyName", ended)), Needs::Nothing);
    let trust = |effect| role("UpdateAssumeRolePolicy", ("PolicyDocument", effect));
    assert_eq!((trust(r#"{"Effect":"Deny"}"#), trust(r#"{"Effect":"Allow"}"#)), (Needs::Nothing, release));
    assert!(matches!(role("DeleteRolePolicy", ("PolicyName", "own")), Needs::Never(_)));
    assert!(matches!(role("AttachRolePolicy", ("PolicyArn", "arn:aws:iam::aws:policy/Own")), Needs::Never(_)));
}

#[test]
fn a_boundary_that_does_not_deny_comes_only_with_a_release() {
    let put = |policy: &str| {
        let arn = format!("arn:aws:iam::aws:policy/{policy}");
        judged("PutUserPermissionsBoundary", &[("UserName", "m"), ("PermissionsBoundary", &arn)])
    };
    assert_eq!(put("AWSDenyAll"), Needs::Nothing);
    assert_eq!(put("AdministratorAccess"), Needs::Release("m".into()));
    assert_eq!(judged("DeleteUserPermissionsBoundary", &[("UserName", "m")]), Needs::Release("m".into()));
}

#[test]
fn an_instance_leaves_its_group_but_comes_back_only_in_a_release() {
    let call = |action, params: &[(&str, &str)]| judged(action, &[&[("InstanceIds.member.1", "i-1")], params].concat());
    for action in ["DetachInstances", "EnterStandby"] {
        assert_eq!(call(action, &[("ShouldDecrementDesiredCapacity", "false")]), Needs::Nothing);
        assert!(matches!(call(action, &[("ShouldDecrementDesiredCapacity", "true")]), Needs::Never(_)));
    }
    for action in ["AttachInstances", "ExitStandby"] {
        assert_eq!(call(action, &[]), Needs::Release("i-1".into()));
    }
    assert_eq!(call("SetInstanceProtection", &[("ProtectedFromScaleIn", "true")]), Needs::Nothing);
    assert_eq!(call("SetInstanceProtection", &[("ProtectedFromScaleIn", "false")]), Needs::Release("i-1".into()));
}

#[test]
fn an_instance_leaves_its_load_balancers_but_comes_back_only_in_a_release() {
    let call = |action| judged(action, &[("TargetGroupArn", "arn"), ("Instances.member.1.InstanceId", "i-1")]);
    assert_eq!(call("DeregisterTargets"), Needs::Nothing);
    assert_eq!(call("DeregisterInstancesFromLoadBalancer"), Needs::Nothing);
    assert_eq!(call("RegisterTargets"), Needs::Release("arn".into()));
    assert_eq!(call("RegisterInstancesWithLoadBalancer"), Needs::Release("i-1".into()));
}

#[test]
fn an_instance_gets_another_profile_than_ours_only_in_a_release() {
    let with = |profile| {
        let arn = format!("arn:aws:iam::1:instance-profile/{profile}");
        judged("AssociateIamInstanceProfile", &[("InstanceId", "i-1"), ("IamInstanceProfile.Arn", &arn)])
    };
    assert_eq!((with("firebreak-deny-all"), with("web")), (Needs::Nothing, Needs::Release("i-1".into())));
    assert_eq!(judged("CreateRole", &[("RoleName", "firebreak-deny-all")]), Needs::Nothing);
    assert!(matches!(judged("CreateRole", &[("RoleName", "admin")]), Needs::Never(_)));
    let add = |role| {
        let params = [("InstanceProfileName", "firebreak-deny-all"), ("RoleName", role)];
        (judged("AddRoleToInstanceProfile", &params), judged("RemoveRoleFromInstanceProfile", &params))
    };
    assert!(matches!(add("admin"), (Needs::Never(_), Needs::Nothing)));
}

#[test]
fn the_deny_of_one_instance_is_lifted_in_its_release_and_old_sessions_stay_denied() {
    let ids = |ids: &[&str]| format!(r#"{{"Effect":"Deny","Condition":{{"StringEquals":{{"aws:userid":{ids:?}}}}}}}"#);
    let old = |id: &str| ids(&[id]).replace(r#""StringEquals""#, r#""DateLessThan":{},"StringEquals""#);
    let text = |statements: &[String]| format!(r#"{{"Statement":[{}]}}"#, statements.join(","));
    let before = text(&[ids(&["A:i-1", "A:i-2"])]);
    let judged = |after: &str| {
        let params = [("RoleName", "web"), ("PolicyName", INSTANCES), ("PolicyDocument", after)];
        let params = params.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let (service, action) = (String::new(), "PutRolePolicy".to_owned());
        let (seq, started) = (0, Instant::now());
        lifts(&Call { seq, started, finished: None, service, action, params, status: None, error: None }, &before)
    };
    assert_eq!(judged(&text(&[ids(&["A:i-1", "A:i-2", "A:i-3"])])), Needs::Nothing);
    assert_eq!(judged(&text(&[ids(&["A:i-2"]), old("A:i-1")])), Needs::Release("i-1".into()));
    assert!(matches!(judged(&text(&[ids(&["A:i-2"])])), Needs::Never(_)));
    assert!(matches!(judged(&text(&[old("A:i-1")])), Needs::Never(_)));
    assert!(matches!(judged(&before.replace("Deny", "Allow")), Needs::Never(_)));
}

#[test]
fn a_command_is_cancelled_on_one_instance() {
    let cancelled = |on: &[(&str, &str)]| judged("CancelCommand", &[&[("CommandId", "c-1")], on].concat());
    assert_eq!(cancelled(&[("InstanceIds.1", "i-1")]), Needs::Nothing);
    assert!(matches!(cancelled(&[]), Needs::Never(_)));
    assert!(matches!(cancelled(&[("InstanceIds.1", "i-1"), ("InstanceIds.2", "i-2")]), Needs::Never(_)));
    assert_eq!(judged("TerminateSession", &[("SessionId", "s-1")]), Needs::Nothing);
    assert!(matches!(judged("SendCommand", &[]), Needs::Never(_)));
}

#[test]
fn a_password_may_go_and_may_not_be_made() {
    assert_eq!(judged("DeleteLoginProfile", &[("UserName", "m")]), Needs::Nothing);
    assert!(matches!(judged("CreateLoginProfile", &[("UserName", "m")]), Needs::Never(_)));
    assert!(matches!(judged("UpdateLoginProfile", &[("UserName", "m")]), Needs::Never(_)));
}

#[test]
fn what_is_not_on_the_list_is_wrong() {
    assert!(matches!(judged("RebootInstances", &[]), Needs::Never(_)));
    assert!(matches!(judged("DeleteTags", &[("Tag.1.Key", "Name")]), Needs::Never(_)));
    assert_eq!(judged("TagUser", &[("Tags.member.1.Key", "firebreak.dev/incident")]), Needs::Nothing);
}
