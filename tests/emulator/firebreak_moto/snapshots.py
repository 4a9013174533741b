"""EBS snapshots.

How fast they complete is a transition of moto's state manager, for all accounts of this server; "times" counts
DescribeSnapshots calls that look at the snapshot:

    POST /moto-api/state-manager/set-transition
    {"model_name": "ec2::snapshot", "transition": {"progression": "manual", "times": 5}}
"""

from moto.ec2.models.elastic_block_store import EBSBackend, Snapshot
from moto.moto_api import state_manager
from moto.moto_api._internal.managed_state_model import ManagedState

MODEL = "ec2::snapshot"
PENDING_AT_THE_FIRST_LOOK = {"progression": "manual", "times": 2}


def snapshots_are_pending_first():
    """AWS: a snapshot is pending until its blocks are copied. moto: it is born completed."""
    state_manager.register_default_transition(MODEL, PENDING_AT_THE_FIRST_LOOK)
    describe = EBSBackend.describe_snapshots

    def describe_snapshots(self, snapshot_ids=None, filters=None):
        for snapshot in describe(self, snapshot_ids, without_status(filters)):
            state_of(snapshot).advance()
        return describe(self, snapshot_ids, filters)

    EBSBackend.describe_snapshots = describe_snapshots
    Snapshot.status = property(status, lambda self, value: None)
    Snapshot.state = property(status)  # its name in the answer of CreateSnapshots, where moto leaves it out
    Snapshot.progress = property(lambda self: "100%" if self.status == "completed" else "42%")


def without_status(filters):
    """Who waits with the filter status=completed looks at what is still pending."""
    return {name: values for name, values in (filters or {}).items() if name != "status"}


def status(snapshot):
    """The stock snapshots of images are completed from the start."""
    return "completed" if snapshot.from_ami else state_of(snapshot).status


def state_of(snapshot):
    """The snapshot's place in its transition, made at the first look."""
    if "managed_state" not in vars(snapshot):
        snapshot.managed_state = ManagedState(MODEL, [("pending", "completed")])
    return snapshot.managed_state
