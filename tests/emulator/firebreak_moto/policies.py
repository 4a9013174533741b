"""Policies: those that AWS manages, and a user's own."""

import json

from moto.iam import models
from moto.iam.exceptions import LimitExceededException

# <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html>
INLINE_OF_A_USER = 2048

KEPT = ["AWSDenyAll", "AdministratorAccess", "ReadOnlyAccess", "IAMUserChangePassword"]


def accounts_have_few_managed_policies():
    """moto parses all 1,400 for each account: a second of every test. (It has them at all only if
    MOTO_IAM_LOAD_MANAGED_POLICIES is set.)"""
    every = json.loads(models.aws_managed_policies_data)
    models.aws_managed_policies_data = json.dumps({name: every[name] for name in KEPT})


def inline_policies_of_a_user_have_a_quota():
    """AWS: together 2,048 characters, white space aside. moto: as many as there is memory."""
    put = models.IAMBackend.put_user_policy

    def put_user_policy(self, user_name, policy_name, policy_json):
        others = [text for name, text in self.get_user(user_name).policies.items() if name != policy_name]
        if sum(len("".join(text.split())) for text in [*others, policy_json]) > INLINE_OF_A_USER:
            raise LimitExceededException(f"Maximum policy size of {INLINE_OF_A_USER} bytes exceeded for user {user_name}")
        put(self, user_name, policy_name, policy_json)

    models.IAMBackend.put_user_policy = put_user_policy
