# A revision's config gets its version policy from the revision's versions.
from __future__ import annotations

import pytest

from controlplane.domain.config_revision import revision_config
from controlplane.errors import ConfigInvalid, InvalidInput


def test_the_versions_of_the_revision_become_the_version_policy() -> None:
    assert revision_config({"name": "m"}, [3, 1, 3]) == {
        "name": "m",
        "version_policy": {"specific": {"versions": ["1", "3"]}},
    }


def test_a_config_with_a_version_policy_of_its_own_is_refused() -> None:
    with pytest.raises(ConfigInvalid, match="version_policy is not part"):
        revision_config({"version_policy": {"all": {}}}, [1])


def test_a_config_without_versions_is_refused() -> None:
    with pytest.raises(InvalidInput, match="serves nothing"):
        revision_config({"name": "m"}, [])
