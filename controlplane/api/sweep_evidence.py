# From a trial of a sweep to a change request.
from __future__ import annotations

from clients.control import types
from controlplane.api.changes import change_of
from controlplane.api.security import Caller, Rooms


def propose_trial(sweep: int, body: types.NewTrialProposal, caller: Caller, rooms: Rooms) -> types.Change:
    """An ordinary change of the trial's version and config, which carries what was measured as evidence. What is not said in words
    the answer says."""
    return change_of(
        rooms.evidence.propose(
            caller,
            sweep,
            trial=body.trial,
            environment=body.environment,
            reason=body.reason,
            hypothesis=body.hypothesis,
            expected_effect=body.expected_effect,
            acknowledge=body.acknowledge,
        )
    )
