"""Whose an access key is."""

from moto.core.responses import ActionResult
from moto.iam.exceptions import IAMException
from moto.iam.responses import IamResponse
from moto.iam.utils import AWS_ROLE_ALPHABET
from moto.sts.responses import TokenResponse

OF_THE_ACCOUNT = slice(4, 12)


class AccessDenied(IAMException):
    code = "AccessDenied"


def keys_are_told_apart_by_account():
    """AWS: GetAccessKeyInfo reads the account in the id, also of a key that is gone; and IAM denies what is asked of a key
    that this account has not. moto: a key that is not there is the caller's, and IAM tells of every account's."""
    asked_of_iam = IamResponse.get_access_key_last_used

    def get_access_key_last_used(self):
        wanted = self._get_param("AccessKeyId")
        users = self.backend.users
        if not any(key.access_key_id == wanted for name in users for key in self.backend.list_access_keys(name)):
            raise AccessDenied(f"User is not authorized to perform: iam:GetAccessKeyLastUsed on resource: access key {wanted}")
        return asked_of_iam(self)

    IamResponse.get_access_key_last_used = get_access_key_last_used
    TokenResponse.get_access_key_info = get_access_key_info


def get_access_key_info(self):
    return ActionResult({"Account": account_in(self._get_param("AccessKeyId"))})


def account_in(key):
    """The only account whose keys begin so: half its number is in the id, and the 13th character says whether it is odd."""
    half = 0
    for letter in key[OF_THE_ACCOUNT]:
        half = half * 32 + AWS_ROLE_ALPHABET.index(letter)
    odd = AWS_ROLE_ALPHABET.index(key[12]) >= 16
    return f"{(half - 2**39) * 2 + odd:012d}"
