"""The benchmarks' runner: rows, table, JSON, comparison, and that it refuses to time what disagrees."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import compare
import run
from side_by_side import accuracy, blocks, cases, floor, layers, measure, networks, peers, scaling, table
from side_by_side.measure import Contender, Context, Disagreement
from stgcn_fast.cli.timing import EagerSTGCN
from stgcn_fast.models import STGCN

ROOT = Path(run.__file__).resolve().parents[1]
PEAK = {"float32": 1e11, "bfloat16": 2e11}
EAGER = Context(1, 0.05, ("eager",), PEAK)


@pytest.fixture(autouse=True)
def _fewer_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "TURN", 0.0)
    monkeypatch.setattr(measure, "PAUSE", 0.0)


def named(name: str) -> cases.Case:
    (found,) = cases.select(name)
    return found


def row(name: str, **times: float) -> dict[str, Any]:
    values = {key.replace("_", " "): measure.summary([value], 1.0) for key, value in times.items()}
    return {"name": name, "status": "ok", "unit": "ms", "values": values, "errors": {"ours": 1e-6}}


def test_names_are_unique_and_every_kind_of_work_is_there() -> None:
    names = [case.name for case in cases.every()]
    assert len(names) == len(set(names))
    for wanted in (
        *(f"network ntu N {n} inference {d}" for n in (1, 8, 16) for d in ("float32", "bfloat16")),
        *(f"network kinetics N {n} inference {d}" for n in (1, 8) for d in ("float32", "bfloat16")),
        *(f"network ntu N {n} training {d}" for n in (1, 4, 8) for d in ("float32", "bfloat16")),
        *(f"block 64-64 T300 V25 N {n} training float32" for n in (2, 16)),
        "block 64-128 T300 V25 N 2 inference float32",
        "memory ntu N 8 training float32",
        "linear in N",
        "linear in T",
        *(f"no cliff in {axis}, {step}" for axis in "TVC" for step in ("inference", "training")),
        *(f"accuracy {kind} recordings inference {d}" for kind in ("ntu", "kinetics") for d in cases.DTYPES),
        "accuracy ntu recordings training float32",
        "layer AAGCN graph per_sample 3-64 T300 V25 K3 N 2 training",
        "layer MS-G3D temporal 96-16 T300 V25 Γ1 s2 N 2 training",
    ):
        assert wanted in names
    assert any(name.startswith("layer DC-GCN graph per_group") for name in names)
    for network in ("ST-GCN", "pyskl ST-GCN", "ST-GCN++", "AAGCN", "CTR-GCN", "MS-G3D"):
        assert any(name.startswith(f"layer {network} graph") for name in names)
        assert any(name.startswith(f"layer {network} temporal") for name in names)
    assert {17, 18, 20, 21, 33} <= {case.arguments.get("joints") for case in cases.select("odd block")}


def test_a_block_is_compared_with_every_installed_peer() -> None:
    context = Context(1, 0.05, ("eager", "onnxruntime", "openvino"), PEAK)
    (found,) = run.measure(named("tiny block inference"), context)
    assert found["status"] == "ok", found
    wanted = {"eager", "eager channels_last", "ours", "ours direct", "ours contiguous"}
    wanted |= {title for title in ("ONNX Runtime", "OpenVINO") if title not in peers.missing(context)}
    assert set(found["values"]) == wanted == set(found["errors"])
    assert all(error < blocks.AGREEMENT for error in found["errors"].values())
    assert all(len(entry["samples"]) >= 5 for entry in found["values"].values())
    assert found["floor"] == pytest.approx(1e3 * found["gflop"] * 1e9 / PEAK["float32"])


@pytest.mark.parametrize(
    "name",
    [
        "tiny block training",
        "tiny network inference",
        "tiny network training",
        "tiny network scaling",
        "tiny block scaling, inference",
        "tiny block scaling, training",
    ],
)
def test_tiny_cases_give_rows(name: str) -> None:
    rows = run.measure(named(name), EAGER)
    assert [found["status"] for found in rows] == ["ok"] * len(rows), rows
    assert all(found["values"]["ours"]["median"] > 0 for found in rows)
    json.dumps(rows)


@pytest.mark.parametrize(
    "shape",
    [
        layers.GraphShape(4, 8, 6, 8),
        layers.GraphShape(8, 4, 6, 8, 4, "dense"),
        layers.GraphShape(4, 8, 6, 8, 3, "per_sample"),
        layers.GraphShape(4, 8, 6, 8, 3, "per_channel"),
        layers.GraphShape(4, 8, 6, 8, 3, "per_group", 2),
        layers.TemporalShape(8, 12, 8, 1, stride=2, outputs=4),
        layers.TemporalShape(4, 12, 8, 3, dilation=2),
        layers.TemporalShape(4, 12, 8, stride=2),
    ],
    ids=str,
)
@pytest.mark.parametrize("function", [layers.inference, layers.training])
def test_layers_of_every_form(function: Any, shape: Any) -> None:
    found = function(EAGER, shape=shape, batch=2)
    assert {"eager", "eager channels_last", "ours", "ours contiguous"} == set(found["values"])
    assert table.error(found) < layers.AGREEMENT


def test_bfloat16_is_compared_in_the_fastest_way_of_each_peer() -> None:
    a = named("tiny block inference").arguments | {"dtype": "bfloat16"}
    found = blocks.inference(EAGER, **a)
    assert set(found["values"]) >= {"eager", "eager channels_last", "ours"}
    assert found["variants"]["eager"] in ("autocast", "bfloat16 module")
    assert 1e-6 < table.error(found) < 0.1


def test_what_disagrees_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = blocks.eager_block
    monkeypatch.setattr(blocks, "eager_block", lambda block, x, a: right(block, x, a) + 0.1 * x.mean())
    for name in ("tiny block inference", "tiny block training"):
        (found,) = run.measure(named(name), EAGER)
        assert found["status"] == "disagrees"
        assert "results must agree within" in found["message"]
        assert not found["values"]


@pytest.mark.parametrize("wrong", ["value", "gradient", "dropout"])
def test_a_wrong_training_step_is_not_timed(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    right = STGCN.forward

    def forward(self: STGCN, x: torch.Tensor) -> torch.Tensor:
        if wrong == "dropout":
            torch.manual_seed(0)
        y = right(self, x)
        return {"value": 1.01 * y, "gradient": 2 * y - y.detach(), "dropout": y}[wrong]

    monkeypatch.setattr(STGCN, "forward", forward)
    (found,) = run.measure(named("tiny network training"), EAGER)
    assert (found["status"], "training" in found["message"]) == ("disagrees", True), found


def test_not_a_number_disagrees() -> None:
    nan = torch.full((2,), float("nan"))
    with pytest.raises(Disagreement, match=r"row, ours: results must agree within 0\.1 .* got nan"):
        measure.check("row", {"ours": nan}, torch.ones(2), 0.1)


def test_contenders_alternate_and_variants_are_screened() -> None:
    calls: list[str] = []
    times = measure.alternate({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 0.0)
    assert "".join(calls) == "aabb" + "ab" + "ba" + "ab" + "ba" + "ab"
    assert [len(samples) for samples in times.values()] == [5, 5]

    def slow() -> None:
        sum(range(200_000))

    several = [Contender("x", slow, "slow"), Contender("x", lambda: None, "fast"), Contender("y", slow)]
    chosen = measure.screen(several)
    assert [(c.name, c.variant) for c in chosen] == [("x", "fast"), ("y", "")]


def test_operations_are_counted() -> None:
    model = networks.network(networks.SHAPES["ntu"])
    clip = floor.network_flop(model, 2, 300) / 1e9
    assert 30 < clip < 31  # 34.2 with a dense adjacency
    assert floor.network_flop(model, 16, 300) / 1e9 == pytest.approx(8 * clip)
    a = torch.zeros(1, 3, 3)
    a[0, 0, 1] = a[0, 2, 1] = 1  # two sources, one target
    assert floor.graph_conv_flop(a, 4, 8, 10) == 10 * (2 * 4 * 8 + 2 * 2 * 4)
    assert floor.graph_conv_flop(a, 4, 8, 10, channelwise=True) == 10 * (2 * 4 * 8 * 2 + 2 * 2 * 8)


def test_the_eager_network_in_float64_is_the_reference_of_few_clips() -> None:
    model = networks.network(networks.SHAPES["tiny"]).eval()
    x = networks.clips(model, 2, 24)
    assert networks.reference_logits(model, x).dtype == torch.float64
    many = networks.reference_logits(model, x.repeat(2, 1, 1, 1, 1))
    with torch.no_grad():
        torch.testing.assert_close(many[:2], EagerSTGCN(model)(x))


def test_recordings_are_padded_as_the_public_pipeline_does(test_data: Path) -> None:
    x = networks.recordings()
    assert x.shape[1:] == (3, 300, 25, 2)
    there = (x != 0).any(3).any(1)  # [N, T, M]
    assert there[:, 0, 0].all()
    assert not there[:, 150:].any()
    assert 0 < int(there.any(1)[:, 1].sum()) < len(x)


def test_the_cost_of_a_frame_is_relative_to_the_first_size() -> None:
    rows = scaling.inference(EAGER, shape="tiny", sizes=((1, 24), (2, 24)))
    one, two = (found["values"]["ours"]["median"] for found in rows)
    assert [found["name"] for found in rows] == ["N 1, T 24", "N 2, T 24"]
    assert rows[1]["note"] == f"{two / 2 / one:.2f} a frame"


def test_an_operation_is_beside_its_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([1.0, 3.0, 1.0])
    monkeypatch.setattr(scaling, "alternate", lambda calls, _: {name: [next(times)] for name in calls})
    rows = scaling.unusual(EAGER, shapes=((8, 8, 12, 8), (8, 8, 13, 8), (8, 8, 12, 17)), train=False)
    first, second, third = (entry["values"]["ours"]["median"] / entry["gflop"] for entry in rows)
    assert (
        rows[1]["note"] == f"{2 * second / (first + third):.2f} an operation beside its neighbours, a cliff"
    )
    assert rows[0]["note"] == f"{first / second:.2f} an operation beside its neighbours"


def test_recordings_are_compared_with_float64(test_data: Path) -> None:
    rows = accuracy.recordings(EAGER, shape="ntu", dtype="float32", frames=8)
    assert [found["name"] for found in rows] == ["own lengths", "padded to T 8"]
    for found in rows:
        assert set(found["errors"]) == set(accuracy.WAYS)
        assert 0 < table.error(found) < accuracy.LIMIT
        assert "the same class in 10 of 10" in found["note"]
    assert "eager's error" in table.markdown([rows[0] | {"status": "ok"}])
    with pytest.raises(Disagreement, match=r"recordings, ours direct: results must agree"):
        accuracy._row("recordings", {"ours direct": 1e-3, "eager": 1e-7}, "float32", EAGER, "")


def test_kinetics_recordings_have_a_score(test_data: Path) -> None:
    x = networks.recordings(20, kind="kinetics")
    assert x.shape == (2, 3, 20, 18, 2)
    assert (x[:, 2].amax((1, 2, 3)) > 0).all()


def test_entries_that_are_off_are_counted() -> None:
    b = [torch.ones(100), torch.zeros(100)]
    assert blocks.strays([b[0].clone(), b[1] + 1e-8], b, 1e-4) == 0
    off = b[0].clone()
    off[:3] += 1e-3
    assert blocks.strays([off, b[1]], b, 1e-4) == 3 / 200
    assert blocks.strays([off, b[1]], b, 1e-2) == 0
    off[5] = float("nan")
    assert blocks.strays([off, b[1]], b, 1e-2) == 1 / 200


def test_table() -> None:
    rows = [
        row("fast", ours=2.0, eager=5.0, OpenVINO=4.0, ours_direct=2.5) | {"floor": 1.5},
        row("alone", ours=3.0),
        {"name": "bad", "status": "disagrees", "message": "no", "values": {}},
    ]
    lines = table.markdown(rows).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert "| fast | 2 ms | OpenVINO | 2.00 | 2.50 | 2.00 | 75% | 60% | 1e-06 |" in lines[2]
    assert "| bad | disagrees: no |" in lines[4]
    assert table.ratio(rows[1]) is None


def test_command_line(tmp_path: Path) -> None:
    out = tmp_path / "new" / "run.json"
    words = ["--only", "tiny block training", "--threads", "1", "--seconds", "0.01", "--peers", "eager"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "benchmarks/run.py", *words, "--peak", "100,200", "--json", str(out)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    document = json.loads(out.read_text())
    assert set(document) == {"schema", "about", "missing", "rows"}
    about = {"date", "command", "commit", "processor", "threads", "allocator", "kernels", "versions"}
    assert about <= set(document["about"])
    assert document["about"]["peak_gflops"] == {"float32": 100, "bfloat16": 200}
    (found,) = document["rows"]
    assert (found["name"], found["status"], found["allocator"]) == ("tiny block training", "ok", "tuned")
    assert set(found["values"]["ours"]) == {"median", "minimum", "samples"}
    assert "| tiny block training |" in done.stdout
    assert str(out) in done.stdout


def test_wrong_arguments_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        (["--only", "no such row"], "--only must find a row (see --list), got 'no such row'"),
        (["--only", "("], "--only must be a regular expression, got '('"),
        (["--only", "linear in N", "--peak", "3"], "--peak must be two positive numbers, got '3'"),
    ):
        assert run.main(words) == 2
        assert said in capsys.readouterr().err


def test_a_process_that_dies_is_a_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(run.sys, "executable", "false")
    (found,) = run.spawn([named("tiny block training")], run.parse([]), {})
    assert found["status"] == "failed"
    assert found["message"] == "its process ended with 1"


def test_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = tmp_path / "a.json", tmp_path / "b.json"
    before = [row("x", ours=2, eager=4), row("y", ours=1, eager=3), row("gone", ours=1, eager=2)]
    after = [row("x", ours=1, eager=3), row("y", ours=1, eager=2.7), row("new", ours=1)]
    a.write_text(json.dumps({"rows": before}))
    b.write_text(json.dumps({"rows": after}))
    assert compare.main([str(a), str(b)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "| x | 2.00 | 3.00 | 1.50 | 2.00 |" in lines
    assert "| y | 3.00 | 2.70 | 0.90 | 1.00 |" in lines
    assert "| gone | 2.00 |  |  |  |" in lines
    assert "| new |  |  |  |  |" in lines
    assert compare.main([str(a), str(b), "--fail-below", "0.95"]) == 1
    assert [line.split(":")[1].strip() for line in capsys.readouterr().err.splitlines()] == ["y", "gone"]
    assert compare.main([str(a), str(a), "--fail-below", "0.95"]) == 0


def test_compare_refuses_other_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.json"
    other.write_text("[]")
    assert compare.main([str(other), str(other)]) == 2
    assert f"{other}: must be a file that run.py wrote" in capsys.readouterr().err
    assert compare.main([str(tmp_path / "none.json"), str(other)]) == 2
