"""A server of its own as somebody meets it in a browser: from a pushed run to a file that ONNX Runtime runs."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import onnxruntime
import pytest

from fn3hw.cli import main as command_line
from fn3hw.client import AtlasInfo, Client
from fn3hw.errors import InfeasibleBudget
from tests.conftest import TINY
from tests.service.conftest import SLOWLY
from tests.service.pages import test_browser as looking
from tests.service.pages.test_browser import DRAWN, Tab, until
from tests.service.running import Running, server_at

browser, pictures, pytestmark = looking.browser, looking.pictures, looking.pytestmark
PATIENCE_S = 240
"""For one job: the machine may have other things to do."""
NOTE = """() => {
  const now = document.getElementById("now");
  const text = (of) => now.querySelector(of)?.textContent ?? "";
  const note = () => noted.push(`${text(".badge")} ${text(".progress-label")} ${text("[data-progress]")}`.trim());
  window.noted = [];
  new MutationObserver(note).observe(now, { childList: true });
  note();
}"""
ASKED = "([budget, limit]) => Number(new URLSearchParams(location.search).get(budget)) === limit"
AT = """([x, y]) => {
  const chart = document.getElementById("chart").chart, box = chart.over.getBoundingClientRect();
  return [box.left + chart.valToPos(x, "x"), box.top + chart.valToPos(y, "y")];
}"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run, trained for so long that what is smaller is less accurate: budgets have different answers."""
    folder = tmp_path_factory.mktemp("browser") / "run"
    assert command_line.run(["train", "--recipe", "digits", "--output", str(folder), *TINY, "--set", "epochs=16"]) == 0
    return folder


@pytest.fixture(params=SLOWLY)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(tmp_path: Path, database_url: str) -> Iterator[Running]:
    running = server_at(tmp_path / "server", database_url)
    running.start()
    yield running
    running.end(signal.SIGKILL)


class Visitor:
    """Somebody who only clicks and types.

    Args:
        tab: of the browser.
        folder: of the pictures of what is seen, in the order of it.
    """

    def __init__(self, tab: Tab, folder: Path) -> None:
        self.page, self._tab, self._folder, self._seen = tab.page, tab, folder, 0
        self.page.set_default_timeout(1e3 * PATIENCE_S)
        folder.mkdir(parents=True, exist_ok=True)

    def look(self, name: str) -> None:
        """Keep a picture of the page, which has to fit its window."""
        self.page.wait_for_load_state("load")
        self.page.wait_for_timeout(250)
        self._seen += 1
        self.page.screenshot(path=self._folder / f"{self._seen:02}-{name}.png", full_page=True)
        assert self._tab.overflow() == []

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).locator("visible=true").click()

    def go(self, name: str, within: str = "main") -> None:
        self.page.locator(within).get_by_role("link", name=name).first.click()

    def fill(self, **values: int | bool) -> None:
        """Fill fields of the form that is open, by their names."""
        form = self.page.locator("details[open] form.ask")
        for name, value in values.items():
            field = form.locator(f"[name={name}]:not([type=hidden])")
            field.check() if value is True else field.fill(str(value))

    def follow(self, kind: str, *, counts: bool = True) -> str:
        """Watch a job to its end, without ever loading its page again.

        Args:
            kind: of the job.
            counts: whether it says how much of its work is done.

        Returns:
            its id.
        """
        self.page.wait_for_url(f"**/jobs/{kind}-*")
        self.page.evaluate(NOTE)
        over = ":is([data-state=succeeded], [data-state=failed], [data-state=cancelled])"
        self.page.wait_for_selector(f"#now :is({'progress' if counts else '.progress-label'}, {over})")
        self.look(f"{kind}-under-way")
        self.page.wait_for_selector(f"#now {over}")
        assert self.page.locator("#now [data-state=succeeded]").count(), self.page.inner_text("#now")
        noted = self.page.evaluate("() => window.noted")
        assert len({text for text in noted if " of " in text or not counts}) > 1, f"its progress does not move: {noted}"
        self.look(f"{kind}-over")
        return str(urlsplit(self.page.url).path.rpartition("/")[2])

    def answer(self) -> str | None:
        """The subnet that is shown; None where nothing meets the budgets."""
        found = self.page.locator("#chosen [data-subnet]")
        return found.inner_text() if found.count() else None


def log_in(visitor: Visitor, token: str) -> None:
    visitor.page.goto("/")
    visitor.look("login")
    visitor.page.get_by_label("Token").fill(token)
    visitor.press("Log in")
    visitor.page.wait_for_selector("h1:text('Overview')")
    visitor.look("overview")


def profile(visitor: Visitor) -> str:
    """Measure few subnets on this machine, from the form that is open where nothing was measured yet."""
    visitor.page.locator("details[open]").get_by_text("More settings").click()
    visitor.fill(subnets=5, holdout=3, allow_noisy=True)
    visitor.look("overview-profiling")
    visitor.press("Start profiling")
    return visitor.follow("profile")


def see_profile(visitor: Visitor) -> None:
    """See what was measured, and go on to the run."""
    visitor.go("profile")
    visitor.page.wait_for_selector(".multiples canvas")
    visitor.look("profile")
    visitor.go("tiny")
    visitor.page.wait_for_selector("h1:text('tiny')")


def search(visitor: Visitor) -> str:
    visitor.look("run-without-search")
    visitor.page.locator("details[open]").get_by_text("More settings").click()
    visitor.fill(evaluations=30, images=60)
    visitor.press("Start search")
    return visitor.follow("search")


