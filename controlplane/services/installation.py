# Whether this installation can work.
from __future__ import annotations

from controlplane.storage.migrate import check_ready
from controlplane.storage.unit_of_work import Storage


class InstallationService:
    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def check(self) -> None:
        """Raises DatabaseNotReady."""
        check_ready(self._storage.database)
