"""Target groups. moto knows a target by its id alone, forgets its zone, and takes it out at once."""

from moto.elbv2.exceptions import InvalidTargetError
from moto.elbv2.models import ELBv2Backend, FakeHealthStatus, FakeTargetGroup

LOOKS = 2


def targets_have_ports_and_drain():
    """A target is an id with a port, and drains for the first two looks after it was taken out."""

    def key(group, target):
        return target["Id"], int(target.get("Port") or group.port)

    own_register = FakeTargetGroup.register

    def register(group, targets):
        there = dict(group.targets)
        own_register(group, targets)  # refuses what does not run
        group.targets = there
        for target in targets:
            group.targets[key(group, target)] = {**target, "Port": key(group, target)[1]}
            draining(group).pop(key(group, target), None)

    def deregister(group, targets):
        for target in targets:
            if "Port" in target:
                found = [key(group, target)]
            else:
                found = [k for k in group.targets if k[0] == target["Id"]]
            if not found or any(k not in group.targets for k in found):
                raise InvalidTargetError()
            for k in found:
                draining(group)[k] = (group.targets.pop(k), LOOKS)

    def deregister_terminated_instances(group, instance_ids):
        group.targets = {k: t for k, t in group.targets.items() if k[0] not in instance_ids}

    def describe_target_health(backend, target_group_arn, targets):
        group = backend.describe_target_groups(None, [target_group_arn], None)[0]
        healthy = [status(group, t, "healthy") for t in group.targets.values()]
        leaving = [status(group, t, "draining") for t, _ in draining(group).values()]
        group.draining = {k: (t, looks - 1) for k, (t, looks) in draining(group).items() if looks > 1}
        wanted = {(t["Id"], int(t["Port"])) for t in targets if "Port" in t}
        return [s for s in healthy + leaving if not wanted or (s.instance_id, s.port) in wanted]

    def draining(group):
        return group.__dict__.setdefault("draining", {})

    FakeTargetGroup.register = register
    FakeTargetGroup.deregister = deregister
    FakeTargetGroup.deregister_terminated_instances = deregister_terminated_instances
    ELBv2Backend.describe_target_health = describe_target_health


class Status(FakeHealthStatus):
    """With the zone."""

    zone = None

    @property
    def target(self):
        zone = {"AvailabilityZone": self.zone} if self.zone else {}
        return {"Id": self.instance_id, "Port": self.port, **zone}


def status(group, target, state):
    reason = "Target.DeregistrationInProgress" if state == "draining" else None
    shown = Status(target["Id"], target["Port"], group.health_check_port, state, reason)
    shown.zone = target.get("AvailabilityZone")
    return shown
