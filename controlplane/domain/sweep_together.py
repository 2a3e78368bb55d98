# Rounds of a sweep that lie apart in time, as one look of its race. Pure.
"""Within a turn of one round candidates are compared as they are. What lies minutes apart is linked by a candidate that is in both rounds,
the *reference*: what counts is a block's ratio to the reference in its turn, so that what the machine did meanwhile falls out. What nothing
links gets turns of its own, in which nobody is held against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from controlplane.domain.sweep_blocks import Block
from controlplane.domain.sweep_racing import Look


def together(looks: Sequence[Look], references: Sequence[str | None]) -> Look:
    """Of rounds in order, with the reference of each; the first needs none, and stays as it is. Blocks of the others are as if their
    round's reference had done in their turn what it did in that turn of the round that it was first in: ratios within a round, and to
    the reference, stay those that were measured."""
    found = dict[tuple[str, int], Block]()
    failed = dict[str, str]()
    for look, reference in zip(looks, references, strict=True):
        known = any(name == reference for name, _ in found)
        failed |= {name: why for name, why in look.failed.items() if name != reference or not known}
        here = {block.turn: block for block in look.blocks if block.candidate == reference}
        apart = 1 + max((block.turn for block in found.values()), default=-1)
        for block in look.blocks:
            beside = here.get(block.turn)
            usual = None if reference is None else found.get((reference, block.turn))
            if beside is not None and usual is not None:
                placed = _scaled(block, beside, usual)
            else:
                placed = replace(block, turn=apart + block.turn)
            found.setdefault((block.candidate, block.turn), placed)
    return Look(tuple(found.values()), failed)


def _scaled(block: Block, beside: Block, usual: Block) -> Block:
    """A figure that the reference does not show stays as it is: it says nothing of how the machine was."""
    figures = {
        name: value * usual.figures[name] / beside.figures[name]
        if beside.figures.get(name, 0) > 0 and usual.figures.get(name, 0) > 0
        else value
        for name, value in block.figures.items()
    }
    return replace(block, turn=usual.turn, figures=figures)
