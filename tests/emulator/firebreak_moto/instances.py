"""ModifyInstanceAttribute."""

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.instances import InstanceBackend
from moto.ec2.responses.instances import InstanceResponse

from .interfaces import set_groups


def groups_of_many_interfaces_are_refused():
    """AWS: the groups of an instance are those of its one interface. moto: an independent list, interfaces ignored."""

    def modify_instance_security_groups(self, instance_id, group_ids):
        instance = self.get_instance(instance_id)
        if not group_ids:  # moto lands here, too, for attributes that it does not know, and would empty the list
            return instance
        if len(instance.nics) > 1:
            raise EC2ClientError(
                "InvalidInstanceID",
                f"There are multiple interfaces attached to instance '{instance_id}'. "
                "Please specify an interface ID for the operation instead.",
            )
        for interface in instance.nics.values():
            set_groups(self, interface, group_ids)
        return instance

    InstanceBackend.modify_instance_security_groups = modify_instance_security_groups


def shutdown_behaviour_is_set():
    """AWS: InstanceInitiatedShutdownBehavior.Value sets it. moto: nothing happens."""
    known = InstanceResponse._dot_value_instance_attribute_handler

    def handler(self):
        behaviour = self._get_param("InstanceInitiatedShutdownBehavior.Value")
        if behaviour is None:
            return known(self)
        self.error_on_dryrun()
        instance = self.ec2_backend.get_instance(self._get_param("InstanceId"))
        instance.instance_initiated_shutdown_behavior = behaviour
        return True

    InstanceResponse._dot_value_instance_attribute_handler = handler


def spot_instances_have_no_protection():
    """AWS: termination and stop protection of a Spot instance are refused. moto: they are set."""
    modify = InstanceBackend.modify_instance_attribute

    def modify_instance_attribute(self, instance_id, key, value):
        if key in ("disable_api_termination", "disable_api_stop") and self.get_instance(instance_id).lifecycle == "spot":
            raise EC2ClientError("UnsupportedOperation", f"Modifying '{key}' is not supported for spot instances.")
        return modify(self, instance_id, key, value)

    InstanceBackend.modify_instance_attribute = modify_instance_attribute


def metadata_options_not_named_are_kept():
    """AWS: ModifyInstanceMetadataOptions leaves what it does not name. moto: that goes back to its default."""
    modify = InstanceBackend.modify_instance_metadata_options
    parameters = ("http_tokens", "hop_limit", "http_endpoint", "http_protocol", "metadata_tags")
    attributes = ("http_tokens", "http_put_response_hop_limit", "http_endpoint", "http_protocol_ipv6", "instance_metadata_tags")

    def modify_instance_metadata_options(self, instance_id, **wanted):
        now = self.get_instance(instance_id).metadata_options
        for parameter, attribute in zip(parameters, attributes):
            if wanted.get(parameter) is None:
                wanted[parameter] = getattr(now, attribute)
        return modify(self, instance_id, **wanted)

    InstanceBackend.modify_instance_metadata_options = modify_instance_metadata_options
