# Properties are looked for without a clock: on a busy machine any example may take long.
from __future__ import annotations

from hypothesis import settings

settings.register_profile("without a clock", deadline=None)
settings.load_profile("without a clock")
