"""Loading of the compiled kernels, and the instruction sets they are compiled for."""

from __future__ import annotations

import os
import subprocess
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from stgcn_fast import _native

CHECKOUT = Path(__file__).resolve().parent.parent
ORDER = ["default", "avx2", "avx512", "avx512_bf16"]

# Odd sizes leave tails in rows and columns of every tile width.
COMPUTE = """
import sys
import numpy as np
import torch
import stgcn_fast.ops
from stgcn_fast import _native
torch.manual_seed(0)
ops = torch.ops.stgcn_fast
out = {"kernels": np.array(_native.load().capability["kernels"])}
for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
    for channels, outputs in ((3, 5), (35, 37)):
        x, weight = torch.randn(2, channels, 17, 7).to(dtype), torch.randn(outputs, channels, 3, 1).to(dtype)
        for memory in (torch.contiguous_format, torch.channels_last):
            x = x.contiguous(memory_format=memory)
            y = ops.temporal_conv(x, weight, weight[:, 0, 0, 0].contiguous(), 2, 1, 1, False)
            dx = ops.temporal_conv_grad_input(y, weight, 17, 2, 1, 1, False)
            dw = ops.temporal_conv_grad_weight(x, y, 3, 2, 1, 1, False)
            for name, value in (("y", y), ("dx", dx), ("dw", dw)):
                out[f"{dtype}|{channels}|{memory}|{name}"] = value.double().numpy()
np.savez(sys.argv[1], **out)
"""


def run_python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STGCN_FAST_")}
    kept |= {"PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(
        [sys.executable, *arguments], env=kept, capture_output=True, text=True, check=False, timeout=240
    )


@pytest.fixture(scope="module")
def capability() -> dict[str, str]:
    if os.environ.get("STGCN_FAST_BACKEND") == "reference":
        pytest.skip("STGCN_FAST_BACKEND=reference: compiled kernels are not looked at")
    status = _native._load()
    if not status.loaded:
        pytest.skip(status.reason)
    return status.capability


def test_build_info_is_complete(capability: dict[str, str]) -> None:
    build = _native._load().build
    assert set(build) == {"compiler", "torch_target", "build_torch", "capabilities"}
    assert build["build_torch"] == torch.__version__
    assert build["torch_target"] == "2.10"
    assert capability["kernels"] in build["capabilities"]  # type: ignore[operator]
    assert ORDER.index(capability["kernels"]) <= ORDER.index(capability["used"])
    assert ORDER.index(capability["used"]) <= ORDER.index(capability["detected"])


@pytest.mark.timeout(600)
def test_every_instruction_set_gives_the_same_numbers(capability: dict[str, str], tmp_path: Path) -> None:
    built = _native._load().build["capabilities"]
    best = ORDER.index(capability["detected"])
    usable = [name for name in ORDER[: best + 1] if name in built]  # type: ignore[operator]
    results = {}
    for name in usable:
        path = tmp_path / f"{name}.npz"
        done = run_python(
            "-W",
            "error",
            "-c",
            COMPUTE,
            str(path),
            STGCN_FAST_CPU_CAPABILITY=name,
            STGCN_FAST_BACKEND="native",
        )
        assert done.returncode == 0, done.stderr
        results[name] = dict(np.load(path))
        assert str(results[name].pop("kernels")) == name
    rounding = {"float32": 2e-6, "float64": 1e-14, "bfloat16": 1.6e-2, "float16": 2e-3}
    for name in usable[1:]:
        for key, value in results[name].items():
            expected = results["default"][key]
            scale = np.abs(expected).max()
            assert scale > 0
            tolerance = rounding[key.split("|")[0].removeprefix("torch.")]
            assert np.abs(value - expected).max() <= tolerance * scale, (name, key)


@pytest.mark.parametrize(
    ("value", "rule"), [("avx1024", "default, avx2, avx512 or avx512_bf16, got 'avx1024'"), (None, "at most")]
)
def test_unusable_capability_is_said_once(capability: dict[str, str], value: str | None, rule: str) -> None:
    if value is None:
        above = ORDER[ORDER.index(capability["detected"]) + 1 :]
        if not above:
            pytest.skip("this machine has every instruction set")
        value = above[0]
    code = "import stgcn_fast.ops; from stgcn_fast import _native; print(_native.load().capability['used'])"
    done = run_python("-c", code, STGCN_FAST_CPU_CAPABILITY=value)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == capability["detected"]
    assert done.stderr.count("NativeKernelWarning") == 1
    assert f"STGCN_FAST_CPU_CAPABILITY must be {rule}" in done.stderr


