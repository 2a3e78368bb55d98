# What is read from a server's log, and what is left.
from __future__ import annotations

from pathlib import Path

from controlplane.triton.server_log import ServerLog, poll_failure

LOG = """I1122 01:02:03.000000 7 server.cc:674] "started"
[libprotobuf ERROR google/protobuf/text_format.cc:335] Error parsing text-format inference.ModelConfig: 3:1: no field named "x".
E1122 01:02:04.000000 7 model_repository_manager.cc:1460] "Poll failed for model directory 'm': failed to read text proto"
E1122 01:02:05.000000 7 model_repository_manager.cc:1460] "Poll failed for model directory 'm2': name is wrong"
"""


def test_only_what_was_appended_after_the_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "triton.log"
    log = ServerLog(path)
    assert (log.end(), log.since(0)) == (0, "")
    path.write_text("before\n")
    mark = log.end()
    with path.open("a") as file:
        file.write("after\n")
    assert log.since(mark) == "after\n"
    path.write_text("new\n")  # replaced by a shorter one
    assert log.since(mark) == "new\n"
    path.write_bytes(b"x" * (3 * 1024 * 1024) + b"end\xff")
    assert (len(log.since(0)), log.since(0)[-4:]) == (1024 * 1024, "end\ufffd")


def test_the_reason_of_a_failed_poll_is_that_of_the_asked_model_with_the_parsers_complaint() -> None:
    parser = 'Error parsing text-format inference.ModelConfig: 3:1: no field named "x".'
    assert poll_failure(LOG, "m") == f"Poll failed for model directory 'm': failed to read text proto ({parser})"
    assert poll_failure(LOG, "m2") == "Poll failed for model directory 'm2': name is wrong"
    assert poll_failure(LOG, "m3") is None
