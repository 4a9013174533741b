"""What a careful responder's script does: the same job as Firebreak's main job, one call after the other.

    sequential.py ENDPOINT REGION INSTANCE USER     (credentials from the environment)

The order is the one that cuts the attacker off soonest. As with Firebreak, the isolation group was made ahead; waiters and
retries are boto3's own.
"""

import sys
import time

import boto3

ALL = [
    {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}], "Ipv6Ranges": [{"CidrIpv6": "::/0"}]},
]
DENY = '{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"*","Resource":"*"}]}'


def main(endpoint, region, instance_id, user):
    ec2 = boto3.client("ec2", endpoint_url=endpoint, region_name=region)
    iam = boto3.client("iam", endpoint_url=endpoint, region_name=region)

    instance = ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]
    vpc = instance["VpcId"]
    interfaces = instance["NetworkInterfaces"]
    originals = {i["NetworkInterfaceId"]: [g["GroupId"] for g in i["Groups"]] for i in interfaces}
    isolation = isolation_group(ec2, vpc)

    # New flows stop here.
    for interface in originals:
        ec2.modify_network_interface_attribute(NetworkInterfaceId=interface, Groups=[isolation])

    # The user is out.
    for key in iam.list_access_keys(UserName=user)["AccessKeyMetadata"]:
        iam.update_access_key(UserName=user, AccessKeyId=key["AccessKeyId"], Status="Inactive")
    iam.put_user_policy(UserName=user, PolicyName="deny-all", PolicyDocument=DENY)
    iam.attach_user_policy(UserName=user, PolicyArn="arn:aws:iam::aws:policy/AWSDenyAll")

    ec2.create_snapshots(
        InstanceSpecification={"InstanceId": instance_id, "ExcludeBootVolume": False}, Description="evidence"
    )

    # Tracked flows: through a group that allows all, and back.
    if has_internet_route(ec2, vpc):
        conversion = conversion_group(ec2, vpc)
        for interface in originals:
            ec2.modify_network_interface_attribute(NetworkInterfaceId=interface, Groups=[conversion])
        time.sleep(3)
        for interface in originals:
            ec2.modify_network_interface_attribute(NetworkInterfaceId=interface, Groups=[isolation])

    ec2.create_tags(Resources=[instance_id], Tags=[{"Key": "incident", "Value": "inc"}])
    iam.tag_user(UserName=user, Tags=[{"Key": "incident", "Value": "inc"}])

    # Did it work?
    for interface in ec2.describe_network_interfaces(NetworkInterfaceIds=list(originals))["NetworkInterfaces"]:
        assert [g["GroupId"] for g in interface["Groups"]] == [isolation], interface
    keys = iam.list_access_keys(UserName=user)["AccessKeyMetadata"]
    assert all(key["Status"] == "Inactive" for key in keys), keys


def isolation_group(ec2, vpc):
    filters = [{"Name": "vpc-id", "Values": [vpc]}, {"Name": "group-name", "Values": ["firebreak-isolation"]}]
    group = ec2.describe_security_groups(Filters=filters)["SecurityGroups"][0]
    assert not group["IpPermissions"] and not group["IpPermissionsEgress"], group
    return group["GroupId"]


def has_internet_route(ec2, vpc):
    tables = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["RouteTables"]
    return any(route.get("GatewayId", "").startswith("igw-") for table in tables for route in table["Routes"])


def conversion_group(ec2, vpc):
    group = ec2.create_security_group(GroupName="conversion", Description="allows all", VpcId=vpc)["GroupId"]
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=ALL)
    # Egress to 0.0.0.0/0 is what AWS gives every new group.
    ec2.authorize_security_group_egress(
        GroupId=group, IpPermissions=[{"IpProtocol": "-1", "Ipv6Ranges": [{"CidrIpv6": "::/0"}]}]
    )
    return group


if __name__ == "__main__":
    main(*sys.argv[1:])
