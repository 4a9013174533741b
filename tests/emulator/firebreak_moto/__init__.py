"""moto's server, corrected where its EC2 differs from AWS in ways that Firebreak's tests would trip over.

One module per topic, one function per correction, each with a test in ../test_corrections.py. A correction replaces
a method of moto's own models, so that all else in moto stays as it is. Pinned to the moto of ../requirements.txt.
"""

from . import (
    balancers,
    boundaries,
    credentials,
    filters,
    groups,
    instances,
    interfaces,
    keys,
    paging,
    policies,
    profiles,
    server,
    sessions,
    snapshots,
    ways,
)

CORRECTIONS = [
    interfaces.groups_are_what_was_last_set,
    interfaces.connection_tracking_is_kept,
    interfaces.addresses_are_assigned_by_the_interface,
    instances.groups_of_many_interfaces_are_refused,
    instances.shutdown_behaviour_is_set,
    instances.spot_instances_have_no_protection,
    instances.metadata_options_not_named_are_kept,
    filters.instances_by_network_interface,
    filters.instances_by_profile,
    groups.group_in_use_cannot_be_deleted,
    snapshots.snapshots_are_pending_first,
    balancers.targets_have_ports_and_drain,
    paging.describe_calls_page,
    credentials.service_credentials_exist,
    boundaries.users_have_boundaries,
    keys.keys_are_told_apart_by_account,
    credentials.login_profiles_have_a_date_of_their_own,
    ways.ways_besides_the_groups_exist,
    sessions.sessions_exist,
    sessions.commands_run_until_they_are_cancelled,
    policies.accounts_have_few_managed_policies,
    policies.inline_policies_of_a_user_have_a_quota,
    profiles.replaced_profiles_are_new_associations,
    profiles.unknown_profiles_are_an_error_of_ec2,
    profiles.inline_policies_of_a_role_have_a_quota,
    server.requests_are_atomic,
]


def correct():
    """Applies every correction to the moto of this process."""
    for correction in CORRECTIONS:
        correction()
