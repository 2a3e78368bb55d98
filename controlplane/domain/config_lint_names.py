# Lint, first room: names, files and paths, which Triton passes unquoted to a shell or opens as they stand.
from __future__ import annotations

import re
from collections.abc import Iterator

from controlplane.domain.config_findings import Finding, Subject, refused, regret
from controlplane.domain.config_tree import message, messages, text, texts
from controlplane.domain.names import check_name
from controlplane.errors import NameInvalid

_PATH = re.compile(r"(?:\$\$TRITON_MODEL_DIRECTORY/)?[A-Za-z0-9_./-]{1,400}")
_IN_A_VERSION = re.compile(r"[1-9][0-9]{0,8}(?:/[A-Za-z0-9_][A-Za-z0-9_.-]*)+")
_NAME_HINT = "use A-Z a-z 0-9 _ . - ; begin with a letter, digit or underscore; no '..'"


def findings(subject: Subject) -> Iterator[Finding]:
    config = subject.config
    if "version_policy" in config:
        yield refused(
            "version_policy.present",
            "version_policy",
            "version_policy is not part of a revision's config: the revision's versions decide it",
            "unset version_policy and name the versions with --version",
        )
    if (name := text(config.get("name"))) not in {"", subject.model}:
        yield refused(
            "name.differs", "name", f"the config is for {name!r}, the model is {subject.model!r}", "unset name"
        )
    yield from _names(subject)
    yield from _paths(subject)
    yield from _absent_files(subject)


def _names(subject: Subject) -> Iterator[Finding]:
    config = subject.config
    fields = ("name", "backend", "platform", "runtime", "default_model_filename")
    named = [(field, text(config.get(field))) for field in fields]
    named += [(f"instance_group[{i}].name", text(g.get("name"))) for i, g in enumerate(subject.groups)]
    named += [(f"instance_group[{i}].host_policy", text(g.get("host_policy"))) for i, g in enumerate(subject.groups)]
    named += [(f'cc_model_filenames["{k}"]', text(v)) for k, v in subject.part("cc_model_filenames").items()]
    steps = messages(subject.part("ensemble_scheduling").get("step"))
    named += [(f"ensemble_scheduling.step[{i}].model_name", text(s.get("model_name"))) for i, s in enumerate(steps)]
    agents = messages(subject.part("model_repository_agents").get("agents"))
    named += [(f"model_repository_agents.agents[{i}].name", text(a.get("name"))) for i, a in enumerate(agents)]
    for path, name in named:
        if name:
            try:
                check_name(name, path)
            except NameInvalid:
                yield refused(
                    "name.unsafe",
                    path,
                    f"{path} {name[:120]!r} is not allowed: Triton passes it to a shell",
                    _NAME_HINT,
                )


def _paths(subject: Subject) -> Iterator[Finding]:
    parameters = subject.part("parameters")
    execution = text(message(parameters.get("EXECUTION_ENV_PATH")).get("string_value"))
    named = [('parameters["EXECUTION_ENV_PATH"].string_value', execution)] if "EXECUTION_ENV_PATH" in parameters else []
    libraries = texts(subject.part("model_operations").get("op_library_filename"))
    named += [(f"model_operations.op_library_filename[{i}]", library) for i, library in enumerate(libraries)]
    for path, value in named:
        if not _PATH.fullmatch(value) or ".." in value:
            yield refused(
                "path.unsafe",
                path,
                f"{path} {value[:120]!r} is not allowed: Triton passes it to a shell or loads it as code",
                "use A-Z a-z 0-9 _ . - / only, and no '..'",
            )
        else:
            yield regret(
                "path.foreign_code",
                path,
                f"{path} runs code from {value!r}, which no digest of the revision covers",
                "keep what the model needs in its version directory",
            )


def _absent_files(subject: Subject) -> Iterator[Finding]:
    """Nothing but versions, config and the files beside it lies in a model's directory: Triton would not find it."""
    for i, output in enumerate(messages(subject.config.get("output"))):
        name = text(output.get("label_filename"))
        if name and (not _IN_A_VERSION.fullmatch(name) or ".." in name) and name not in subject.beside:
            yield _absent(f"output[{i}].label_filename", name, "or unset label_filename")
    for i, warmup in enumerate(messages(subject.config.get("model_warmup"))):
        for key, value in message(warmup.get("inputs")).items():
            file = text(message(value).get("input_data_file"))
            if file and f"warmup/{file}" not in subject.beside:
                path = f'model_warmup[{i}].inputs["{key}"].input_data_file'
                yield _absent(path, f"warmup/{file}", "or use zero_data or random_data")
    for i, state in enumerate(messages(subject.part("sequence_batching").get("state"))):
        for j, initial in enumerate(messages(state.get("initial_state"))):
            file = text(initial.get("data_file"))
            if file and f"initial_state/{file}" not in subject.beside:
                path = f"sequence_batching.state[{i}].initial_state[{j}].data_file"
                yield _absent(path, f"initial_state/{file}", "or use zero_data")


def _absent(path: str, file: str, otherwise: str) -> Finding:
    return refused(
        "file.absent",
        path,
        f"the file {file[:120]!r} would not lie beside the config, and {path} names it",
        f"put it into a directory and give that to --beside, {otherwise}",
    )
