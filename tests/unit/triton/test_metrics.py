# Reading Prometheus text.
from __future__ import annotations

from controlplane.triton.metrics import Sample, probed_instances, samples

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
