# The runtime environment is made once, whole, by one installer at a time, whatever happened to the one before.
from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from controlplane.errors import RuntimeUnavailable
from controlplane.triton.runtime.find import MARKER, TritonRuntime, environment_directory, find, info, installed
from controlplane.triton.runtime.install import install

CHECKOUT = Path(__file__).parents[3]
INSTALLER = """
import sys
from pathlib import Path
from controlplane.triton.runtime.install import install
install(Path(sys.argv[1]), progress=lambda text, share: print(f"{share:.2f} {text}", flush=True))
"""


def installer(directory: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", INSTALLER, str(directory)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT)


def test_an_installation_that_was_killed_is_replaced_and_two_at_once_make_one(
    runtime: TritonRuntime, tmp_path: Path
) -> None:
    target = environment_directory(tmp_path)
    with installer(tmp_path) as killed:
        assert killed.stdout is not None
        for line in killed.stdout:
            if "fetching" in line:
                break
        children = psutil.Process(killed.pid).children(recursive=True)
        killed.kill()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert alive == []  # nobody writes on beside the next installer
    assert target.is_dir()
    assert installed(tmp_path) is None
    (target / "left-over").touch()

    with installer(tmp_path) as one:
        time.sleep(1)
        with installer(tmp_path) as two:
            said = [one.communicate()[0], two.communicate()[0]]
    assert [one.returncode, two.returncode] == [0, 0]
    assert sum("making an environment" in text for text in said) == 1
    assert sum("waiting for another installation" in text for text in said) == 1
    shares = [float(line.split()[0]) for text in said for line in text.splitlines() if "waiting" not in line]
    assert shares[:-1] == sorted(shares[:-1])
    assert not (target / "left-over").exists()
    found = installed(tmp_path)
    assert found is not None
    assert info(tmp_path) == {
        "source": "runtime environment",
        "tritonserver": str(target / f"lib/python{found.python}/site-packages/pytriton/tritonserver/bin/tritonserver"),
        "triton": "2.51.0",
        "environment": str(target),
        "python": found.python,
        "numpy": "1.26.4",
        "onnxruntime": found.onnxruntime,
    }

    numpy = next(found.site_packages.glob("numpy-*.dist-info")) / "METADATA"
    numpy.write_text(numpy.read_text().replace("Version: 1.26.4", "Version: 2.4.0"))
    with pytest.raises(RuntimeUnavailable, match=r"it needs numpy below 2 and has 2\.4\.0"):
        found.check()
    assert installed(tmp_path) is None


def test_an_installed_environment_is_found_again_at_once(runtime: TritonRuntime) -> None:
    assert runtime.environment is not None
    directory = runtime.environment.directory.parent
    before = (runtime.environment.directory / MARKER).stat().st_mtime_ns
    said: list[tuple[str, float]] = []
    install(directory, progress=lambda text, share: said.append((text, share)))
    assert said == [("the runtime environment is ready", 1.0)]
    assert (runtime.environment.directory / MARKER).stat().st_mtime_ns == before
    assert find(directory) == runtime


def test_the_marker_says_what_is_inside(runtime: TritonRuntime) -> None:
    assert runtime.environment is not None
    code = "import json, numpy, onnxruntime; print(json.dumps([numpy.__version__, onnxruntime.__version__]))"
    python = runtime.environment.directory / "bin" / "python"
    inside = json.loads(subprocess.run([python, "-c", code], capture_output=True, check=True).stdout)
    assert inside == [runtime.environment.numpy, runtime.environment.onnxruntime]
