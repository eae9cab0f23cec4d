"""The scikit-learn estimator: scikit-learn's own checks, 3-D input, published accuracy, the example."""

from __future__ import annotations

import doctest
import importlib
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.exceptions import DataConversionWarning, NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.utils.estimator_checks import estimator_checks_generator

from stgcn_fast import dtw
from stgcn_fast.dtw import DTWNeighborsClassifier

ROOT = Path(__file__).resolve().parents[2]
# What this scikit-learn checks, on [N, T] arrays: series of one feature. The 3-D forms are tested below.
CHECKS = [
    pytest.param(estimator, check, id=f"{estimator.weights}-{check.func.__name__}-{number}")
    for estimator in (DTWNeighborsClassifier(), DTWNeighborsClassifier(3, weights="distance", window=0.5))
    for number, (_, check) in enumerate(estimator_checks_generator(estimator))
]


def test_scikit_learn_has_checks():
    names = {parameter.values[1].func.__name__ for parameter in CHECKS}
    assert {"check_classifiers_train", "check_n_features_in", "check_estimators_pickle"} <= names
    assert len(CHECKS) > 80


@pytest.mark.filterwarnings("ignore")  # the checks provoke them
@pytest.mark.parametrize(("estimator", "check"), CHECKS)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.fixture
def gestures(collection):
    train = collection([20, 31, 27, 20, 44, 30], 3)
    rng = np.random.default_rng(1)
    test = [np.repeat(s, rng.integers(1, 3, len(s)), 0) + 0.01 * rng.normal(size=3) for s in train]
    return train, np.array(["a", "b", "a", "c", "b", "c"]), test


def test_sequences_of_unequal_lengths(gestures):
    train, labels, test = gestures
    classifier = DTWNeighborsClassifier().fit(train, labels)
    assert classifier.predict(test).tolist() == labels.tolist()
    assert classifier.score(test, labels) == 1
    assert classifier.n_features_in_ == 3
    assert classifier.classes_.tolist() == ["a", "b", "c"]
    offsets = np.cumsum([0, *map(len, test)])
    packed = dtw.Sequences(np.concatenate(test), offsets)
    for form in (packed, tuple(test), np.array(test, dtype=object)):
        assert classifier.predict(form).tolist() == labels.tolist()
    distances, indices = classifier.kneighbors(test, 4)
    table = dtw.dtw_cdist(test, train)
    np.testing.assert_array_equal(indices, np.argsort(table, 1)[:, :4])
    np.testing.assert_array_equal(distances, np.sort(table, 1)[:, :4])
    again = pickle.loads(pickle.dumps(classifier))
    np.testing.assert_array_equal(again.predict_proba(test), classifier.predict_proba(test))
    with pytest.raises(ValueError, match="X has 2 features, but DTWNeighborsClassifier is expecting 3"):
        classifier.predict([s[:, :2] for s in test])


@pytest.mark.parametrize("weights", ["uniform", "distance"])
@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("window", [None, 4])
def test_agrees_with_a_precomputed_matrix(collection, weights, k, window):
    train = np.stack(collection([25] * 30, 2))
    test = np.stack(collection([25] * 20, 2, seed=1))
    test[0] = train[4]  # distance zero
    labels = np.arange(30) % 3
    ours = DTWNeighborsClassifier(k, window=window, weights=weights).fit(train, labels)
    theirs = KNeighborsClassifier(k, weights=weights, metric="precomputed")
    theirs.fit(dtw.dtw_pairwise_distance(train, window), labels)
    between = dtw.dtw_cdist(test, train, window)
    np.testing.assert_allclose(ours.predict_proba(test), theirs.predict_proba(between), rtol=1e-12)
    np.testing.assert_array_equal(ours.predict(test), theirs.predict(between))
    if k == 1 or weights == "distance":
        assert ours.predict(test)[0] == labels[4]


