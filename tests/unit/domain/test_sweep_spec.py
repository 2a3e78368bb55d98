# What a sweep's spec may say, the one form that it has, and what is refused with a hint.
from __future__ import annotations

import json
from decimal import Decimal

import pytest

from controlplane.domain.canonical import Json, JsonObject
from controlplane.domain.sweep_dimensions import Dimension
from controlplane.domain.sweep_spec import Load, Method, Search, Shape, SweepSpec, spec_from_json
from controlplane.domain.sweep_text import spec_from_text
from controlplane.domain.sweep_values import Condition, condition, ladder, similar
from controlplane.errors import ConfigPathInvalid, NameInvalid, SweepInvalid

FULL = """
model: digits
versions: [4, 3]
space:
  max_batch_size: 1:64:x4
  queue_delay_us: {values: [0, 250], when: max_batch_size!=1}
  preferred_batch_sizes: [[], [4, 8]]
  queue: [null, {timeout_us: 50000, max_size: 100}]
  instances: 1:4:1
  kind: [cpu, gpu]
  threads: [1, 2, null]
  accelerator: [none, tensorrt]
  response_cache: [false, true]
  parameters["session.x"].string_value: {values: [a, 1.50], when: ["instance_group[0].kind=KIND_CPU", "max_batch_size=4"]}
defaults: false
load: {rate: 100:300:100, process: even, rows: 2}
search: {method: exhaustive, seed: 7, seconds: 600, candidates: 20, margin_percent: 2.5}
"""


def test_a_model_alone_is_a_spec() -> None:
    assert spec_from_json({"model": "digits"}) == SweepSpec("digits")
    assert spec_from_json({"model": "digits:4,3"}).versions == (3, 4)
    assert SweepSpec("digits").search == Search(Method.RACING, seed=1, seconds=180)


def test_everything_can_be_said_in_yaml() -> None:
    spec = spec_from_text(FULL)

    named = {one.name: one for one in spec.space}
    assert spec.versions == (3, 4)
    assert named["max_batch_size"].values == (1, 4, 16, 64)
    assert named["instances"].values == (1, 2, 3, 4)
    assert named["queue_delay_us"] == Dimension(
        "queue_delay_us", (0, 250), (Condition("max_batch_size", "1", differs=True),)
    )
    assert named['parameters["session.x"].string_value'].values == ("a", "1.5")
    assert spec.load == Load(Shape.RATE, "100:300:100", "even", rows=2)
    assert [int(step) for step in spec.load.steps] == [100, 200, 300]
    assert spec.search == Search(Method.EXHAUSTIVE, 7, 600, 20, Decimal("2.5"))


def test_a_spec_has_one_form_and_one_digest() -> None:
    spec = spec_from_text(FULL)
    lines = FULL.replace("[4, 3]", "3,4").replace("1:64:x4", "[1, 4, 16, 64]").replace("2.5", "'2.50'")

    assert spec_from_json(spec.to_json()) == spec
    assert spec_from_text(json.dumps(spec.to_json())) == spec
    assert spec_from_text(lines).digest == spec.digest
    assert spec_from_json({"model": "digits", "search": {"seed": 1}}).digest == SweepSpec("digits").digest
    loads = [
        spec_from_json({"model": "digits", "load": {"rate": one}}) for one in ("100.0, 2e2", [100, 200.0], "100,200")
    ]
    assert len({spec.digest for spec in loads}) == 1
    assert spec_from_json({"model": "digits", "search": {"seed": 2}}).digest != SweepSpec("digits").digest


def test_a_hint_names_each_known_word_once() -> None:
    assert similar("zzz", ["b", "a", "b"]) == "known here: a, b"


