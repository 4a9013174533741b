"""Instance profiles, and which instance has which."""

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import iam_instance_profile as associations
from moto.ec2.models.iam_instance_profile import IamInstanceProfileAssociation, IamInstanceProfileAssociationBackend
from moto.iam.exceptions import LimitExceededException, NotFoundException
from moto.iam.models import IAMBackend

# <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html>
INLINE_OF_A_ROLE = 10240


def replaced_profiles_are_new_associations():
    """AWS: only of a running instance; the association is another, and the instance shows it. moto: the old one changes."""

    def replace(self, association_id, iam_instance_profile_name=None, iam_instance_profile_arn=None):
        known = self.iam_instance_profile_associations
        instance = next((i for i, a in known.items() if a.association_id == association_id), None)
        if instance is None:
            raise associations.InvalidAssociationIDIamProfileAssociationError(association_id)
        state = self.get_instance(instance).state
        if state != "running":
            raise EC2ClientError("IncorrectInstanceState", f"The instance '{instance}' is {state}, not running.")
        profile = associations.filter_iam_instance_profiles(
            self.account_id, self.partition, iam_instance_profile_arn, iam_instance_profile_name
        )
        new = associations.random_iam_instance_profile_association_id()
        known[instance] = IamInstanceProfileAssociation(self, new, self.get_instance(instance), profile)
        return known[instance]

    IamInstanceProfileAssociationBackend.replace_iam_instance_profile_association = replace


def unknown_profiles_are_an_error_of_ec2():
    """AWS: InvalidParameterValue. moto: IAM's NoSuchEntity."""
    find = associations.filter_iam_instance_profiles

    def found(account_id, partition, iam_instance_profile_arn, iam_instance_profile_name):
        try:
            return find(account_id, partition, iam_instance_profile_arn, iam_instance_profile_name)
        except NotFoundException:
            name = iam_instance_profile_arn or iam_instance_profile_name
            raise EC2ClientError("InvalidParameterValue", f"Value ({name}) for parameter iamInstanceProfile is invalid. "
                                 "Invalid IAM Instance Profile name") from None

    associations.filter_iam_instance_profiles = found


def inline_policies_of_a_role_have_a_quota():
    """AWS: together 10,240 characters, white space aside. moto: as many as there is memory."""
    put = IAMBackend.put_role_policy

    def put_role_policy(self, role_name, policy_name, policy_json):
        others = {name: text for name, text in self.get_role(role_name).policies.items() if name != policy_name}
        size = sum(len("".join(text.split())) for text in [*others.values(), policy_json])
        if size > INLINE_OF_A_ROLE:
            raise LimitExceededException(f"Maximum policy size of {INLINE_OF_A_ROLE} bytes exceeded for role {role_name}")
        put(self, role_name, policy_name, policy_json)

    IAMBackend.put_role_policy = put_role_policy
