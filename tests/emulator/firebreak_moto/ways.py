"""Ways to an instance besides its network interfaces' groups."""

from moto.core.responses import ActionResult
from moto.ec2.responses import EC2Response
from moto.moto_api._internal import mock_random


def ways_besides_the_groups_exist():
    """AWS: the serial console is on or off for an account and region, VPCs have Instance Connect endpoints. moto: HTTP 500."""
    for operation in (get_serial_console_access_status, enable_serial_console_access, disable_serial_console_access):
        setattr(EC2Response, operation.__name__, operation)
    EC2Response.create_instance_connect_endpoint = create_instance_connect_endpoint
    EC2Response.describe_instance_connect_endpoints = describe_instance_connect_endpoints


def get_serial_console_access_status(self):
    return ActionResult({"SerialConsoleAccessEnabled": vars(self.ec2_backend).get("serial_console", False)})


def enable_serial_console_access(self):
    self.ec2_backend.serial_console = True
    return get_serial_console_access_status(self)


def disable_serial_console_access(self):
    self.ec2_backend.serial_console = False
    return get_serial_console_access_status(self)


def create_instance_connect_endpoint(self):
    subnet = self.ec2_backend.get_subnet(self._get_param("SubnetId"))
    one = {
        "InstanceConnectEndpointId": f"eice-{mock_random.get_random_hex(17)}",
        "State": "create-complete",
        "SubnetId": subnet.id,
        "VpcId": subnet.vpc_id,
    }
    endpoints(self).append(one)
    return ActionResult({"InstanceConnectEndpoint": one})


def describe_instance_connect_endpoints(self):
    """The one filter that is used."""
    vpcs = self._filters_from_querystring().get("vpc-id")
    found = [one for one in endpoints(self) if vpcs is None or one["VpcId"] in vpcs]
    return ActionResult({"InstanceConnectEndpoints": found})


def endpoints(response):
    """Those of the account and region."""
    return vars(response.ec2_backend).setdefault("instance_connect_endpoints", [])