@pytest.mark.parametrize(
    ("tree", "said", "hint"),
    [
        (None, "not an object", "model: NAME"),
        ({}, "names no model", "model: NAME"),
        ({"model": "m", "serach": {}}, "'serach'", "did you mean search?"),
        ({"model": "m", "search": {"method": "fast"}}, "'fast'", "racing, exhaustive, optuna"),
        ({"model": "m", "search": {"sede": 1}}, "'sede'", "did you mean seed?"),
        ({"model": "m", "search": {"seed": True}}, "True", "whole number"),
        ({"model": "m", "search": {"seconds": 3}}, "search.seconds cannot be 3", "10 to"),
        ({"model": "m", "space": {f'parameters["{n}"].string_value': ["1"] for n in range(65)}}, "65 dimensions", "at most 64"),
        ({"model": "m", "space": {f'parameters["{n}"].string_value': ["1"] for n in range(20)}, "search": {"candidates": 1000}},
         "1000 candidates in a space of 20 dimensions are 20000", "search.candidates: 800"),
        ({"model": "m", "search": {"candidates": 1001}}, "search.candidates cannot be 1001", "1 to 1000"),
        ({"model": "m", "search": {"margin_percent": 0}}, "margin_percent", "above 0"),
        ({"model": "m", "search": {"margin_percent": 80}}, "80", "up to 50"),
        ({"model": "m:1", "versions": [2]}, "twice", "versions: [1]"),
        ({"model": "m:"}, "versions cannot be", "NAME:3,4"),
        ({"model": "m", "versions": [1, 1]}, "[1, 1]", "each once"),
        ({"model": "m", "defaults": "no"}, "'no'", "true or false"),
        ({"model": "m", "load": {}}, "no shape", "rate, concurrency"),
        ({"model": "m", "load": {"rate": 1, "concurrency": 2}}, "rate and concurrency at once", "use one of"),
        ({"model": "m", "load": {"rate": "0"}}, "is 0", "above 0"),
        ({"model": "m", "load": {"rate": "fast"}}, "'fast'", "16"),
        ({"model": "m", "load": {"concurrency": 1.5}}, "'1.5'", "whole numbers"),
        ({"model": "m", "load": {"concurrency": "1:9:0"}}, "leads nowhere", "1:64:x2"),
        ({"model": "m", "load": {"concurrency": "1:9:x1"}}, "leads nowhere", "1:64:x2"),
        ({"model": "m", "load": {"rate": "1:1000000:1"}}, "more than 64", "larger step"),
        ({"model": "m", "load": {"rate": 10**9}}, "more than 200000", "at most"),
        ({"model": "m", "load": {"concurrency": "1,20000"}}, "more than 10000", "at most"),
        ({"model": "m", "load": {"curve": "0:10,30:900000000"}}, "more than 200000", "at most"),
        ({"model": "m", "load": {"find_rate": "9:1"}}, "leads nowhere", "LOW:HIGH"),
        ({"model": "m", "load": {"bursts": "9:1"}}, "'9:1'", "RATE:ON:OFF"),
        ({"model": "m", "load": {"bursts": "0:0:0"}}, "0 is no time", "more than 0"),
        ({"model": "m", "load": {"bursts": "9:1:0"}}, "0 is no time", "more than 0"),
        ({"model": "m", "load": {"ramp": "10:20:0"}}, "0 is no time", "more than 0"),
        ({"model": "m", "load": {"curve": "10:1,5:1"}}, "the first at second 0", "0:100,30:400"),
        ({"model": "m", "load": {"curve": "0:1,5:1,5:2"}}, "do not ascend", "sort"),
        ({"model": "m", "load": {"curve": "0:0,1:0"}}, "is 0 all the time", "give one point a rate"),
        ({"model": "m", "load": {"rate": "1,4,1.0"}}, "has the step 1 twice", "leave one"),
        ({"model": "m", "load": {"rate": "\u0661\u0662"}}, "is not a number", "16"),
        ({"model": "m", "load": {"rate": "1e-13"}}, "of this world", "16"),
        ({"model": "m", "load": {"rate": "0.05"}}, "brings 9 requests in the 180 s", "10 requests"),
        ({"model": "m", "search": {"method": ["racing"]}}, "['racing']", "racing, exhaustive"),
        ({"model": "m", "load": {"rate": 9, "process": "odd"}}, "'odd'", "poisson or even"),
        ({"model": "m", "load": {"rate": 9, "rows": 0}}, "rows cannot be 0", "1 or more"),
        ({"model": "m", "space": {"queue_delay": [0]}}, "'queue_delay'", "did you mean queue_delay_us?"),
        ({"model": "m", "space": {"input": [[]]}}, "cannot vary input", "versions"),
        ({"model": "m", "space": {'input["x"].dims': [[1]]}}, "cannot vary input", "versions"),
        ({"model": "m", "space": {"a..b": [1]}}, "character 2", "known here"),
        ({"model": "m", "space": {"instances": []}}, "no values", "one or more"),
        ({"model": "m", "space": {"instances": [0]}}, "cannot be 0", "1 or more"),
        ({"model": "m", "space": {"instances": [1, 1]}}, "the value 1 twice", "leave one"),
        ({"model": "m", "space": {"instances": list(range(1, 80))}}, "79 values", "at most 64"),
        ({"model": "m", "space": {"instances": "1:100:1"}}, "more than 64", "larger step"),
        ({"model": "m", "space": {"instances": [2**60]}}, "beyond 2**53", "quote"),
        ({"model": "m", "space": {"kind": ["tpu"]}}, '"tpu"', "cpu, gpu"),
        ({"model": "m", "space": {"response_cache": [1]}}, "cannot be 1", "true or false"),
        ({"model": "m", "space": {"preferred_batch_sizes": [4]}}, "cannot be 4", "[[], [4, 8]]"),
        ({"model": "m", "space": {"queue": [{"timeout": 5}]}}, "timeout", "timeout_us"),
        ({"model": "m", "space": {"queue": [{"max_size": True}]}}, "true", "max_size"),
        ({"model": "m", "space": {"threads": {"values": [1], "wen": "a=b"}}}, "'wen'", "did you mean when?"),
        ({"model": "m", "space": {"threads": {"values": [1], "when": "cpu"}}}, "'cpu'", "PATH=VALUE"),
        ({"model": "m", "space": {"threads": {"values": [1], "when": [3]}}}, "no condition", "PATH=VALUE"),
        (
            {"model": "m", "space": {"instances": [1], "instance_group[0].count": [2]}},
            "set the same place",
            "keep one",
        ),
        ({"model": "m", "space": {"instances": [1], "instance_group": [None]}}, "set the same place", "keep one"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_with_a_hint(tree: Json, said: str, hint: str) -> None:
    with pytest.raises(SweepInvalid) as caught:
        spec_from_json(tree)

    assert said in caught.value.message
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model: [", "line 1, column 9"),
        ("model: a\nmodel: b", "line 2, column 1: 'model' comes twice"),
        ("model: m\nsearch: &x {seed: 1}\nspace: *x", "line 3, column 8: aliases"),
        ("model: !!python/name:os.system", "tags such as tag:yaml.org,2002:python/name:os.system"),
        ("model: \0", "special characters"),
        ("model: m\ndefaults: !!bool maybe", "line 2, column 11: tags such as tag:yaml.org,2002:bool"),
        ("model: m\nsearch: {seed: !!int 0xff}", "line 2, column 16: tags"),
        ("[" * 5000, "line 1, column 21: deeper than 20 levels"),
        ("# " + "x" * 300_000, "too large"),
        ("", "not an object"),
        ("{1: 2}", "named fields"),
    ],
)
def test_text_that_cannot_be_read_is_refused_with_its_place(text: str, said: str) -> None:
    with pytest.raises(SweepInvalid) as caught:
        spec_from_text(text)

    assert said in caught.value.message


def test_ranges_and_dates_that_yaml_takes_for_something_else_stay_text() -> None:
    spec = spec_from_text(
        "{model: on, space: {instances: 1:4:1, 'parameters[\"d\"].string_value': [2026-01-01, no, 1e3, 010, ~, ]}}"
    )

    assert [one.values for one in spec.space] == [(1, 2, 3, 4), ("2026-01-01", "no", "1000", "010", None)]
    assert spec.model == "on"
    assert spec_from_text("model: m\nload:\nspace:\n") == SweepSpec("m")


def test_names_and_paths_are_checked_by_their_own_rules() -> None:
    with pytest.raises(NameInvalid):
        spec_from_json({"model": "../m"})
    with pytest.raises(ConfigPathInvalid):
        condition("a..b=1", "when")


def test_ladders_are_read_as_the_load_generator_reads_them() -> None:
    for text, steps in (
        ("16", [16]),
        ("1,4,16", [1, 4, 16]),
        ("100:250:100", [100, 200]),
        ("1:64:x4", [1, 4, 16, 64]),
        ("0.5:2:x2", [0.5, 1, 2]),
    ):
        assert [float(step) for step in ladder(text, "rate")] == steps
    assert spec_from_json({"model": "m", "load": {"concurrency": [1, 8]}}).load == Load(Shape.CONCURRENCY, "1,8")


def test_a_condition_reads_the_config_and_takes_what_is_missing_for_its_default() -> None:
    config: JsonObject = {
        "max_batch_size": 4,
        "instance_group": [{"name": "g", "kind": "KIND_CPU"}],
        "response_cache": {"enable": True},
    }

    assert condition("max_batch_size=4", "").holds(config)
    assert not condition("max_batch_size!=4", "").holds(config)
    assert condition('instance_group["g"].kind = KIND_CPU', "").holds(config)
    assert condition("response_cache.enable=true", "").holds(config)
    assert condition("dynamic_batching.priority_levels=0", "").holds(config)
    assert condition("dynamic_batching.priority_levels!=2", "").holds(config)
    assert not condition("instance_group[7].count=1", "").holds(config)
