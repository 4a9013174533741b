"""Elastic network interfaces."""

from moto.ec2.exceptions import InvalidSecurityGroupNotFoundError
from moto.ec2.models.elastic_network_interfaces import NetworkInterface, NetworkInterfaceBackend
from moto.ec2.models.instances import Instance
from moto.ec2.responses.elastic_network_interfaces import ElasticNetworkInterfaces

TRACKING = "ConnectionTrackingSpecification"


def groups_are_what_was_last_set():
    """AWS: an interface has the groups that were last set on it. moto: those, and the instance's start-up groups."""
    prepare, modify = Instance.prep_nics, NetworkInterfaceBackend.modify_network_interface_attribute

    def prep_nics(self, *args, **kwargs):
        """An instance's own groups are those of its primary interface."""
        prepare(self, *args, **kwargs)
        if 0 in self.nics:
            self.security_groups = list(self.nics[0]._group_set)

    def modify_network_interface_attribute(self, eni_id, group_ids, *args, **kwargs):
        if group_ids:
            set_groups(self, self.get_network_interface(eni_id), group_ids)
        modify(self, eni_id, [], *args, **kwargs)

    NetworkInterface.group_set = property(lambda self: list(self._group_set))
    Instance.prep_nics = prep_nics
    NetworkInterfaceBackend.modify_network_interface_attribute = modify_network_interface_attribute


def set_groups(backend, interface, group_ids):
    """Gives the interface these groups; the instance shows those of its primary interface."""
    interface._group_set = [existing_group(backend, group_id) for group_id in group_ids]
    instance = interface.instance
    if instance and instance.nics.get(0) is interface:
        instance.security_groups = list(interface._group_set)


def existing_group(backend, group_id):
    """The group; moto would store None for one that does not exist."""
    group = backend.get_security_group_from_id(group_id)
    if group is None:
        raise InvalidSecurityGroupNotFoundError(group_id)
    return group


def connection_tracking_is_kept():
    """AWS: idle timeouts are set by ModifyNetworkInterfaceAttribute and shown by the describe calls. moto: neither."""
    modify = ElasticNetworkInterfaces.modify_network_interface_attribute

    def modify_network_interface_attribute(self):
        result = modify(self)
        interface = self.ec2_backend.get_network_interface(self._get_param("NetworkInterfaceId"))
        wanted = self._get_param(TRACKING, {})
        if wanted:
            shown = interface.connection_tracking_configuration or {}
            interface.connection_tracking_configuration = shown | {k: int(v) for k, v in wanted.items()}
        return result

    NetworkInterface.connection_tracking_configuration = None
    ElasticNetworkInterfaces.modify_network_interface_attribute = modify_network_interface_attribute


def addresses_are_assigned_by_the_interface():
    """AWS: AssociatePublicIpAddress gives a running instance's interface a public address or takes it away, and an Elastic
    IP hides it. moto: nothing happens."""
    modify = ElasticNetworkInterfaces.modify_network_interface_attribute

    def modify_network_interface_attribute(self):
        result = modify(self)
        wanted = self._get_param("AssociatePublicIpAddress")
        if wanted is not None:
            assign(self.ec2_backend, self._get_param("NetworkInterfaceId"), str(wanted).lower() == "true")
        return result

    ElasticNetworkInterfaces.modify_network_interface_attribute = modify_network_interface_attribute


def assign(backend, interface_id, on):
    """Sets the switch, and what it does where no Elastic IP stands."""
    interface = backend.get_network_interface(interface_id)
    interface.public_ip_auto_assign = on
    if interface.public_ip and backend.address_by_ip([interface.public_ip], fail_if_not_found=False):
        return
    interface.public_ip = None
    if interface.instance and interface.instance.is_running():
        interface.check_auto_public_ip()
