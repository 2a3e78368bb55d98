# What lies in the repository for a revision: its config, with the version policy that only the renderer writes.
from __future__ import annotations

from collections.abc import Sequence

from controlplane.domain.canonical import JsonObject
from controlplane.errors import ConfigInvalid, InvalidInput


def revision_config(config: JsonObject, versions: Sequence[int]) -> JsonObject:
    """`config` with a version policy that serves exactly `versions`, in ascending order.

    Raises ConfigInvalid when the config has a version policy of its own, and InvalidInput without versions.
    """
    if "version_policy" in config:
        raise ConfigInvalid(
            "version_policy is not part of a revision's config: the versions of the revision decide it",
            hint="unset version_policy and name the versions with --version",
            details={"path": "version_policy"},
        )
    if not versions:
        raise InvalidInput("a config without versions serves nothing", hint="name a version with --version")
    specific = {"versions": [str(number) for number in sorted(set(versions))]}
    return {**config, "version_policy": {"specific": specific}}
