# Reading Prometheus text.
from __future__ import annotations

import socket
import threading

import pytest

from controlplane.errors import ServerUnreachable
from controlplane.triton.metrics import Sample, fetch, probed_instances, samples

TEXT = r"""# HELP onnxruntime_probes Requests named probe/... that this instance answered
# TYPE onnxruntime_probes counter
onnxruntime_probes{instance="m_0_0:12",model="m",version="1"} 2
onnxruntime_probes{instance="m_0_1:13",model="m",version="1"} 3.000000 1700000000000
onnxruntime_probes{instance="m_0_0:14",model="m",version="2"} 9
onnxruntime_probes{instance="a\"b\\c\nd,e}",model="odd",version="1"} 1e2
onnxruntime_probes_created{instance="m_0_0:12",model="m",version="1"} 5
nv_gpu_count 0
"""


def test_probed_instances_are_those_of_one_version() -> None:
    assert probed_instances(TEXT, "m", 1) == {"m_0_0:12": 2, "m_0_1:13": 3}
    assert probed_instances(TEXT, "m", 2) == {"m_0_0:14": 9}
    assert probed_instances(TEXT, "m", 3) is None
    assert probed_instances("", "m", 1) is None


def test_labels_are_unescaped_and_a_metric_may_have_none() -> None:
    assert probed_instances(TEXT, "odd", 1) == {'a"b\\c\nd,e}': 100}
    assert list(samples(TEXT, "nv_gpu_count")) == [Sample("nv_gpu_count", {}, 0.0)]


@pytest.mark.parametrize("value", ["NaN", "+Inf", "many"])
def test_a_value_that_is_no_count_says_nothing(value: str) -> None:
    assert probed_instances(f'onnxruntime_probes{{instance="m_0_0:12",model="m",version="1"}} {value}', "m", 1) is None


def fetched_from(answer: bytes) -> str:
    """What `fetch` makes of a server that says `answer` to whatever it is asked."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            return fetch(f"http://127.0.0.1:{server.getsockname()[1]}/metrics", deadline_seconds=2)
        finally:
            thread.join()


def test_what_does_not_speak_http_has_no_metrics() -> None:
    assert fetched_from(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x04\x00\x3f\xff\xff\r\n") == ""


def test_metrics_that_break_off_are_no_answer() -> None:
    with pytest.raises(ServerUnreachable, match="cannot be read"):
        fetched_from(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nhalf")