def test_search_and_clone(gestures):
    train, labels, _ = gestures
    search = GridSearchCV(DTWNeighborsClassifier(), {"window": [None, 0.1]}, cv=2).fit(train, labels)
    assert set(search.best_params_) == {"window"}
    assert clone(DTWNeighborsClassifier(2, window=3)).get_params() == {
        "n_neighbors": 2, "window": 3, "band": "sakoe_chiba", "max_slope": 2.0, "normalize": None,
        "weights": "uniform", "n_jobs": None,
    }  # fmt: skip


def test_series_of_one_feature():
    classifier = DTWNeighborsClassifier().fit(np.eye(4), [0, 1, 0, 1])
    assert classifier.n_features_in_ == 4
    with pytest.raises(ValueError, match=r"X has 3 features, but \w+ is expecting 4 features"):
        classifier.predict(np.eye(3))
    assert classifier.predict([np.array([1.0, 0.0])]).tolist() == [0]  # a list of series may have any lengths
    with pytest.warns(DataConversionWarning, match="column-vector"):
        DTWNeighborsClassifier().fit(np.eye(4), [[0], [1], [0], [1]])


@pytest.mark.parametrize(
    ("error", "options", "message"),
    [
        (TypeError, {"n_neighbors": 1.0}, "n_neighbors must be an int, got 1.0"),
        (
            ValueError,
            {"n_neighbors": 7},
            "n_neighbors must be from 1 to n_samples = 6, got 7",
        ),
        (ValueError, {"weights": "near"}, "weights must be 'uniform' or 'distance', got 'near'"),
        (ValueError, {"window": -1}, "window must be from 0 to 44"),
        (TypeError, {"window": "1"}, "window must be None, an int or a float"),
    ],
)
def test_bad_input(gestures, error, options, message):
    train, labels, _ = gestures
    with pytest.raises(error, match=f"DTWNeighborsClassifier: {message}"):
        DTWNeighborsClassifier(**options).fit(train, labels)


def test_bad_data(gestures):
    train, labels, test = gestures
    with pytest.raises(NotFittedError):
        DTWNeighborsClassifier().predict(test)
    with pytest.raises(ValueError, match="y must hold 6 labels"):
        DTWNeighborsClassifier().fit(train, labels[:5])
    with pytest.raises(ValueError, match=r"DTWNeighborsClassifier: X\[1\] must be finite, got nan"):
        DTWNeighborsClassifier().fit([train[0], np.full((3, 3), np.nan)], labels[:2])


def test_without_scikit_learn_the_rest_works():
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "from stgcn_fast import dtw\n"
        "try: dtw.DTWNeighborsClassifier\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == 'DTWNeighborsClassifier needs scikit-learn: pip install "stgcn_fast[dtw]"'
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = dtw.nothing


def test_example_in_the_documentation_runs():
    result = doctest.testmod(importlib.import_module("stgcn_fast.dtw.neighbors"))
    assert result.attempted >= 2
    assert result.failed == 0


def test_example_script_runs():
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "dtw_knn.py")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "60 clips to learn from, 60 to classify"
    assert len(lines) == 6
    assert all(float(line.split(": ")[-1].split()[0]) > 0.8 for line in lines[1:])


def test_natops_reaches_the_published_accuracy(test_data):
    (train, labels), (test, wanted) = (
        natops(test_data / "natops" / f"NATOPS_{p}.ts") for p in ("TRAIN", "TEST")
    )
    assert train.shape == test.shape == (180, 51, 24)
    # 82 to 88 % are published for 1-NN under multivariate DTW.
    assert 0.82 <= DTWNeighborsClassifier().fit(train, labels).score(test, wanted) <= 0.89
    accuracy = dtw.one_nn_accuracy(dtw.dtw_cdist(test, train, 0.1), labels, wanted)
    assert 0.82 <= accuracy <= 0.89


def natops(path: Path) -> tuple[np.ndarray, np.ndarray]:
    if not path.is_file():
        pytest.skip(f"no {path}")
    rows = [line.split(":") for line in path.read_text(encoding="latin-1").split("@data")[1].split()]
    clips = np.array([[part.split(",") for part in row[:-1]] for row in rows], dtype=np.float32)
    return np.ascontiguousarray(clips.transpose(0, 2, 1)), np.array([row[-1] for row in rows])
