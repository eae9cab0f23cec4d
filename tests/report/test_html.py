"""The page of a report: what is in it, what it does with names, and what it says of what is missing."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stgcn_fast import report
from stgcn_fast.data import FormatError
from stgcn_fast.explain import Explanation, save_explanation
from stgcn_fast.report.html import encode, page

NASTY = "</script><script>alert(1)</script><!-- <b>&amp;'\"\u2028"


class Reader(HTMLParser):
    """Elements of a page with their attributes and texts, as a browser tells them apart."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.inside = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), []))
        self.inside = True

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.found[-1][2].append(data)

    def texts(self, tag: str) -> list[tuple[dict[str, str | None], str]]:
        return [(attributes, "".join(texts)) for name, attributes, texts in self.found if name == tag]


@pytest.fixture(autouse=True)
def _small_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are about what is around the plotting library; that it works is tested in a browser."""
    monkeypatch.setattr(page, "plotting_library", lambda: "window.Plotly = {};\r\n// library\r")


def data_of(path: Path) -> Any:
    scripts = Reader(path.read_bytes().decode()).texts("script")
    (text,) = [text for attributes, text in scripts if attributes.get("id") == "data"]
    return json.loads(text)


def unpacked(packed: dict[str, Any]) -> Any:
    kinds = {"float32": "<f4", "uint8": "u1", "uint16": "<u2", "uint32": "<u4"}
    steps = np.frombuffer(base64.b64decode(packed["data"]), kinds[packed["type"]]).reshape(packed["shape"])
    if "low" not in packed:
        return steps
    top = np.iinfo(steps.dtype).max
    return packed["low"] + steps * ((packed["high"] - packed["low"]) / top)


def test_arrays_come_back() -> None:
    values = np.random.default_rng(0).normal(size=(3, 4, 5))
    assert np.array_equal(unpacked(encode.pack(values)), values.astype(np.float32))
    for bits in (8, 16):
        again = unpacked(encode.pack_rounded(values, bits))
        assert np.abs(again - values).max() <= np.ptp(values) / (2**bits - 1) / 2 * 1.0001
        assert again.min() == values.min()
    holed = np.array([np.nan, 1.0, 3.0])
    assert unpacked(encode.pack_rounded(holed, 8)).tolist() == [1.0, 1.0, 3.0]
    assert np.isnan(unpacked(encode.pack(holed))[0])
    assert unpacked(encode.pack_rounded(np.full(4, 2.5), 8)).tolist() == [2.5] * 4
    assert unpacked(encode.pack_rounded(np.zeros((0, 2)), 16)).shape == (0, 2)
    for largest in (3, 65535, 65536):
        assert unpacked(encode.pack_indices([[0, largest]])).tolist() == [[0, largest]]


def test_the_page_needs_nothing_else(explanation: Explanation, tmp_path: Path) -> None:
    out = report.write_report(explanation, tmp_path / "deep" / "report.html", title=f"On {NASTY}")
    text = out.read_bytes().decode()
    found = Reader(text)
    sources = [a for _, attributes, _ in found.found for a in ("src", "srcset", "action") if a in attributes]
    assert not sources
    assert [attributes["href"] for attributes, _ in found.texts("link")] == ["data:,"]
    assert found.texts("title")[0][1] == f"On {NASTY}"
    assert "{{" not in re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    policies = [a["content"] for a, _ in found.texts("meta") if a.get("http-equiv")]
    assert len(policies) == 1
    assert "default-src 'none'; script-src 'sha256-" in policies[0]
    assert "form-action 'none'; base-uri 'none'" in policies[0]
    scripts = [script for attributes, script in found.texts("script") if "type" not in attributes]
    assert len(scripts) == 1 + len(page.SCRIPTS)
    assert "\r" not in scripts[0]
    for script in scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policies[0]
    assert "unsafe-eval" not in policies[0]
    for tag in ("canvas", "main", "aside", "nav", "style", "footer"):
        assert found.texts(tag), tag
    ids = [attributes["id"] for _, attributes, _ in found.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    wanted = {match for script in scripts for match in re.findall(r'\bfind\("(\w+)"\)', script)}
    assert wanted <= set(ids)


def test_names_are_never_markup(explanation: Explanation, geometry: dict[str, Any], tmp_path: Path) -> None:
    nasty = replace(
        explanation, names=[NASTY, *explanation.names[1:]], class_names=[NASTY, *explanation.class_names[1:]]
    )
    geometry["class_names"] = nasty.class_names
    geometry["clips"][0] = NASTY
    out = report.write_report(report.Results(nasty, geometry), tmp_path / "report.html", title=NASTY)
    text = out.read_bytes().decode()
    assert "alert(1)</script>" not in text
    assert text.count("<script") == text.count("</script>") == 2 + len(page.SCRIPTS)
    data = data_of(out)
    assert data["rows"]["names"][0] == data["classes"][0] == data["title"] == NASTY


def test_data_come_back(explanation: Explanation, tmp_path: Path) -> None:
    e = explanation
    data = data_of(report.write_report(e, tmp_path / "report.html"))
    assert data["title"] == "Report"
    assert data["layers"] == e.layers
    assert data["skeleton"]["joints"] == list(e.layout.joints)
    assert data["skeleton"]["up"] == "y"
    assert data["confusion"] == e.confusion.tolist()
    assert np.allclose(unpacked(data["explain"]["importance"]), e.importance.mean(1), atol=1e-6)
    assert np.array_equal(unpacked(data["explain"]["classImportance"]), e.class_importance)
    assert data["explain"]["mapFrames"] == [12, 12, 6]
    assert data["rows"]["predictions"] == e.predictions.tolist()
    assert data["rows"]["scores"] == pytest.approx(e.probabilities.max(1), abs=1e-4)
    clips = {clip["row"]: clip for clip in data["clips"]}
    assert sorted(clips) == e.kept.tolist()
    for place, position in enumerate(e.kept.tolist()):
        clip = clips[position]
        persons, filled = (2, 6) if position == 8 else (1, 12)
        points = e.keypoints[place, :persons, :filled]
        again = unpacked(clip["keypoints"])
        assert again.shape == points.shape
        assert np.abs(again - points).max() <= np.ptp(points) / 65535
        for name, packed in zip(e.layers, clip["maps"]):
            full = e.maps[name][place, :persons]
            length = full.shape[1] * filled // 12
            assert np.abs(unpacked(packed) - full[:, :length]).max() <= 1 / 255
        assert clip["explained"] == e.explained[position]
        assert clip["seen"] is None


def test_a_missing_joint_is_not_drawn_and_a_centre_is(explanation: Explanation, tmp_path: Path) -> None:
    points = explanation.keypoints.copy()
    points[0, 0, :, 1] = 0  # the joint that the body is centred on
    points[0, 0, 3, 7] = 0
    data = data_of(report.write_report(replace(explanation, keypoints=points), tmp_path / "report.html"))
    seen = unpacked(data["clips"][0]["seen"])
    assert seen.shape == (1, 12, 25)
    assert np.argwhere(seen < 0.5).tolist() == [[0, 3, 7]]
    assert [clip["seen"] for clip in data["clips"][1:]] == [None] * 5
    points[0, 0, 1:, 1] = 0.1  # begins at the centre and moves away
    points[0, 0, 3, 1] = 0
    data = data_of(report.write_report(replace(explanation, keypoints=points), tmp_path / "report.html"))
    assert np.argwhere(unpacked(data["clips"][0]["seen"]) < 0.5).tolist() == [[0, 3, 7]]


@pytest.mark.parametrize(("axis", "sign"), [(0, 1), (1, -1), (2, 1)])
def test_it_sees_which_way_is_up(explanation: Explanation, tmp_path: Path, axis: int, sign: int) -> None:
    points = explanation.keypoints.copy()
    points[..., [1, axis]] = points[..., [axis, 1]]
    points[..., axis] *= sign
    data = data_of(report.write_report(replace(explanation, keypoints=points), tmp_path / "report.html"))
    assert data["skeleton"]["up"] == ("" if sign > 0 else "-") + "xyz"[axis]


def test_clips_stay_away_where_there_is_no_room(explanation: Explanation, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    whole = data_of(report.write_report(explanation, out))["clips"]
    size = sum(encode.size_of(one) for one in (whole[0]["keypoints"], *whole[0]["maps"]))
    few = data_of(report.write_report(explanation, out, max_megabytes=3.5 * size / 0.75 / 1e6))["clips"]
    assert 3 <= len(few) < len(whole)
    assert {clip["explained"] for clip in few[:3]} == {0, 1, 2}
    one = data_of(report.write_report(explanation, out, max_megabytes=1e-5))
    assert len(one["clips"]) == 1
    assert unpacked(one["explain"]["classMaps"][0]).shape == (3, 1, 25)
    with pytest.raises(ValueError, match=r"write_report: max_megabytes must be > 0, got 0"):
        report.write_report(explanation, out, max_megabytes=0)


def test_a_directory_is_read_whole(
    explanation: Explanation, geometry: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "my run"
    save_explanation(explanation, folder)
    (folder / "geometry.json").write_text(json.dumps(geometry))
    points = {i: explanation.keypoints[i % 6] + i for i in range(100, 110)}
    bodies = report.collect_bodies(points.__getitem__, range(100, 110), explanation.layout, most_frames=6)
    assert bodies.keypoints.shape == (10, 2, 6, 25, 3)
    report.save_bodies(bodies, folder)
    noise = {"layers": ["block1"], "snr_db": [None, 10.0], "accuracy": [[0.9], [0.5]]}
    noise |= {"smoothness": [[[0.1]], [[0.2]]], "format": "stgcn_fast geometry noise", "version": 1}
    (folder / "noise.json").write_text(json.dumps(noise))
    out = report.write_report(folder)
    assert out == folder / "report.html"
    data = data_of(out)
    assert data["title"] == "my run"
    # The nine clips of both are the same rows; the tenth is of the geometry alone.
    assert data["geometry"]["nodes"] == list(range(10))
    assert data["rows"]["names"][9] == "clip9"
    assert data["rows"]["scores"][9] is None
    assert sorted(clip["row"] for clip in data["clips"]) == list(range(10))
    assert {clip["row"] for clip in data["clips"] if clip["maps"]} == {0, 1, 2, 4, 5, 8}
    edges = unpacked(data["geometry"]["graphs"][0]["edges"])
    assert edges.tolist() == geometry["graphs"]["block1"]["edges"]
    embedding = unpacked(data["geometry"]["graphs"][2]["embedding"])
    assert np.allclose(embedding, geometry["graphs"]["block3"]["embedding"])
    assert data["noise"]["snr_db"] == [None, 10.0]
    assert data["transfer"] is None


def test_a_geometry_alone_will_do(geometry: dict[str, Any], tmp_path: Path) -> None:
    geometry["graphs"]["block1"]["embedding"] = None
    (tmp_path / "geometry.json").write_text(json.dumps(geometry))
    data = data_of(report.write_report(tmp_path))
    assert data["clips"] == []
    assert data["skeleton"] is None
    assert data["explain"] is None
    assert data["confusion"] == geometry["confusion"]
    assert data["geometry"]["graphs"][0]["embedding"] is None


def test_scores_of_a_run_alone_will_do(tmp_path: Path) -> None:
    test = {"clips": 4, "top1": 0.75, "per_class": {"a": 1.0, "b": 0.5}, "confusion": [[2, 0], [1, 1]]}
    (tmp_path / "metrics.json").write_text(json.dumps({"class_names": ["a", "b"], "test": test}))
    data = data_of(report.write_report(tmp_path))
    assert data["classes"] == ["a", "b"]
    assert data["confusion"] == [[2, 0], [1, 1]]
    assert data["test"] == {"clips": 4, "top1": 0.75, "per_class": {"a": 1.0, "b": 0.5}}


def test_it_says_what_is_wrong(explanation: Explanation, geometry: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"read_results: directory must hold explain\.json.*, got '"):
        report.write_report(tmp_path)
    with pytest.raises(ValueError, match=r"write_report: results must hold at least one part, got none"):
        report.write_report(report.Results(), tmp_path / "report.html")
    with pytest.raises(ValueError, match=r"write_report: out must be given"):
        report.write_report(explanation)
    with pytest.raises(ValueError, match=r"write_report: path must end in \.html"):
        report.write_report(explanation, tmp_path / "report.pdf")
    other = geometry | {"class_names": ["a", "b"]}
    with pytest.raises(ValueError, match=r"must be of the same classes, got 3 in explain\.json and 2 others"):
        report.write_report(report.Results(explanation, other), tmp_path / "report.html")
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        report.write_report(explanation, tmp_path / "file" / "report.html")
    (tmp_path / "geometry.json").write_text("{")
    with pytest.raises(FormatError, match=r"geometry\.json: file must be JSON"):
        report.write_report(tmp_path)
    (tmp_path / "geometry.json").write_text(json.dumps({"format": "stgcn_fast geometry", "version": 2}))
    with pytest.raises(FormatError, match=r"must be of format 'stgcn_fast geometry', version 1"):
        report.write_report(tmp_path)
    del geometry["graphs"]
    (tmp_path / "geometry.json").write_text(json.dumps(geometry))
    with pytest.raises(FormatError, match=r"file must hold graphs, got none of it"):
        report.write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_bad_clips_are_told(geometry: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "geometry.json").write_text(json.dumps(geometry))
    (tmp_path / "clips.npz").write_bytes(b"PK no archive")
    with pytest.raises(FormatError, match=r"clips\.npz: file must hold the clips of a study"):
        report.write_report(tmp_path)
    np.savez(tmp_path / "clips.npz", nodes=np.arange(3))
    with pytest.raises(FormatError, match=r"clips\.npz: file must hold the clips of a study"):
        report.write_report(tmp_path)
    assert report.load_bodies(tmp_path / "elsewhere") is None


def test_bodies_come_back_thinned(explanation: Explanation, tmp_path: Path) -> None:
    points = explanation.keypoints[:, :1]
    bodies = report.collect_bodies(
        points.__getitem__, range(6), explanation.layout, most_clips=3, most_frames=4
    )
    assert bodies.nodes.tolist() == [0, 2, 5]
    assert np.array_equal(bodies.keypoints, points[[0, 2, 5], :, ::3])
    assert bodies.frames.tolist() == [4, 4, 2]
    report.save_bodies(bodies, tmp_path)
    again = report.load_bodies(tmp_path)
    assert again is not None
    assert again.layout == bodies.layout
    assert np.array_equal(again.keypoints, bodies.keypoints)
    with pytest.raises(ValueError, match="positions must be at least one clip"):
        report.collect_bodies(points.__getitem__, [], explanation.layout)


def test_without_plotly_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "plotly", None)
    monkeypatch.delitem(sys.modules, "plotly.offline", raising=False)
    with pytest.raises(ImportError, match=r'plotly is needed for this: pip install "stgcn_fast\[report\]"'):
        page.plotting_library()
