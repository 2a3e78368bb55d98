# The worker's looks at the machines of servers, kept for whoever judges evidence.
from __future__ import annotations

import logging
import threading

from controlplane.domain.fingerprints import class_of
from controlplane.services.ports import Clock, MachineReader
from controlplane.storage.unit_of_work import Storage

_log = logging.getLogger(__name__)
_SECONDS = 60.0
_AGAIN_SECONDS = 5.0
"""While some server did not answer: it may just be starting."""


class MachineWatch:
    """Beside a worker's loop. What is of the class that it was of before is not written again. A server that does not answer keeps what was seen of it."""

    def __init__(self, storage: Storage, read: MachineReader, clock: Clock) -> None:
        self._storage = storage
        self._read = read
        self._clock = clock

    def run(self, stop: threading.Event) -> None:
        whole = False
        while not stop.is_set():
            try:
                whole = self.look()
            except Exception:  # whatever it is (a database that went away), the next look must still come
                _log.exception("the machines of servers could not be looked at")
            stop.wait(_SECONDS if whole else _AGAIN_SECONDS)

    def look(self) -> bool:
        """Once at every server of every environment; whether all answered."""
        whole = True
        with self._storage.read() as unit:
            names = [environment.name for environment in unit.environments.all()]
            servers = [(name, server) for name in names for server in unit.environments.servers(name)]
            digests = {name: unit.server_fingerprints.of_environment(name) for name in names}
            known = unit.sweeps.fingerprints(one for found in digests.values() for one in found.values())
        for environment, server in servers:
            seen = self._read(server)
            before = known.get(digests[environment].get(server.digest, ""))
            whole &= seen is not None
            if seen is None or (before is not None and class_of(before) == class_of(seen)):
                continue
            with self._storage.write() as unit:
                unit.sweeps.keep_fingerprint(seen)
                unit.server_fingerprints.set(environment, server.digest, seen.digest, self._clock.now())
        return whole
