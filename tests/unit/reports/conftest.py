# Two sweeps that are searched once for all tests of reports.
from __future__ import annotations

import pytest

from controlplane.reports.standings import Findings
from tests.unit.reports import synthetic


@pytest.fixture(scope="session")
def ladder() -> Findings:
    return Findings(synthetic.ladder())


@pytest.fixture(scope="session")
def rising() -> Findings:
    return Findings(synthetic.rising())


@pytest.fixture(params=["ladder", "rising"])
def findings(request: pytest.FixtureRequest) -> Findings:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Findings)
    return found
