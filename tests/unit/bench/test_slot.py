# What a Dask worker keeps of a sweep that was stopped.
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from controlplane.bench.slot import BenchSlot
from controlplane.storage.artifacts import ObjectArtifactStore

if TYPE_CHECKING:
    from distributed import Worker


def test_what_came_of_a_blob_goes_with_the_bench(tmp_path: Path) -> None:
    def opener() -> None:
        raise AssertionError("nothing is measured")

    spool = tmp_path / "spool"
    slot = BenchSlot(opener, ObjectArtifactStore.local(tmp_path / "artifacts"), spool)  # type: ignore[arg-type]  # never opened
    slot.setup(cast("Worker", None))
    slot.receive("upload", b"the first half")
    assert len(list(spool.iterdir())) == 1
    slot.close()
    assert list(spool.iterdir()) == []
