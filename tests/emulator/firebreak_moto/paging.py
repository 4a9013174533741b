"""MaxResults and NextToken."""

from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.responses import EC2Response

# The method, the list in its answer, and the parameter of ids that cannot be combined with MaxResults.
PAGED = [
    ("describe_network_interfaces", "NetworkInterfaces", "NetworkInterfaceIds"),
    ("describe_security_groups", "SecurityGroups", "GroupIds"),
    ("describe_security_group_rules", "SecurityGroupRules", "SecurityGroupRuleIds"),
    ("describe_snapshots", "Snapshots", "SnapshotIds"),
    ("describe_volumes", "Volumes", "VolumeIds"),
]


def describe_calls_page():
    """AWS: at most MaxResults items and a NextToken. moto: everything at once (DescribeInstances alone pages)."""
    for method, key, ids in PAGED:
        setattr(EC2Response, method, paged(getattr(EC2Response, method), key, ids))


def paged(describe, key, ids):
    """`describe`, answering one page; a token is the number of items that came before."""

    def describe_page(self):
        size = self._get_int_param("MaxResults")
        if size and self._get_param(ids, []):
            raise EC2ClientError("InvalidParameterCombination", f"MaxResults cannot be used with {ids}.")
        items = describe(self).result[key]
        start = int(self._get_param("NextToken") or 0)
        end = start + (size or len(items))
        token = str(end) if end < len(items) else None
        return ActionResult({key: items[start:end], "NextToken": token})

    return describe_page
