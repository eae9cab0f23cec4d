"""The page in a real browser: it loads, plays, switches, and has nothing to complain about."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stgcn_fast import report
from stgcn_fast.explain import Explanation, save_explanation

NAME = "</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium: STGCN_FAST_CHROMIUM, one on PATH, or playwright's own."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    pytest.importorskip("plotly", reason="needs plotly")
    found = os.environ.get("STGCN_FAST_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with playwright.sync_playwright() as driver:
        try:
            # A sandbox of its own is not to be had in many containers; the page is ours.
            chromium = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"no Chromium to test with: {str(error).splitlines()[0]}")
        yield chromium
        chromium.close()


class Opened:
    """A page in the browser, and what the browser complains about."""

    def __init__(self, page: Any, address: str) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", self._dialog)
        page.on("request", lambda request: self.requests.append(request.url))
        page.set_default_timeout(120_000)  # a busy machine takes its time
        page.goto(address)
        page.wait_for_selector("body[data-ready=yes]")
        # Past the page's policy, which forbids the eval that page.evaluate relies on.
        self.session = page.context.new_cdp_session(page)

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _dialog(self, dialog: Any) -> None:
        self.complaints.append(dialog.message)
        dialog.dismiss()

    def ask(self, expression: str) -> Any:
        """The value of an expression in the page."""
        reply = self.session.send("Runtime.evaluate", {"expression": expression, "returnByValue": True})
        assert "exceptionDetails" not in reply, reply
        return reply["result"].get("value")

    def until(self, expression: str) -> None:
        for _ in range(100):
            if self.ask(expression):
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"not in five seconds: {expression}")

    def picture(self) -> str:
        """What the player shows."""
        return str(self.ask("document.getElementById('body').toDataURL()"))


@pytest.fixture
def width() -> int:
    """Of the window, in pixels."""
    return 1400


@pytest.fixture
def opened(
    browser: Any, explanation: Explanation, geometry: dict[str, Any], tmp_path: Path, width: int
) -> Iterator[Opened]:
    """The page of an explanation and a geometry, in a browser that finds nothing to complain about."""
    names = [NAME, *explanation.names[1:]]
    save_explanation(replace(explanation, names=names), tmp_path)
    geometry["clips"][0] = NAME
    (tmp_path / "geometry.json").write_text(json.dumps(geometry))
    out = report.write_report(tmp_path)
    page = browser.new_page(viewport={"width": width, "height": 900})
    found = Opened(page, out.as_uri())
    yield found
    page.close()
    assert found.complaints == []
    assert {address.partition(":")[0] for address in found.requests} <= {"file", "data", "blob"}


def test_it_plays_and_switches(opened: Opened, tmp_path: Path) -> None:
    page = opened.page
    assert opened.ask("report.state.layer") == 2
    assert opened.ask("document.querySelectorAll('img[src=x]').length") == 0
    first = opened.picture()
    page.click("#play")
    opened.until("report.state.frame >= 3")
    page.click("#play")
    stopped = opened.ask("report.state.frame")
    moved = opened.picture()
    assert moved != first
    page.select_option("#layer", "0")
    assert opened.picture() != moved
    page.click("#on")
    assert opened.ask("report.state.frame") == (stopped + 1) % 12
    before = opened.picture()
    box = page.locator("#body").bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 180, box["y"] + 120)
    page.mouse.up()
    assert opened.picture() != before
    page.select_option("#class", "2")
    assert opened.ask("report.data.clips[report.state.clip].explained") == 2
    screenshot = tmp_path / "report.png"
    page.screenshot(path=screenshot)
    assert screenshot.stat().st_size > 20_000


def test_every_chart_is_drawn_and_points_show_clips(opened: Opened) -> None:
    page = opened.page
    for section in page.query_selector_all("section"):
        section.scroll_into_view_if_needed()
        for chart in section.query_selector_all(".chart"):
            chart.scroll_into_view_if_needed()
            chart.wait_for_selector(".main-svg", state="attached")
    ids = opened.ask("[...document.querySelectorAll('section')].map((section) => section.id)")
    assert ids == ["focus", "importance", "smoothness", "graph", "confusion", "trust", "tables"]
    # What plotly.js does not know it would drop without a word.
    wrong = opened.ask(
        "[...document.querySelectorAll('.chart')].flatMap((chart) =>"
        " (Plotly.validate(chart.data, chart.layout) || []).map((one) => one.msg))"
    )
    assert wrong == []
    # Buttons that would hand the data to a service.
    titles = opened.ask("[...document.querySelectorAll('.modebar-btn')].map((one) => one.dataset.title)")
    assert "Zoom in" in titles
    words = ("cloud", "studio", "share", "send")
    assert not [title for title in titles if any(word in title.lower() for word in words)]
    graph = page.locator("#graph .chart")
    graph.scroll_into_view_if_needed()
    clip = opened.ask("report.state.clip")
    points = page.locator("#graph .scatterlayer .point")
    assert points.count() == 10
    shown = set()
    for i in range(points.count()):
        points.nth(i).hover(force=True)
        page.wait_for_timeout(150)
        shown.add(opened.ask("report.state.clip"))
    assert len(shown | {clip}) > 3


@pytest.mark.parametrize("width", [390])
def test_a_narrow_window_scrolls_one_way_alone(opened: Opened) -> None:
    page = opened.page
    for chart in page.query_selector_all(".chart"):
        chart.scroll_into_view_if_needed()
        chart.wait_for_selector(".main-svg", state="attached")
    assert opened.ask("document.documentElement.scrollWidth") == 390
    assert opened.ask("document.querySelectorAll('.modebar-btn').length") == 0
    drawn = opened.ask(
        "[...document.querySelectorAll('.chart')].flatMap((chart) =>"
        " (Plotly.validate(chart.data, chart.layout) || []).map((one) => one.msg))"
    )
    assert drawn == []
    plots = opened.ask(
        "[...document.querySelectorAll('.chart')].map((chart) => chart._fullLayout._size.w)",
    )
    assert min(plots) > 150  # what names and scales leave to a plot


def test_tables_sort_and_are_saved(opened: Opened, tmp_path: Path) -> None:
    page = opened.page
    table = page.locator("#table-clips")
    table.scroll_into_view_if_needed()
    head = table.locator("th button").nth(3)
    head.click()
    rising = [float(text) for text in table.locator("tbody td:nth-child(4)").all_inner_texts() if text]
    assert rising == sorted(rising)
    assert table.locator("th").nth(3).get_attribute("aria-sort") == "ascending"
    head.click()
    falling = [float(text) for text in table.locator("tbody td:nth-child(4)").all_inner_texts() if text]
    assert falling == rising[::-1]
    with page.expect_download() as download:
        page.locator("#tables button.csv").first.click()
    saved = tmp_path / download.value.suggested_filename
    download.value.save_as(saved)
    lines = saved.read_text().splitlines()
    assert saved.name == "clips.csv"
    assert lines[0] == "clip,true class,predicted,probability,result"
    assert len(lines) == 11
    assert any(line.startswith(f"{NAME},") for line in lines)
