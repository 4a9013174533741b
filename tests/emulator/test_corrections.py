"""One test per correction, over HTTP: python -m unittest, with PYTHONPATH as `make test` sets it."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
import unittest
from http.client import HTTPConnection
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

HERE = Path(__file__).parent


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start_server(port):
    settings = {"MOTO_EC2_LOAD_DEFAULT_AMIS": "false", "MOTO_IAM_LOAD_MANAGED_POLICIES": "true"}
    command = [sys.executable, "-m", "firebreak_moto", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, cwd=HERE, env=os.environ | settings, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return server
        except OSError:
            time.sleep(0.05)
    server.kill()
    raise TimeoutError("the emulator did not start")


class Corrections(unittest.TestCase):
    """Every test has an account, named by its access key's AssumeRole, of its own."""

    accounts = 100000000000

    @classmethod
    def setUpClass(cls):
        cls.port = free_port()
        cls.server = start_server(cls.port)
        cls.addClassCleanup(cls.server.wait)
        cls.addClassCleanup(cls.server.kill)

    def setUp(self):
        Corrections.accounts += 1
        role = f"arn:aws:iam::{Corrections.accounts}:role/test"
        keys = self.client("sts", "test", "test").assume_role(RoleArn=role, RoleSessionName="test")["Credentials"]
        of_account = keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"]
        self.ec2, self.iam = self.client("ec2", *of_account), self.client("iam", *of_account)
        self.elbv2 = self.client("elbv2", *of_account)
        self.ssm = self.client("ssm", *of_account)
        self.vpc = self.ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        self.subnet = self.ec2.create_subnet(VpcId=self.vpc, CidrBlock="10.0.0.0/24")["Subnet"]["SubnetId"]

    def client(self, service, key, secret, token=None):
        return boto3.client(
            service,
            region_name="eu-west-1",
            endpoint_url=f"http://127.0.0.1:{self.port}",
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            aws_session_token=token,
            config=Config(retries={"total_max_attempts": 1}),
        )

    def group(self, name):
        return self.ec2.create_security_group(GroupName=name, Description=name, VpcId=self.vpc)["GroupId"]

    def instance(self, *groups):
        """An instance with one interface for each of `groups`, and two volumes."""
        interfaces = [
            {"DeviceIndex": index, "SubnetId": self.subnet, "Groups": [group]} for index, group in enumerate(groups)
        ]
        volumes = [{"DeviceName": name, "Ebs": {"VolumeSize": 1}} for name in ("/dev/sda1", "/dev/sdb")]
        answer = self.ec2.run_instances(
            ImageId="ami-1", MinCount=1, MaxCount=1, NetworkInterfaces=interfaces, BlockDeviceMappings=volumes
        )
        return answer["Instances"][0]["InstanceId"]

    def interfaces(self, instance):
        found = self.ec2.describe_network_interfaces(Filters=by("attachment.instance-id", instance))
        return sorted(found["NetworkInterfaces"], key=lambda nic: nic["Attachment"]["DeviceIndex"])

    def assert_refused(self, code, call, **parameters):
        with self.assertRaises(ClientError) as caught:
            call(**parameters)
        self.assertEqual(caught.exception.response["Error"]["Code"], code)

    def test_interface_groups_are_what_was_last_set(self):
        web, cut = self.group("web"), self.group("cut")
        instance = self.instance(web, web)
        first, second = [nic["NetworkInterfaceId"] for nic in self.interfaces(instance)]
        self.ec2.modify_network_interface_attribute(NetworkInterfaceId=first, Groups=[cut])
        self.assertEqual([group_ids(nic) for nic in self.interfaces(instance)], [[cut], [web]])
        shown = self.ec2.describe_instances(Filters=by("instance-id", instance))["Reservations"][0]["Instances"][0]
        self.assertEqual([group["GroupId"] for group in shown["SecurityGroups"]], [cut])
        self.assertEqual([group_ids(nic) for nic in shown["NetworkInterfaces"]], [[cut], [web]])
        found = self.ec2.describe_network_interfaces(Filters=by("network-interface-id", second))
        self.assertEqual(group_ids(found["NetworkInterfaces"][0]), [web])
        swap = self.ec2.modify_network_interface_attribute
        self.assert_refused("InvalidGroup.NotFound", swap, NetworkInterfaceId=first, Groups=["sg-0123456789abcdef0"])

    def test_connection_tracking_is_kept(self):
        instance = self.instance(self.group("web"))
        nic = self.interfaces(instance)[0]["NetworkInterfaceId"]
        wanted = {"TcpEstablishedTimeout": 60, "UdpStreamTimeout": 60}
        self.ec2.modify_network_interface_attribute(NetworkInterfaceId=nic, ConnectionTrackingSpecification=wanted)
        self.assertEqual(self.interfaces(instance)[0]["ConnectionTrackingConfiguration"], wanted)

    def test_addresses_are_assigned_by_the_interface(self):
        nic = self.interfaces(self.instance(self.group("web")))[0]["NetworkInterfaceId"]
        shown = lambda: self.ec2.describe_network_interfaces(NetworkInterfaceIds=[nic])["NetworkInterfaces"][0].get("Association")
        self.assertIsNone(shown())
        self.ec2.modify_network_interface_attribute(NetworkInterfaceId=nic, AssociatePublicIpAddress=True)
        self.assertNotIn("AllocationId", shown())
        allocation = self.ec2.allocate_address(Domain="vpc")["AllocationId"]
        association = self.ec2.associate_address(AllocationId=allocation, NetworkInterfaceId=nic)["AssociationId"]
        self.assertEqual(shown()["AllocationId"], allocation)
        self.ec2.disassociate_address(AssociationId=association)
        self.assertNotIn("AllocationId", shown())
        self.ec2.modify_network_interface_attribute(NetworkInterfaceId=nic, AssociatePublicIpAddress=False)
        self.assertIsNone(shown())

    def test_groups_of_many_interfaces_are_refused(self):
        web, cut = self.group("web"), self.group("cut")
        one, two = self.instance(web), self.instance(web, web)
        self.ec2.modify_instance_attribute(InstanceId=one, Groups=[cut])
        self.assertEqual(group_ids(self.interfaces(one)[0]), [cut])
        self.assert_refused("InvalidInstanceID", self.ec2.modify_instance_attribute, InstanceId=two, Groups=[cut])

    def test_shutdown_behaviour_is_set(self):
        instance = self.instance(self.group("web"))
        self.ec2.modify_instance_attribute(
            InstanceId=instance, InstanceInitiatedShutdownBehavior={"Value": "terminate"}
        )
        attribute = "instanceInitiatedShutdownBehavior"
        shown = self.ec2.describe_instance_attribute(InstanceId=instance, Attribute=attribute)
        self.assertEqual(shown["InstanceInitiatedShutdownBehavior"]["Value"], "terminate")
        self.assertEqual(len(self.interfaces(instance)[0]["Groups"]), 1)

    def test_spot_instances_have_no_protection(self):
        spot = {"MarketType": "spot"}
        run = {"ImageId": "ami-1", "MinCount": 1, "MaxCount": 1, "SubnetId": self.subnet}
        bought = self.ec2.run_instances(**run, InstanceMarketOptions=spot)["Instances"][0]["InstanceId"]
        modify = self.ec2.modify_instance_attribute
        self.assert_refused("UnsupportedOperation", modify, InstanceId=bought, DisableApiTermination={"Value": True})
        self.assert_refused("UnsupportedOperation", modify, InstanceId=bought, DisableApiStop={"Value": True})
        modify(InstanceId=self.instance(self.group("web")), DisableApiTermination={"Value": True})

    def test_metadata_options_not_named_are_kept(self):
        instance = self.instance(self.group("web"))
        modify = self.ec2.modify_instance_metadata_options
        modify(InstanceId=instance, HttpTokens="required", HttpPutResponseHopLimit=3)
        modify(InstanceId=instance, HttpEndpoint="disabled")
        shown = self.ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]["MetadataOptions"]
        self.assertEqual((shown["HttpEndpoint"], shown["HttpTokens"]), ("disabled", "required"))
        self.assertEqual(shown["HttpPutResponseHopLimit"], 3)

    def test_instances_are_found_by_their_interfaces(self):
        web, other = self.group("web"), self.group("other")
        instance, _ = self.instance(web, other), self.instance(web)
        nic = self.interfaces(instance)[1]["NetworkInterfaceId"]
        for name, value in [("network-interface.network-interface-id", nic), ("network-interface.group-id", other)]:
            found = self.ec2.describe_instances(Filters=by(name, value))["Reservations"]
            self.assertEqual([i["InstanceId"] for r in found for i in r["Instances"]], [instance])

    def test_instances_are_found_by_their_profile(self):
        instance, _ = self.instance(self.group("web")), self.instance(self.group("other"))
        profile = self.iam.create_instance_profile(InstanceProfileName="web")["InstanceProfile"]["Arn"]
        self.ec2.associate_iam_instance_profile(InstanceId=instance, IamInstanceProfile={"Arn": profile})
        for value, expected in [(profile, [instance]), (profile + "x", [])]:
            found = self.ec2.describe_instances(Filters=by("iam-instance-profile.arn", value))["Reservations"]
            self.assertEqual([i["InstanceId"] for r in found for i in r["Instances"]], expected)

    def test_group_in_use_cannot_be_deleted(self):
        used, named, free = self.group("used"), self.group("named"), self.group("free")
        instance = self.instance(used)
        peer = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": named}]}
        self.ec2.authorize_security_group_ingress(GroupId=free, IpPermissions=[peer])
        self.assert_refused("DependencyViolation", self.ec2.delete_security_group, GroupId=used)
        self.assert_refused("DependencyViolation", self.ec2.delete_security_group, GroupId=named)
        self.ec2.terminate_instances(InstanceIds=[instance])
        for group in (used, free, named):
            self.ec2.delete_security_group(GroupId=group)

    def test_snapshots_are_pending_first(self):
        instance = self.instance(self.group("web"))
        tags = [{"ResourceType": "snapshot", "Tags": [{"Key": "evidence", "Value": "uid-1"}]}]
        made = self.ec2.create_snapshots(
            InstanceSpecification={"InstanceId": instance}, Description="evidence uid-1 of web", TagSpecifications=tags
        )["Snapshots"]
        self.assertEqual([(s["State"], s["Tags"][0]["Value"]) for s in made], [("pending", "uid-1")] * 2)
        looks = [self.snapshots(by("description", "*uid-1*")) for _ in range(3)]
        states = [{snapshot["State"] for snapshot in look} for look in looks]
        self.assertEqual(states, [{"pending"}, {"completed"}, {"completed"}])
        self.assertEqual(self.snapshots(by("description", "*uid-2*")), [])

    def snapshots(self, filters):
        return self.ec2.describe_snapshots(OwnerIds=["self"], Filters=filters)["Snapshots"]

    def test_a_test_decides_when_snapshots_complete(self):
        self.set_transition({"progression": "manual", "times": 3})
        self.addCleanup(self.set_transition, {"progression": "manual", "times": 2})
        self.ec2.create_snapshots(InstanceSpecification={"InstanceId": self.instance(self.group("web"))})
        looks = [len(self.snapshots(by("status", "completed"))) for _ in range(3)]
        self.assertEqual(looks, [0, 0, 2])

    def set_transition(self, transition):
        body = {"model_name": "ec2::snapshot", "transition": transition}
        connection = HTTPConnection("127.0.0.1", self.port)
        path = "/moto-api/state-manager/set-transition"
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        self.assertLess(connection.getresponse().status, 300)
        connection.close()

    def test_ways_besides_the_groups_exist(self):
        status = lambda: self.ec2.get_serial_console_access_status()["SerialConsoleAccessEnabled"]
        self.assertFalse(status())
        self.ec2.enable_serial_console_access()
        self.assertTrue(status())
        self.ec2.disable_serial_console_access()
        self.assertFalse(status())
        made = self.ec2.create_instance_connect_endpoint(SubnetId=self.subnet)["InstanceConnectEndpoint"]
        for vpc, ids in [(self.vpc, [made["InstanceConnectEndpointId"]]), ("vpc-0", [])]:
            found = self.ec2.describe_instance_connect_endpoints(Filters=by("vpc-id", vpc))["InstanceConnectEndpoints"]
            self.assertEqual([endpoint["InstanceConnectEndpointId"] for endpoint in found], ids)

    def test_describe_calls_page(self):
        web = self.group("web")
        instances = [self.instance(web, web, web), self.instance(web, web, web)]
        for instance in instances:
            self.ec2.create_snapshots(InstanceSpecification={"InstanceId": instance})
        for port in range(3):
            rule = {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "IpRanges": [{"CidrIp": "10.0.0.0/8"}]}
            self.ec2.authorize_security_group_ingress(GroupId=web, IpPermissions=[rule])
        self.assert_pages("describe_network_interfaces", "NetworkInterfaces", by("vpc-id", self.vpc), [5, 1])
        self.assert_pages("describe_security_groups", "SecurityGroups", by("vpc-id", self.vpc), [2])
        self.assert_pages("describe_security_group_rules", "SecurityGroupRules", by("group-id", web), [4])
        self.assert_pages("describe_snapshots", "Snapshots", by("volume-size", "1"), [4])
        describe = self.ec2.describe_security_groups
        self.assert_refused("InvalidParameterCombination", describe, GroupIds=[web], MaxResults=5)

    def assert_pages(self, call, key, filters, sizes):
        pages = self.ec2.get_paginator(call).paginate(Filters=filters, PaginationConfig={"PageSize": 5})
        self.assertEqual([len(page[key]) for page in pages], sizes)

    def test_targets_have_ports_and_drain(self):
        instance = self.instance(self.group("web"))
        made = self.elbv2.create_target_group(Name="web", Protocol="TCP", Port=80, VpcId=self.vpc)["TargetGroups"][0]
        group = made["TargetGroupArn"]
        first, second = [{"Id": instance, "Port": port} for port in (80, 8080)]
        self.elbv2.register_targets(TargetGroupArn=group, Targets=[first, second])
        address = {"Id": "10.0.0.9", "Port": 80, "AvailabilityZone": "us-east-1a"}
        self.elbv2.register_targets(TargetGroupArn=group, Targets=[address])
        self.assertEqual(self.targets(group), [(first, "healthy"), (second, "healthy"), (address, "healthy")])
        self.elbv2.deregister_targets(TargetGroupArn=group, Targets=[first])
        looks = [[state for target, state in self.targets(group) if target == first] for _ in range(3)]
        self.assertEqual(looks, [["draining"], ["draining"], []])
        self.assert_refused(
            "InvalidTarget", self.elbv2.deregister_targets, TargetGroupArn=group, Targets=[first]
        )
        self.elbv2.register_targets(TargetGroupArn=group, Targets=[first])
        self.assertIn((first, "healthy"), self.targets(group))

    def targets(self, group):
        shown = self.elbv2.describe_target_health(TargetGroupArn=group)["TargetHealthDescriptions"]
        return [(target["Target"], target["TargetHealth"]["State"]) for target in shown]

    def test_requests_are_atomic(self):
        failures = []

        def make_groups(start):
            try:
                for number in range(start, start + 10):
                    self.group(f"group-{number}")
                    self.ec2.describe_security_groups(Filters=by("vpc-id", self.vpc))
            except ClientError as error:
                failures.append(error)

        threads = [threading.Thread(target=make_groups, args=[10 * n]) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])

    def test_accounts_have_few_managed_policies(self):
        names = [policy["PolicyName"] for policy in self.iam.list_policies(Scope="AWS")["Policies"]]
        self.assertEqual(len(names), 4)
        self.assertIn("AWSDenyAll", names)

    def test_service_credentials_exist(self):
        self.iam.create_user(UserName="mallory")
        create = self.iam.create_service_specific_credential
        services = ["codecommit.amazonaws.com", "bedrock.amazonaws.com", "bedrock.amazonaws.com"]
        made = [create(UserName="mallory", ServiceName=s)["ServiceSpecificCredential"] for s in services]
        ids = [one["ServiceSpecificCredentialId"] for one in made]
        self.assert_refused("LimitExceeded", create, UserName="mallory", ServiceName="bedrock.amazonaws.com")
        update, delete = self.iam.update_service_specific_credential, self.iam.delete_service_specific_credential
        update(UserName="mallory", ServiceSpecificCredentialId=ids[0], Status="Inactive")
        delete(UserName="mallory", ServiceSpecificCredentialId=ids[1])
        self.assert_refused("NoSuchEntity", delete, UserName="mallory", ServiceSpecificCredentialId=ids[1])
        self.assertEqual(self.service_credentials(), {ids[0]: "Inactive", ids[2]: "Active"})
        self.assertEqual(self.service_credentials(ServiceName="bedrock.amazonaws.com"), {ids[2]: "Active"})
        list_of = self.iam.list_service_specific_credentials
        self.assert_refused("NoSuchEntity", list_of, UserName="nobody")

    def test_an_api_key_of_bedrock_expires(self):
        self.iam.create_user(UserName="mallory")
        made = self.iam.create_service_specific_credential(
            UserName="mallory", ServiceName="bedrock.amazonaws.com", CredentialAgeDays=30
        )["ServiceSpecificCredential"]
        self.assertEqual((made["ExpirationDate"] - made["CreateDate"]).days, 30)

    def service_credentials(self, **more):
        """The status of each of mallory's, one page after the other."""
        found, marker = {}, {}
        while True:
            page = self.iam.list_service_specific_credentials(UserName="mallory", **more, **marker)
            self.assertLessEqual(len(page["ServiceSpecificCredentials"]), 1)
            found |= {c["ServiceSpecificCredentialId"]: c["Status"] for c in page["ServiceSpecificCredentials"]}
            if not page["IsTruncated"]:
                return found
            marker = {"Marker": page["Marker"]}

    def test_sessions_exist(self):
        first, second = self.instance(self.group("web")), self.instance(self.group("other"))
        mine, too, other = [self.session(target) for target in (first, first, second)]
        self.assertEqual(self.sessions(), {mine: "Connected", too: "Connected", other: "Connected"})
        self.assertEqual(self.sessions(Filters=[{"key": "Target", "value": second}]), {other: "Connected"})
        self.ssm.terminate_session(SessionId=mine)
        self.ssm.terminate_session(SessionId="nobody-0")
        looks = [self.sessions() for _ in range(2)]
        self.assertEqual(looks, [{mine: "Terminating", too: "Connected", other: "Connected"}, {too: "Connected", other: "Connected"}])
        self.assertEqual(self.sessions(State="History"), {mine: "Terminated"})
        self.assert_refused("TargetNotConnected", self.ssm.start_session, Target="i-0123456789abcdef0")

    def session(self, target):
        return self.ssm.start_session(Target=target)["SessionId"]

    def sessions(self, State="Active", **more):
        """The status of each, one page after the other."""
        pages = self.ssm.get_paginator("describe_sessions").paginate(State=State, **more)
        found = [page["Sessions"] for page in pages]
        self.assertTrue(all(len(page) <= 1 for page in found))
        self.assertTrue(all(one["Owner"].endswith("assumed-role/test/test") for page in found for one in page))
        return {one["SessionId"]: one["Status"] for page in found for one in page}

    def test_commands_run_until_they_are_cancelled(self):
        first, second = self.instance(self.group("web")), self.instance(self.group("other"))
        both = self.ssm.send_command(DocumentName="AWS-RunShellScript", InstanceIds=[first, second])["Command"]["CommandId"]
        one = self.ssm.send_command(DocumentName="AWS-RunShellScript", InstanceIds=[second])["Command"]["CommandId"]
        every = {(both, first), (both, second), (one, second)}
        self.assertEqual([self.commands("InProgress"), self.commands("Pending"), self.commands("Pending")], [set(), every, set()])
        self.ssm.cancel_command(CommandId=both, InstanceIds=[second])
        self.assertEqual(self.commands("InProgress"), {(both, first), (one, second)})
        self.assertEqual(self.commands("InProgress", InstanceId=first), {(both, first)})
        self.ssm.cancel_command(CommandId=both)
        self.assertEqual(self.commands("Cancelled"), {(both, first), (both, second)})
        self.assert_refused("InvalidCommandId", self.ssm.cancel_command, CommandId="0" * 36)
        listing = {"InstanceId": first, "Filters": [{"key": "Status", "value": "Pending"}]}
        self.assert_refused("InvalidInstanceId", self.ssm.list_command_invocations, **listing)

    def commands(self, status, **more):
        """Which commands have that status, and where, one page after the other."""
        filters = [{"key": "Status", "value": status}]
        pages = self.ssm.get_paginator("list_command_invocations").paginate(Filters=filters, **more)
        found = [page["CommandInvocations"] for page in pages]
        self.assertTrue(all(len(page) <= 1 for page in found))
        return {(one["CommandId"], one["InstanceId"]) for page in found for one in page}

    def test_users_have_boundaries(self):
        deny_all = "arn:aws:iam::aws:policy/AWSDenyAll"
        self.iam.create_user(UserName="mallory")
        put = self.iam.put_user_permissions_boundary
        put(UserName="mallory", PermissionsBoundary=deny_all)
        shown = self.iam.get_user(UserName="mallory")["User"]["PermissionsBoundary"]
        self.assertEqual(shown["PermissionsBoundaryArn"], deny_all)
        nowhere = "arn:aws:iam::aws:policy/Nowhere"
        self.assert_refused("NoSuchEntity", put, UserName="mallory", PermissionsBoundary=nowhere)
        self.iam.delete_user_permissions_boundary(UserName="mallory")
        self.assertNotIn("PermissionsBoundary", self.iam.get_user(UserName="mallory")["User"])
        self.assert_refused("NoSuchEntity", self.iam.delete_user_permissions_boundary, UserName="mallory")

    def test_keys_are_told_apart_by_account(self):
        here, elsewhere = (f"{Corrections.accounts + n}" for n in (0, 1))
        Corrections.accounts += 1
        self.iam.create_user(UserName="mallory")
        own = self.iam.create_access_key(UserName="mallory")["AccessKey"]["AccessKeyId"]
        role = f"arn:aws:iam::{elsewhere}:role/test"
        given = self.client("sts", "test", "test").assume_role(RoleArn=role, RoleSessionName="test")["Credentials"]
        far = self.client("iam", given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"])
        far.create_user(UserName="mallory")
        foreign = far.create_access_key(UserName="mallory")["AccessKey"]["AccessKeyId"]
        account = lambda key: self.client("sts", "test", "test").get_access_key_info(AccessKeyId=key)["Account"]
        self.assertEqual([account(own), account(foreign)], [here, elsewhere])
        used = self.iam.get_access_key_last_used
        self.assertEqual(used(AccessKeyId=own)["UserName"], "mallory")
        self.assert_refused("AccessDenied", used, AccessKeyId=foreign)
        self.iam.delete_access_key(UserName="mallory", AccessKeyId=own)
        self.assertEqual(account(own), here)
        self.assert_refused("AccessDenied", used, AccessKeyId=own)

    def test_login_profiles_have_a_date_of_their_own(self):
        self.iam.create_user(UserName="mallory")
        first = self.new_password()
        self.iam.delete_login_profile(UserName="mallory")
        self.assert_refused("NoSuchEntity", self.iam.get_login_profile, UserName="mallory")
        self.assertGreater(self.new_password(), first)

    def new_password(self):
        """Makes one, and says when it was made: when it is made as well as later."""
        made = self.iam.create_login_profile(UserName="mallory", Password="correct-Horse-1")["LoginProfile"]
        shown = self.iam.get_login_profile(UserName="mallory")["LoginProfile"]
        self.assertEqual(made["CreateDate"], shown["CreateDate"])
        return shown["CreateDate"]

    def profile(self, name):
        """An instance profile with a role in it, both of that name."""
        arn = self.iam.create_instance_profile(InstanceProfileName=name)["InstanceProfile"]["Arn"]
        trust = {"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}]}
        self.iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))
        self.iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
        return arn

    def associations(self, instance):
        answer = self.ec2.describe_iam_instance_profile_associations(Filters=by("instance-id", instance))
        return {a["AssociationId"]: a["IamInstanceProfile"]["Arn"] for a in answer["IamInstanceProfileAssociations"]}

    def test_replaced_profiles_are_new_associations(self):
        web, other = self.profile("web"), self.profile("other")
        instance = self.instance(self.group("g"))
        self.ec2.associate_iam_instance_profile(InstanceId=instance, IamInstanceProfile={"Arn": web})
        (first,) = self.associations(instance)
        replace = self.ec2.replace_iam_instance_profile_association
        new = replace(AssociationId=first, IamInstanceProfile={"Arn": other})["IamInstanceProfileAssociation"]["AssociationId"]
        self.assertNotEqual(new, first)
        self.assertEqual(self.associations(instance), {new: other})
        shown = self.ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
        self.assertEqual(shown["IamInstanceProfile"]["Arn"], other)
        self.assert_refused("InvalidAssociationID.NotFound", replace, AssociationId=first, IamInstanceProfile={"Arn": web})
        self.ec2.stop_instances(InstanceIds=[instance])
        self.assert_refused("IncorrectInstanceState", replace, AssociationId=new, IamInstanceProfile={"Arn": web})
        self.ec2.disassociate_iam_instance_profile(AssociationId=new)
        self.assertEqual(self.associations(instance), {})
        self.ec2.associate_iam_instance_profile(InstanceId=instance, IamInstanceProfile={"Arn": web})
        self.assertEqual(list(self.associations(instance).values()), [web])

    def test_unknown_profiles_are_an_error_of_ec2(self):
        instance = self.instance(self.group("g"))
        nobody = {"Name": "nobody"}
        associate = self.ec2.associate_iam_instance_profile
        self.assert_refused("InvalidParameterValue", associate, InstanceId=instance, IamInstanceProfile=nobody)

    def test_inline_policies_of_a_role_have_a_quota(self):
        self.profile("web")

        def put(name, ids):
            deny = {"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": {"StringEquals": {"aws:userid": ["x" * 40] * ids}}}
            document = json.dumps({"Version": "2012-10-17", "Statement": [deny]}, indent=8)
            self.iam.put_role_policy(RoleName="web", PolicyName=name, PolicyDocument=document)

        put("a", 100)
        put("a", 220)
        self.assert_refused("LimitExceeded", put, name="a", ids=300)
        self.assert_refused("LimitExceeded", put, name="b", ids=130)
        put("a", 100)
        put("b", 100)

    def test_inline_policies_of_a_user_have_a_quota(self):
        self.iam.create_user(UserName="mallory")

        def put(name, size):
            bare = {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "*", "Resource": "arn:aws:s3:::"}]}
            length = len("".join(json.dumps(bare).split()))
            bare["Statement"][0]["Resource"] += "x" * (size - length)
            self.iam.put_user_policy(UserName="mallory", PolicyName=name, PolicyDocument=json.dumps(bare, indent=8))

        put("a", 1000)
        put("b", 1048)
        self.assert_refused("LimitExceeded", put, name="b", size=1049)
        self.assert_refused("LimitExceeded", put, name="c", size=100)
        self.iam.delete_user_policy(UserName="mallory", PolicyName="a")
        put("c", 1000)

    def test_iam_has_what_a_containment_uses(self):
        """Not corrected: proof that moto's own IAM will do."""
        deny_all = "arn:aws:iam::aws:policy/AWSDenyAll"
        self.iam.create_user(UserName="mallory")
        self.iam.attach_user_policy(UserName="mallory", PolicyArn=deny_all)
        self.iam.put_user_policy(UserName="mallory", PolicyName="deny", PolicyDocument=json.dumps(DENY))
        attached = self.iam.list_attached_user_policies(UserName="mallory")["AttachedPolicies"]
        self.assertEqual([policy["PolicyArn"] for policy in attached], [deny_all])
        self.assertEqual(self.iam.get_user_policy(UserName="mallory", PolicyName="deny")["PolicyDocument"], DENY)


DENY = {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "*", "Resource": "*"}]}


def by(name, value):
    return [{"Name": name, "Values": [value]}]


def group_ids(interface):
    return [group["GroupId"] for group in interface["Groups"]]


if __name__ == "__main__":
    unittest.main()