def open_front(visitor: Visitor) -> None:
    visitor.go("front of")
    until(visitor.page, DRAWN, seconds=PATIENCE_S)
    visitor.look("run-front")


def lower(visitor: Visitor, budget: str, ask: Callable[[float], str | None]) -> list[str | None]:
    """Move the slider of a budget down until nothing meets it; every answer is that of the API.

    Returns:
        the subnets; the last one is None.
    """
    visitor.page.locator(f"#slide-{budget}").focus()
    answers: list[str | None] = []
    while not answers or answers[-1] is not None:
        visitor.page.keyboard.press("PageDown")
        limit = float(visitor.page.locator(f"#limit-{budget}").input_value())
        until(visitor.page, ASKED, [budget, limit], seconds=PATIENCE_S)
        answers.append(visitor.answer())
        assert answers[-1] == ask(limit)
        if len(answers) == 2:
            visitor.look(f"run-{budget}")
    visitor.look(f"run-{budget}-refused")
    visitor.press("No budget")
    visitor.page.wait_for_selector("#chosen h3:text('Most accurate')")
    return answers


def move_budgets(visitor: Visitor, client: Client, atlas: AtlasInfo) -> None:
    def ask(**budget: float) -> str | None:
        try:
            return client.lookup(atlas.id, **budget).subnet  # type: ignore[arg-type]
        except InfeasibleBudget:
            return None

    lower(visitor, "latency_ms", lambda limit: ask(latency_ms=limit))
    answers = lower(visitor, "size_mib", lambda limit: ask(size_mib=limit))
    assert len(set(answers)) > 2, f"the answer does not follow the budget: {answers}"


def click_point(visitor: Visitor, atlas: AtlasInfo) -> None:
    """Click a point in the middle of the front, the one with the most room around it."""
    accuracies = sorted(point.accuracy for point in atlas.points)
    rooms = {b: min(b - a, c - b) for a, b, c in zip(accuracies, accuracies[1:], accuracies[2:], strict=False)}
    wanted = max(rooms, key=lambda accuracy: rooms[accuracy])
    point = next(point for point in atlas.points if point.accuracy == wanted)
    at = visitor.page.evaluate(AT, [point.latency_ms, point.accuracy])
    visitor.page.mouse.move(*at)
    assert visitor.page.locator(".mark.tip").inner_text().startswith(f"{point.accuracy:.2f} %")
    visitor.page.mouse.click(*at)
    visitor.page.wait_for_selector("#chosen h3:text('Chosen point')")
    assert visitor.answer() == point.subnet
    visitor.look("run-chosen")


def download(page: Any, name: str, path: Path) -> str:
    """Take a file.

    Returns:
        the digest that the page gives it.
    """
    with page.expect_download() as found:
        page.get_by_role("link", name=name).click()
    assert found.value.suggested_filename == "model.onnx"
    found.value.save_as(path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def runs(path: Path) -> bool:
    session = onnxruntime.InferenceSession(path)
    given = session.get_inputs()[0]
    (scores,) = session.run(None, {given.name: np.zeros((3, *given.shape[1:]), np.float32)})
    return bool(scores.shape == (3, 10) and np.isfinite(scores).all())


def test_from_a_pushed_run_to_a_file_in_a_browser(
    server: Running, trained: Path, browser: Any, pictures: Path, kind: str, tmp_path: Path
) -> None:
    client = server.client()
    client.push(trained, "tiny")
    tab = Tab(browser, server.url, viewport={"width": 1280, "height": 900}, color_scheme="light")
    visitor = Visitor(tab, pictures / f"service-{kind}")
    page = visitor.page

    log_in(visitor, (server.folder / "token.txt").read_text().strip())
    profile(visitor)
    see_profile(visitor)
    atlas = client.atlas(search(visitor))
    open_front(visitor)
    move_budgets(visitor, client, atlas)
    click_point(visitor, atlas)

    visitor.press("Export and measure")
    export = client.job(visitor.follow("export", counts=False))
    digest = client.files(export)["model.onnx"].sha256
    assert download(page, "model.onnx", tmp_path / "model.onnx") == digest and runs(tmp_path / "model.onnx")

    visitor.go("its subnet on the front")
    page.wait_for_selector("#chosen :text('Measured:')")
    assert export.result is not None and visitor.answer() == export.result["subnet"]
    assert download(page, "Download model.onnx", tmp_path / "again.onnx") == digest
    until(page, DRAWN)
    visitor.look("run-exported")
    page.emulate_media(color_scheme="dark")
    visitor.look("run-exported-dark")
    for name in ("Runs", "Devices", "Jobs", "Overview"):
        visitor.go(name, within="header")
        page.wait_for_selector(f"h1:text('{name}')")
        visitor.look(f"{name.lower()}-dark")

    visitor.press("Log out")
    visitor.look("logged-out-dark")
    for path in ("/", f"/jobs/{export.id}", f"/searches/{atlas.id}"):
        page.goto(path)
        assert parse_qs(urlsplit(page.url).query)["next"] == [path]
    assert tab.context.request.get(f"/v1/artifacts/{digest}").status == 401
    page.go_back()
    assert page.get_by_label("Token").is_visible(), "nor does the way back lead in"
    assert tab.wrong == []
    assert tab.hosts == {server.url.removeprefix("http://")}
    tab.context.close()
