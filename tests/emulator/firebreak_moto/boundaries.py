"""Permissions boundaries of IAM users."""

from moto.core.responses import EmptyResult
from moto.iam.exceptions import NotFoundException
from moto.iam.models import User
from moto.iam.responses import IamResponse


def users_have_boundaries():
    """AWS: a user has a permissions boundary, as a role has. moto: there are no such operations for users."""

    def put_user_permissions_boundary(self):
        user = self.backend.get_user(self._get_param("UserName"))
        arn = self._get_param("PermissionsBoundary")
        if arn not in self.backend.managed_policies:
            raise NotFoundException(f"Policy {arn} does not exist or is not attachable.")
        user.boundary = arn
        return EmptyResult()

    def delete_user_permissions_boundary(self):
        user = self.backend.get_user(self._get_param("UserName"))
        if user.boundary is None:
            raise NotFoundException(f"User {user.name} has no permissions boundary.")
        user.boundary = None
        return EmptyResult()

    IamResponse.put_user_permissions_boundary = put_user_permissions_boundary
    IamResponse.delete_user_permissions_boundary = delete_user_permissions_boundary
    User.boundary = None
    User.permissions_boundary = property(shown)


def shown(user):
    """As GetUser tells it; nothing where there is none."""
    if user.boundary is None:
        return None
    return {"PermissionsBoundaryType": "Policy", "PermissionsBoundaryArn": user.boundary}
