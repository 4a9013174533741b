"""Systems Manager: sessions of Session Manager, and commands that take their time."""

from moto.core.responses import ActionResult, EmptyResult
from moto.core.utils import utcnow
from moto.ec2 import ec2_backends
from moto.moto_api._internal import mock_random
from moto.ssm.exceptions import SSMException
from moto.ssm.models import Command
from moto.ssm.responses import SimpleSystemManagerResponse as Response
from moto.sts import sts_backends

UNFINISHED = ("Pending", "InProgress", "Delayed")


def sessions_exist():
    """AWS: sessions of running instances are opened, listed and ended; one that was ended is `Terminating` at the first look.
    moto: no such operations."""
    for operation in (start_session, describe_sessions, terminate_session):
        setattr(Response, operation.__name__, operation)


def commands_run_until_they_are_cancelled():
    """AWS: a command is `Pending`, then runs, on each instance by itself; it can be cancelled on one. moto: all are over at
    once, run on every instance of the account, and cannot be listed by instance."""
    make = Command.__init__

    def init(command, *args, **more):
        make(command, *args, **more)
        command.status = "InProgress"
        command.on_instance = {instance: "Pending" for instance in command.instance_ids}

    targeted = Command._get_instance_ids_from_targets
    Command.__init__ = init
    Command._get_instance_ids_from_targets = lambda command: targeted(command) if command.targets else []
    Response.list_command_invocations = list_command_invocations
    Response.cancel_command = cancel_command


def start_session(self):
    target = self._get_param("Target")
    instances = ec2_backends[self.current_account][self.region].all_running_instances()
    if target not in [instance.id for instance in instances]:
        raise SSMException("TargetNotConnected", f"{target} is not connected.")
    owner = caller(self)
    one = {
        "SessionId": f"{owner.rsplit('/', 1)[-1]}-{mock_random.get_random_hex(17)}",
        "Target": target,
        "Status": "Connected",
        "StartDate": utcnow(),
        "Owner": owner,
    }
    sessions(self)[one["SessionId"]] = one
    return ActionResult({"SessionId": one["SessionId"], "StreamUrl": "wss://nowhere", "TokenValue": "secret"})


def describe_sessions(self):
    wanted = {f["key"]: f["value"] for f in self._get_param("Filters", [])}
    active = self._get_param("State") == "Active"

    def matches(one):
        return (one["Status"] != "Terminated") == active and all(one[key] == value for key, value in wanted.items())

    answer = page_of_one(self, "Sessions", [dict(one) for one in sessions(self).values()], matches)
    for shown in answer["Sessions"]:
        if shown["Status"] == "Terminating":
            sessions(self)[shown["SessionId"]] |= {"Status": "Terminated", "EndDate": utcnow()}
    return ActionResult(answer)


def terminate_session(self):
    """One that AWS does not know is none the less ended."""
    one = sessions(self).get(self._get_param("SessionId"), {})
    if one.get("Status") == "Connected":
        one["Status"] = "Terminating"
    return ActionResult({"SessionId": self._get_param("SessionId")})


def list_command_invocations(self):
    """One that waits runs from the first look on."""
    instance, status = self._get_param("InstanceId"), None
    for one in self._get_param("Filters", []):
        if one["key"] != "Status":
            raise SSMException("InvalidFilterKey", f"{one['key']} is not implemented here.")
        status = one["value"]
    if instance and status == "Pending":
        raise SSMException("InvalidInstanceId", "An instance cannot be specified for commands that are Pending.")
    commands = self.ssm_backend.list_commands(self._get_param("CommandId"), None)
    every = [(command, on, now) for command in commands for on, now in command.on_instance.items()]
    answer = page_of_one(
        self, "CommandInvocations", every, lambda one: instance in (None, one[1]) and status in (None, one[2])
    )
    for command, on, now in answer["CommandInvocations"]:
        command.on_instance[on] = "InProgress" if now == "Pending" else now
    shown = [invocation(*one) for one in answer["CommandInvocations"]]
    return ActionResult(answer | {"CommandInvocations": shown})


def invocation(command, instance, status):
    return {
        "CommandId": command.command_id,
        "InstanceId": instance,
        "DocumentName": command.document_name,
        "RequestedDateTime": command.requested_date_time,
        "Status": status,
        "StatusDetails": status,
    }


def cancel_command(self):
    command = self.ssm_backend.get_command_by_id(self._get_param("CommandId"))
    for instance in self._get_param("InstanceIds") or command.instance_ids:
        if command.on_instance[instance] in UNFINISHED:
            command.on_instance[instance] = "Cancelled"
    return EmptyResult()


def page_of_one(self, key, every, matches):
    """AWS may answer with fewer than it could. Here a page has one, so that who forgets the token is found out. A token is a
    place among all there are, since what is shown may change by being looked at."""
    start = int(self._get_param("NextToken") or 0)
    left = [place for place in range(start, len(every)) if matches(every[place])]
    more = {"NextToken": str(left[1])} if len(left) > 1 else {}
    return {key: [every[place] for place in left[:1]]} | more


def sessions(response):
    return vars(response.ssm_backend).setdefault("sessions", {})


def caller(response):
    backend = sts_backends[response.current_account][response.partition]
    return backend.get_caller_identity(response.get_access_key(), response.region)[1]
