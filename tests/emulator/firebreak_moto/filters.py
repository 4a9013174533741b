"""Filters that moto answers with HTTP 500."""

from moto.ec2 import utils
from moto.ec2.models.instances import Instance

OF_AN_INSTANCE = {
    "network-interface.network-interface-id": lambda nic: [nic.id],
    "network-interface.group-id": lambda nic: [group.id for group in nic.group_set],
    "network-interface.vpc-id": lambda nic: [nic.vpc_id],
    "network-interface.subnet-id": lambda nic: [nic.subnet_id],
}


def instances_by_network_interface():
    """AWS: DescribeInstances filters by what any of an instance's interfaces has. moto: not implemented."""
    for number, (name, values) in enumerate(OF_AN_INSTANCE.items()):
        attribute = f"filter_value_{number}"
        setattr(Instance, attribute, property(of_all_interfaces(values)))
        utils.filter_dict_attribute_mapping[name] = attribute


def instances_by_profile():
    """AWS: DescribeInstances filters by the ARN of the instance profile. moto: not implemented."""
    Instance.filter_value_profile = property(lambda instance: (instance.iam_instance_profile or {}).get("Arn"))
    utils.filter_dict_attribute_mapping["iam-instance-profile.arn"] = "filter_value_profile"


def of_all_interfaces(values):
    """A getter of an instance that collects `values` over its interfaces."""
    return lambda instance: [value for nic in instance.nics.values() for value in values(nic)]
