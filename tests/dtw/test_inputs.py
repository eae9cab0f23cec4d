"""Every accepted form of input, and one clear line for every other."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from stgcn_fast import dtw


def test_all_forms_of_a_collection_agree():
    x = np.random.default_rng(0).normal(size=(6, 9, 4))
    want = dtw.dtw_pairwise_distance(x)
    strided = np.asfortranarray(np.repeat(x, 2, axis=1))[:, ::2]
    read_only = x.copy()
    read_only.setflags(write=False)
    packed = dtw.Sequences(read_only.reshape(54, 4), np.arange(0, 55, 9))
    forms = [
        list(x),
        tuple(x),
        x.tolist(),
        torch.from_numpy(x),
        list(torch.from_numpy(x)),
        strided,
        read_only,
        packed,
    ]
    forms.append(torch.from_numpy(x).requires_grad_())
    forms.append(np.empty(6, object))
    forms[-1][:] = list(x)
    for form in forms:
        np.testing.assert_array_equal(dtw.dtw_pairwise_distance(form), want)
    flat = x[:, :, 0]
    for form in [flat, list(flat), flat[:, :, None]]:
        np.testing.assert_array_equal(dtw.dtw_pairwise_distance(form), dtw.dtw_pairwise_distance(flat.copy()))
    assert dtw.dtw_distance(flat[0], flat[1]) == dtw.dtw_pairwise_distance(flat)[0, 1]


def test_inputs_are_left_alone():
    x = [np.random.default_rng(i).normal(size=(5, 2)) for i in range(3)]
    before = [a.copy() for a in x]
    dtw.dtw_pairwise_distance(x, 1)
    dtw.dtw_distance(x[0], x[1])
    for a, b in zip(x, before):
        np.testing.assert_array_equal(a, b)


def test_dtype_follows_the_input():
    single, double = np.ones((2, 3, 1), np.float32), np.ones((2, 3, 1))
    assert dtw.dtw_pairwise_distance(single).dtype == np.float32
    assert dtw.dtw_pairwise_distance([single[0], double[0]]).dtype == np.float64
    assert dtw.dtw_pairwise_distance(single, dtype=np.float64).dtype == np.float64
    assert dtw.dtw_pairwise_distance(double, dtype="float32").dtype == np.float32
    assert dtw.dtw_pairwise_distance(np.ones((2, 3), int)).dtype == np.float64
    assert dtw.dtw_cdist(single, double).dtype == np.float64


def test_sequences_behave_as_a_collection():
    s = dtw.Sequences(np.arange(12.0).reshape(6, 2), np.array([0, 1, 4, 6], np.int32))
    assert (len(s), s.features, s.lengths.tolist()) == (3, 2, [1, 3, 2])
    np.testing.assert_array_equal(s[-1], [[8, 9], [10, 11]])
    assert [len(a) for a in s] == [1, 3, 2]
    np.testing.assert_array_equal(s.select(1, 3)[0], s[1])
    with pytest.raises(IndexError):
        s[3]


GOOD = np.zeros((4, 2))
NAN = np.array([[0.0, 1.0], [np.nan, 1.0]])
INF = np.array([[0.0, 1.0], [1.0, -np.inf]], np.float32)


@pytest.mark.parametrize(
    ("arguments", "error", "line"),
    [
        (([],), ValueError, "X must hold at least one sequence, got none"),
        (
            ([GOOD, np.zeros((0, 2))],),
            ValueError,
            "X[1] must have at least one frame and one feature, got shape [0, 2]",
        ),
        (([GOOD, np.zeros((3, 3))],), ValueError, "X[1] must have 2 features like X[0], got 3"),
        (([GOOD, NAN],), ValueError, "X[1] must be finite, got nan at frame 1, feature 0"),
        (([GOOD, INF],), ValueError, "X[1] must be finite, got -inf at frame 1, feature 1"),
        (([GOOD, np.zeros((2, 2, 2))],), ValueError, "X[1] must have shape [T, D] or [T], got [2, 2, 2]"),
        (
            ([GOOD, [[1.0], [1.0, 2.0]]],),
            ValueError,
            "X[1] must be one array of numbers, got unequal rows",
        ),
        (([GOOD, GOOD > 0],), TypeError, "X[1] must hold float32 or float64 numbers, got bool"),
        (([GOOD, GOOD * 1j],), TypeError, "X[1] must hold float32 or float64 numbers, got complex128"),
        (([GOOD, "walk"],), TypeError, "X[1] must hold float32 or float64 numbers, got <U4"),
        (([torch.zeros(4, 2).bfloat16()],), TypeError, "X[0] must be float32 or float64, got torch.bfloat16"),
        (
            ([torch.zeros(4, 2, device="meta")],),
            ValueError,
            "X[0] must be on the CPU, got meta",
        ),
        (
            (np.zeros(5),),
            ValueError,
            "X must be a list or an array [N, T, D] or [N, T], got shape [5]",
        ),
        ((np.zeros((0, 5)),), ValueError, "X must hold at least one sequence, got none"),
        (([GOOD], -1), ValueError, "window must be from 0 to 4 cells (the longest sequence), got -1"),
        (([GOOD], 5), ValueError, "window must be from 0 to 4 cells (the longest sequence), got 5"),
        (([GOOD], 1.5), ValueError, "window as a float must be a share from 0.0 to 1.0, got 1.5"),
        (([GOOD], float("nan")), ValueError, "window as a float must be a share from 0.0 to 1.0, got nan"),
        (([GOOD], "3"), TypeError, "window must be None, an int or a float, got '3'"),
        (([GOOD], True), TypeError, "window must be None, an int or a float, got True"),
    ],
)
def test_bad_input_is_told_in_one_line(arguments, error, line):
    with pytest.raises(error, match=f"^dtw_pairwise_distance: {re.escape(line)}$"):
        dtw.dtw_pairwise_distance(*arguments)


def test_every_verb_names_itself_and_the_argument():
    with pytest.raises(ValueError, match=re.escape("dtw_distance: y must have 2 features like x, got 1")):
        dtw.dtw_distance(GOOD, np.zeros(3))
    with pytest.raises(ValueError, match=re.escape("dtw_cost_matrix: x must be finite, got nan at frame 1")):
        dtw.dtw_cost_matrix(NAN, GOOD)
    with pytest.raises(ValueError, match=re.escape("dtw_alignment_path: window must be from 0 to 4 cells")):
        dtw.dtw_alignment_path(GOOD, GOOD, 9)
    with pytest.raises(ValueError, match=re.escape("dtw_cdist: Y[0] must have 2 features like X[0], got 1")):
        dtw.dtw_cdist([GOOD], [np.zeros(3)])
    with pytest.raises(
        TypeError, match=re.escape("dtw_cdist: dtype must be float32 or float64, got 'int32'")
    ):
        dtw.dtw_cdist([GOOD], [GOOD], dtype="int32")
    for bad, error in ((0, ValueError), (-2, ValueError), (1.0, TypeError), (True, TypeError)):
        with pytest.raises(error, match="dtw_cdist: n_jobs must be"):
            dtw.dtw_cdist([GOOD], [GOOD], n_jobs=bad)


@pytest.mark.parametrize(
    ("frames", "offsets", "error", "rule"),
    [
        (GOOD.tolist(), [0, 4], TypeError, "frames must be a float32 or float64 array, got list"),
        (GOOD.astype(int), [0, 4], TypeError, "frames must be a float32 or float64 array, got int64"),
        (GOOD, [0.0, 4.0], TypeError, "offsets must be integers, got float64"),
        (GOOD[0], [0, 2], ValueError, "frames must have shape [rows, D], got [2]"),
        (GOOD, [0], ValueError, "offsets must have shape [N + 1], N >= 1, got [1]"),
        (GOOD, [0, 3], ValueError, "offsets must run from 0 to 4 (the rows of frames), got 0 to 3"),
        (GOOD, [0, 2, 2, 4], ValueError, "sequence 1 must have at least one frame, got offsets [2 2]"),
    ],
)
def test_bad_packed_sequences(frames, offsets, error, rule):
    with pytest.raises(error, match=f"^Sequences: {re.escape(rule)}$"):
        dtw.Sequences(frames, np.array(offsets))


def test_works_without_torch():
    program = (
        "import sys\n"
        "sys.modules['torch'] = None\n"
        "import numpy as np\n"
        "import stgcn_fast.dtw as dtw\n"
        "print(dtw.dtw_distance(np.zeros(3), np.ones(3)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) == pytest.approx(np.sqrt(3))
