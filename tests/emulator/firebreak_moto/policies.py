"""AWS's managed policies."""

import json

from moto.iam import models

KEPT = ["AWSDenyAll", "AdministratorAccess", "ReadOnlyAccess", "IAMUserChangePassword"]


def accounts_have_few_managed_policies():
    """moto parses all 1,400 for each account: a second of every test. (It has them at all only if
    MOTO_IAM_LOAD_MANAGED_POLICIES is set.)"""
    every = json.loads(models.aws_managed_policies_data)
    models.aws_managed_policies_data = json.dumps({name: every[name] for name in KEPT})
