"""What IAM users have besides access keys."""

from datetime import timedelta

from moto.core.responses import ActionResult, EmptyResult
from moto.core.utils import utcnow
from moto.iam.exceptions import LimitExceededException, NotFoundException
from moto.iam.responses import IamResponse
from moto.moto_api._internal import mock_random

OF_ONE_SERVICE = 2


def service_credentials_exist():
    """AWS: users have credentials of single services, Bedrock's API keys among them. moto: no such operations."""
    for operation in (create, list_page, update, delete):
        setattr(IamResponse, OPERATIONS[operation], operation)


def create(self):
    """At most two of a service. AWS shows the password once, here; nobody needs it."""
    service, days = self._get_param("ServiceName"), self._get_int_param("CredentialAgeDays")
    credentials = of_user(self)
    if sum(one["ServiceName"] == service for one in credentials.values()) >= OF_ONE_SERVICE:
        raise LimitExceededException("Cannot exceed quota for ServiceSpecificCredentialsPerUser: 2")
    user, created = self._get_param("UserName"), utcnow()
    one = {
        "UserName": user,
        "Status": "Active",
        "ServiceUserName": f"{user}-at-{self.current_account}",
        "CreateDate": created,
        "ServiceSpecificCredentialId": "ACCA" + mock_random.get_random_hex(16).upper(),
        "ServiceName": service,
    }
    if days:
        one["ExpirationDate"] = created + timedelta(days=days)
    credentials[one["ServiceSpecificCredentialId"]] = one
    return ActionResult({"ServiceSpecificCredential": one | {"ServicePassword": "secret"}})


def list_page(self):
    """IAM may answer with fewer than it could. Here a page has one, so that who forgets the marker is found out."""
    service, start = self._get_param("ServiceName"), int(self._get_param("Marker") or 0)
    found = [one for one in of_user(self).values() if service in (None, one["ServiceName"])]
    more = {"IsTruncated": True, "Marker": str(start + 1)} if start + 1 < len(found) else {"IsTruncated": False}
    return ActionResult({"ServiceSpecificCredentials": found[start : start + 1]} | more)


def update(self):
    one_of_user(self)["Status"] = self._get_param("Status")
    return EmptyResult()


def delete(self):
    del of_user(self)[one_of_user(self)["ServiceSpecificCredentialId"]]
    return EmptyResult()


OPERATIONS = {
    create: "create_service_specific_credential",
    list_page: "list_service_specific_credentials",
    update: "update_service_specific_credential",
    delete: "delete_service_specific_credential",
}


def login_profiles_have_a_date_of_their_own():
    """AWS: a password shows when it was made. moto: when the user was."""
    make, get = IamResponse.create_login_profile, IamResponse.get_login_profile

    def create_login_profile(self):
        answer = make(self)
        user_of(self).login_profile_created = utcnow()
        return dated(self, answer)

    def dated(self, answer):
        answer.result["LoginProfile"]["CreateDate"] = user_of(self).login_profile_created
        return answer

    IamResponse.create_login_profile = create_login_profile
    IamResponse.get_login_profile = lambda self: dated(self, get(self))


def user_of(response):
    return response.backend.get_user(response._get_param("UserName"))


def of_user(response):
    """The user's table, kept with the user: it goes when the user goes."""
    return vars(user_of(response)).setdefault("service_credentials", {})


def one_of_user(response):
    """The one that the request names."""
    wanted = response._get_param("ServiceSpecificCredentialId")
    credentials = of_user(response)
    if wanted not in credentials:
        raise NotFoundException(f"No such credential {wanted} exists")
    return credentials[wanted]
