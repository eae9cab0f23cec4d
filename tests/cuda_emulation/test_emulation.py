"""The emulation itself: it does what a GPU does, and sees races, missing barriers and reads out of bounds."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).resolve().parent


def run(library: ctypes.CDLL, name: str, order: int = 0, values: int = 512) -> tuple[np.ndarray, str]:
    library.stgcn_fast_emulation_order(order)
    numbers = np.arange(values, dtype=np.float32)
    out = np.zeros(values, np.float32)
    pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in (numbers, out)]
    error = library.run_self_test(name.encode(), *pointers)
    return out, "" if error is None else error.decode()


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_shuffles_barriers_and_shared_memory(self_test: ctypes.CDLL, order: int) -> None:
    out, error = run(self_test, "sum", order)
    assert error == ""
    assert out[:3].tolist() == [sum(range(128 * i, 128 * (i + 1))) for i in range(3)]
    out, error = run(self_test, "rotate", order)
    assert error == ""
    assert out[:64].tolist() == [*range(2, 65), 1]
    out, error = run(self_test, "copy", order)
    assert error == ""
    assert out[:32].tolist() == list(range(32))


def test_a_race_shows_in_the_order_of_threads(self_test: ctypes.CDLL) -> None:
    assert run(self_test, "race", 0)[0].tolist() != run(self_test, "race", 1)[0].tolist()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("barriers", "threads wait at different barriers"),
        ("leave", "threads wait for others that do not come"),
        ("partial_warp", "a block must be of whole warps"),
    ],
)
def test_what_would_hang_or_misbehave_is_an_error(self_test: ctypes.CDLL, name: str, said: str) -> None:
    assert said in run(self_test, name)[1]


@pytest.mark.parametrize("name", ["uninitialised", "copy_unawaited"])
def test_memory_nothing_wrote_holds_nan(self_test: ctypes.CDLL, name: str) -> None:
    out, error = run(self_test, name, order=1)
    assert error == ""
    assert np.isnan(out[:32]).all()


def test_halves_round_as_numpy_does(self_test: ctypes.CDLL) -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    values = bits.view(np.float16).astype(np.float32)
    got = np.array([self_test.half_to_float(int(b)) for b in bits[::7]], np.float32)
    np.testing.assert_array_equal(got, values[::7])
    random = np.random.default_rng(0)
    samples = random.standard_normal(4000) * 10.0 ** random.integers(-9, 6, 4000)
    samples = np.concatenate([samples, [0, 65519.99, 65520, 2**-24, 2**-25, 6.1e-5, 6.09e-5, np.inf]])
    samples = samples.astype(np.float32)
    with np.errstate(over="ignore"):
        expected = samples.astype(np.float16).view(np.uint16)
    assert [self_test.float_to_half(float(value)) for value in samples] == expected.tolist()


def test_bfloat16_and_tf32_round_to_nearest(self_test: ctypes.CDLL) -> None:
    import torch

    samples = torch.randn(2000) * 10.0 ** torch.randint(-20, 20, (2000,))
    expected = (samples.bfloat16().view(torch.int16).int() & 0xFFFF).tolist()
    assert [self_test.float_to_bfloat16(float(value)) for value in samples] == expected
    for value in samples.tolist():
        bits = self_test.float_to_tf32(value) & 0xFFFFFFFF
        rounded = np.array([bits], np.uint32).view(np.float32)[0]
        assert bits & 0x1FFF == 0
        assert abs(rounded - value) <= abs(value) * 2.0**-11


def sanitized(*arguments: str) -> subprocess.CompletedProcess[str]:
    compiler = os.environ.get("CXX") or "g++"
    libraries = []
    for name in ("libasan.so", "libstdc++.so"):
        found = subprocess.run(
            [compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=False
        )
        libraries.append(found.stdout.strip())
    if not all(Path(library).is_absolute() for library in libraries):
        pytest.skip(f"{compiler} has no address sanitizer")
    environment = {
        **os.environ,
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",
        "OMP_NUM_THREADS": "1",
        "STGCN_FAST_EMULATION_SANITIZE": "1",
    }
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", *arguments],
        env=environment,
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )


pytestmark = pytest.mark.timeout(600)


@pytest.mark.skipif("STGCN_FAST_EMULATION_SANITIZE" in os.environ, reason="this is the run under it")
class TestAddressSanitizer:
    """The kernels once more, every access checked, as a device without tensor cores runs them."""

    def test_the_kernels_stay_within_bounds(self) -> None:
        chosen = [str(path) for path in sorted(HERE.glob("test_*.py")) if path.name != Path(__file__).name]
        done = sanitized(*chosen, "-k", "(float32 or bfloat16) and agree")
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        assert " passed" in done.stdout

    def test_it_sees_a_read_past_shared_memory(self) -> None:
        done = sanitized(f"{Path(__file__)}::test_overrun")
        assert done.returncode != 0
        assert "heap-buffer-overflow" in done.stdout + done.stderr


@pytest.mark.skipif("STGCN_FAST_EMULATION_SANITIZE" not in os.environ, reason="needs the address sanitizer")
def test_overrun(self_test: ctypes.CDLL) -> None:
    run(self_test, "overrun")