class TestLoad:
    """`load` without its cache, with what is found on disk replaced."""

    @staticmethod
    def load() -> _native.NativeStatus:
        return _native.load.__wrapped__()

    @pytest.fixture
    def missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_native, "_load", lambda: _native.NativeStatus(False, "the kernels are away"))
        monkeypatch.delenv("STGCN_FAST_BACKEND", raising=False)

    @pytest.mark.usefixtures("missing")
    def test_missing_kernels_warn_with_the_reason(self) -> None:
        with pytest.warns(
            _native.NativeKernelWarning, match=r"^stgcn_fast: the kernels are away; ops run"
        ) as said:
            status = self.load()
        assert not status.loaded
        assert status.reason == "the kernels are away"
        assert len(said) == 1

    @pytest.mark.usefixtures("missing")
    def test_native_makes_missing_kernels_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("STGCN_FAST_BACKEND", "native")
        with pytest.raises(ImportError, match="STGCN_FAST_BACKEND is 'native', but the kernels are away"):
            self.load()

    def test_reference_does_not_look_for_kernels(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail() -> _native.NativeStatus:
            raise AssertionError("looked for the extension")

        monkeypatch.setattr(_native, "_load", fail)
        monkeypatch.setenv("STGCN_FAST_BACKEND", "reference")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            status = self.load()
        assert not status.loaded
        assert "STGCN_FAST_BACKEND=reference" in status.reason

    def test_unknown_backend_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("STGCN_FAST_BACKEND", "fast")
        with pytest.raises(
            ValueError, match="STGCN_FAST_BACKEND must be 'native' or 'reference', got 'fast'"
        ):
            self.load()

    def test_not_built_is_the_reason(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_native.importlib.util, "find_spec", lambda name: None)
        assert _native._load().reason == "the compiled kernels are not built"

    def test_load_error_is_the_reason(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(name: str) -> object:
            raise ImportError("undefined symbol: torch_new_function")

        monkeypatch.setattr(_native.importlib.util, "find_spec", lambda name: object())
        monkeypatch.setattr(_native.importlib, "import_module", broken)
        assert "cannot be loaded (undefined symbol: torch_new_function)" in _native._load().reason


class TestLoadCuda:
    """What becomes of the CUDA library, with what torch and the disk say replaced."""

    @pytest.fixture(autouse=True)
    def torch_with_cuda(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        monkeypatch.delenv("STGCN_FAST_CUDA", raising=False)

    def test_a_torch_without_cuda_needs_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.version, "cuda", None)
        assert _native._load_cuda() == _native.CudaStatus(False, "this torch is built without CUDA")

    def test_not_built_is_the_reason(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_native.importlib.util, "find_spec", lambda name: None)
        assert _native._load_cuda() == _native.CudaStatus(False, "the CUDA kernels are not built")

    def test_left_out_by_the_switch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("STGCN_FAST_CUDA", "0")
        assert "STGCN_FAST_CUDA=0" in _native._load_cuda().reason
        monkeypatch.setenv("STGCN_FAST_CUDA", "2")
        with pytest.raises(ValueError, match="STGCN_FAST_CUDA must be 0 or 1, got '2'"):
            _native._load_cuda()

    def test_a_library_that_does_not_load_is_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(name: str) -> object:
            raise ImportError("undefined symbol: cudaNewFunction")

        monkeypatch.setattr(_native.importlib.util, "find_spec", lambda name: object())
        monkeypatch.setattr(_native.importlib, "import_module", broken)
        status = _native._load_cuda()
        assert status.broken
        assert "cannot be loaded (undefined symbol: cudaNewFunction)" in status.reason
        loaded = _native.NativeStatus(True, cuda=status)
        monkeypatch.setattr(_native, "_load", lambda: loaded)
        monkeypatch.delenv("STGCN_FAST_BACKEND", raising=False)
        with pytest.warns(_native.NativeKernelWarning, match="on CUDA ops run their PyTorch reference"):
            assert _native.load.__wrapped__() is loaded

    def test_a_loaded_library_asks_torch_about_tf32(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = []
        module = types.SimpleNamespace(set_tf32_query=asked.append, build_info=lambda: {"nvcc": "13.0"})
        monkeypatch.setattr(_native.importlib.util, "find_spec", lambda name: object())
        monkeypatch.setattr(_native.importlib, "import_module", lambda name: module)
        assert _native._load_cuda() == _native.CudaStatus(True, "", {"nvcc": "13.0"})
        (query,) = asked
        was = torch.backends.cudnn.allow_tf32
        try:
            for allowed in (True, False):
                torch.backends.cudnn.allow_tf32 = allowed
                assert query() is allowed
        finally:
            torch.backends.cudnn.allow_tf32 = was
