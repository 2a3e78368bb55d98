# The drawing at the top of errors.py is the tree of classes, and every code belongs to one class.
from __future__ import annotations

from controlplane import errors
from controlplane.errors import ControlPlaneError


def subclasses(of: type[ControlPlaneError]) -> list[type[ControlPlaneError]]:
    """In the order in which they are defined; those of this module only."""
    return [each for each in of.__subclasses__() if each.__module__ == errors.__name__]


def whole_tree(of: type[ControlPlaneError] = ControlPlaneError) -> list[type[ControlPlaneError]]:
    return [of] + [each for child in subclasses(of) for each in whole_tree(child)]


def drawn(of: type[ControlPlaneError], indent: str = "") -> list[str]:
    lines: list[str] = []
    children = subclasses(of)
    for child in children:
        last = child is children[-1]
        lines.append(f"{indent}{'└' if last else '├'}── {child.__name__}")
        lines += drawn(child, indent + ("    " if last else "│   "))
    return lines


def test_the_drawing_is_the_tree_of_classes() -> None:
    assert errors.__doc__ is not None
    _, _, drawing = errors.__doc__.partition("::\n\n")

    assert drawing.strip().splitlines() == ["ControlPlaneError", *drawn(ControlPlaneError)]


def test_every_code_belongs_to_one_class() -> None:
    codes = [each.__dict__.get("code") for each in whole_tree()]

    assert None not in codes
    assert len(set(codes)) == len(codes)


def test_every_class_has_an_http_status_of_an_error_and_an_exit_status_of_its_own_range() -> None:
    for each in whole_tree():
        assert 400 <= each.status <= 599
        assert 1 <= each.exit_code <= 10


def test_an_error_keeps_its_message_hint_and_details() -> None:
    error = errors.NotFound("model 'a' does not exist", hint="tritonctl model list", details={"model": "a"})

    assert (str(error), error.message, error.hint, error.details) == (
        "model 'a' does not exist", "model 'a' does not exist", "tritonctl model list", {"model": "a"},
    )  # fmt: skip
