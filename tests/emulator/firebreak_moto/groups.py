"""Security groups."""

from moto.ec2.exceptions import DependencyViolationError
from moto.ec2.models.security_groups import SecurityGroupBackend


def group_in_use_cannot_be_deleted():
    """AWS: a group that an interface has, or that another group's rule names, stays. moto: it is deleted."""
    delete = SecurityGroupBackend.delete_security_group

    def delete_security_group(self, name=None, group_id=None):
        if group_id and (has_interfaces(self, group_id) or is_named_by_a_rule(self, group_id)):
            raise DependencyViolationError(f"resource {group_id} has a dependent object")
        return delete(self, name, group_id)

    SecurityGroupBackend.delete_security_group = delete_security_group


def has_interfaces(backend, group_id):
    """Whether an interface has the group; those of a terminated instance, which moto keeps, do not count."""
    return any(
        group_id in [group.id for group in interface.group_set]
        for interface in backend.enis.values()
        if not (interface.instance and interface.instance.state == "terminated")
    )


def is_named_by_a_rule(backend, group_id):
    """Whether a rule of another group has the group as its source or destination."""
    others = [g for of_vpc in backend.groups.values() for g in of_vpc.values() if g.id != group_id]
    rules = [rule for group in others for rule in [*group.ingress_rules, *group.egress_rules]]
    return any((rule.source_group or {}).get("GroupId") == group_id for rule in rules)
