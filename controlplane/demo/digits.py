# Real handwritten digits: loaded, drawn as text, and read by a live model.
from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from clients.inference import InferenceClient, InferenceError

DATA = Path(__file__).with_name("data")
SOFTMAX, MLP = DATA / "softmax.onnx", DATA / "mlp.onnx"

Image = npt.NDArray[np.float32]

_SHADES = " ░▒▓█"
_DEADLINE_SECONDS = 10.0
_CLIENTS = 4
_PAUSE_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Digits:
    """The test images, float32 [n, 8, 8] of 0 to 16, what they show, and the accuracy that training measured on them, by
    model."""

    images: Image
    labels: npt.NDArray[np.uint8]
    accuracy: dict[str, float]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a live model made of all test images, each asked about by itself."""

    digits: npt.NDArray[np.int64]
    right: int
    seconds: float


def load() -> Digits:
    with np.load(DATA / "digits.npz", allow_pickle=False) as file:
        return Digits(
            file["images"].astype(np.float32),
            file["labels"],
            {name: float(file[f"{name}_accuracy"]) for name in ("softmax", "mlp")},
        )


def drawing(image: Image) -> str:
    """Two characters a pixel, the darker the more ink; eight lines."""
    shades = (image * (len(_SHADES) - 1) / 16).round().astype(int).tolist()
    return "\n".join("".join(_SHADES[shade] * 2 for shade in row).rstrip() for row in shades)


def read(address: str, model: str, digits: Digits) -> Reading:
    """Ask the server at `address` about every test image, a few at a time. Raises InferenceError."""
    start = time.monotonic()
    with InferenceClient(address) as client, ThreadPoolExecutor(_CLIENTS) as pool:
        found = list(pool.map(lambda image: _ask(client, model, image), digits.images))
    answers = np.array(found, np.int64)
    return Reading(answers, int((answers == digits.labels).sum()), time.monotonic() - start)


class Caller:
    """A client that goes on asking while something is changed, about fifty times a second, and counts."""

    def __init__(self, address: str, model: str, image: Image) -> None:
        self.answered = 0
        self.refused: list[str] = []
        self._address, self._model, self._image = address, model, image
        self._enough = Event()
        self._thread = Thread(target=self._go_on, name="caller")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._enough.set()
        self._thread.join()

    def _go_on(self) -> None:
        with InferenceClient(self._address) as client:
            while not self._enough.wait(_PAUSE_SECONDS):
                try:
                    _ask(client, self._model, self._image)
                    self.answered += 1
                except InferenceError as error:
                    self.refused.append(error.message)


def _ask(client: InferenceClient, model: str, image: Image) -> int:
    answer = client.infer(model, {"image": image[np.newaxis]}, outputs=("digit",), deadline_seconds=_DEADLINE_SECONDS)
    return int(answer.outputs["digit"][0, 0])
