# The type of named arrays, as they go to a server and come back.
from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Tensors = Mapping[str, NDArray[np.generic]]
"""Input or output arrays by name. Strings are object arrays of bytes."""
