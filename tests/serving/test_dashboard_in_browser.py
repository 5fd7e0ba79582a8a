"""The dashboard as Chromium shows it; pictures of every page are left in the test's directory."""

from __future__ import annotations

import csv
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from recsys.evaluation.targets_file import read_targets
from serving.dashboard.app import PAGES

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not shutil.which("chromium"), reason="the command chromium is not installed"
    ),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]
ROOT = Path(__file__).parents[2]
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
PATIENCE = 30_000


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def dashboard_of(output: Path) -> Iterator[str]:
    """Serve an output directory by the command itself; yield the address."""
    port = free_port()
    command = [sys.executable, "-m", "pipelines.cli", "dashboard"]
    with subprocess.Popen(
        [*command, "--output", str(output), "--port", str(port)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as server:
        address = f"http://127.0.0.1:{port}"
        try:
            for _ in range(300):
                try:
                    urllib.request.urlopen(f"{address}/_stcore/health", timeout=5).close()
                    break
                except OSError:
                    assert server.poll() is None, server.communicate()[0]
                    time.sleep(0.1)
            yield address
        finally:
            server.terminate()
            server.communicate(timeout=30)


@pytest.fixture(scope="module")
def address(measured: Any) -> Iterator[str]:
    with dashboard_of(measured.output) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        yield chromium
        chromium.close()


class Visit:
    """One page in the browser; notes what its console says and whom it asks."""

    def __init__(self, browser: Any, address: str, scheme: str = "light") -> None:
        self.address = address
        size = {"width": 1440, "height": 1100}
        self.page = browser.new_page(viewport=size, color_scheme=scheme, accept_downloads=True)
        self.page.set_default_timeout(PATIENCE)
        self.errors: list[str] = []
        self.hosts: set[str] = set()
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))

    def open(self, **query: str) -> Visit:
        self.page.goto(f"{self.address}/?{urlencode(query)}")
        self.page.wait_for_selector("h1")
        return self.settle()

    def settle(self) -> Visit:
        """Wait until the script has run and everything it drew is there."""
        self.page.wait_for_selector(".stApp[data-test-script-state=notRunning]")
        self.page.wait_for_function("!document.querySelector('[data-stale=true]')")
        return self

    def table(self, name: str) -> list[list[str]]:
        """Return the cells, header first, of the table above the download of that name."""
        return self._rows(
            "name => { const button = [...document.querySelectorAll('[data-testid=stDownloadButton]')]"
            ".find(b => b.innerText.includes(name)); const all = [...document.querySelectorAll("
            "'[data-testid=stDataFrame]')]; const above = all.filter(t => t.compareDocumentPosition("
            "button) & Node.DOCUMENT_POSITION_FOLLOWING); return [...(above.at(-1)?.querySelectorAll("
            "'table tr') ?? [])].map(r => [...r.querySelectorAll('th, td')].map(c => c.innerText)); }",
            name,
        )

    def _rows(self, script: str, name: str) -> list[list[str]]:
        self.page.get_by_text(f"{name} (CSV)", exact=True).first.scroll_into_view_if_needed()
        self.page.wait_for_function(f"n => ({script})(n).length > 1", arg=name)
        rows: list[list[str]] = self.page.evaluate(f"n => ({script})(n)", name)
        return rows

    def download(self, name: str) -> list[dict[str, str]]:
        with self.page.expect_download() as waiting:
            self.page.get_by_text(f"{name} (CSV)", exact=True).first.click()
        path = waiting.value.path()
        return list(csv.DictReader(Path(path).read_text(encoding="utf-8").splitlines()))

    def query(self) -> dict[str, str]:
        return {k: v[0] for k, v in parse_qs(urlsplit(self.page.url).query).items()}

    def close(self) -> None:
        self.page.close()


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Visit]:
    one = Visit(browser, address)
    yield one
    one.close()
    assert one.errors == []
    assert one.hosts == {urlsplit(address).netloc}


def metric_rows(measured: Any, **where: Any) -> dict[str, dict[str, Any]]:
    """Return the report's own rows of that kind, by model."""
    rows = json.loads((measured.report / "metrics.json").read_text())
    return {r["model"]: r for r in rows if all(r[key] == value for key, value in where.items())}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_opens_without_an_error_or_a_request_elsewhere(
    browser: Any, address: str, scheme: str, tmp_path: Path
) -> None:
    visit = Visit(browser, address, scheme).open()
    for module, title, _ in PAGES:
        if module != "overview":
            visit.page.get_by_role("button", name=title, exact=True).click()
        visit.page.wait_for_function(
            "title => document.querySelector('h1')?.innerText === title", arg=title
        )
        visit.settle()
        picture = tmp_path / f"{module}-{scheme}.png"
        visit.page.screenshot(path=picture)
        assert picture.stat().st_size > 10_000
        assert not visit.page.query_selector("[data-testid=stException]"), module
        assert visit.query()["page"] == module
    back = visit.page.evaluate("getComputedStyle(document.querySelector('.stApp')).backgroundColor")
    brightness = sum(int(part) for part in back.strip("rgba()").split(",")[:3])
    assert (brightness > 600) == (scheme == "light")
    visit.close()
    assert visit.errors == []
    assert visit.hosts == {urlsplit(address).netloc}


def test_the_figures_shown_are_those_measured_and_filters_change_them(
    visit: Visit, measured: Any
) -> None:
    visit.open(metric="ndcg", k="10", split="test")
    for metric, k, split in (("ndcg", 10, "test"), ("ndcg", 5, "test"), ("ndcg", 5, "validation")):
        visit.page.get_by_role("radio", name=str(k), exact=True).click()
        visit.page.get_by_role("radio", name=split, exact=True).click()
        visit.page.wait_for_selector(f"h3:has-text('NDCG@{k}, {split}')")
        visit.settle()
        expected = metric_rows(measured, metric=metric, k=k, split=split, slice="all")
        wanted = {
            m: [row[c] for c in ("value", "low", "high", "users")] for m, row in expected.items()
        }
        shown: dict[str, list[float]] = {}
        for _ in range(50):  # the table is painted a moment after the script has run
            header, *rows = visit.table("Every data set and model")
            at = [header.index(c) for c in ("value", "low", "high", "users")]
            shown = {row[header.index("model")]: [float(row[i]) for i in at] for row in rows}
            if shown == wanted:
                break
            visit.page.wait_for_timeout(100)
        assert shown == wanted
        downloaded = {row["model"]: row for row in visit.download("Every data set and model")}
        for model, row in expected.items():
            assert [float(downloaded[model][c]) for c in ("value", "low", "high")] == [
                row[c] for c in ("value", "low", "high")
            ]


def test_a_shared_address_restores_the_view(visit: Visit, browser: Any, measured: Any) -> None:
    report = measured.report.name
    visit.open(page="compare", metric="hr", k="5", runs=f"{report}/pop,{report}/markov")
    visit.page.wait_for_selector("h3:has-text('Paired differences, HR@5')")
    first = visit.settle().table("Differences with p-values")
    [row] = [
        r
        for r in json.loads((measured.report / "comparisons.json").read_text())
        if (r["split"], r["metric"], r["k"], r["model_a"]) == ("test", "hr", 5, "markov")
    ]
    assert first[1][0] == "pop - markov"
    assert float(first[1][1]) == pytest.approx(-row["difference"], abs=5e-5)
    assert float(first[1][4]) == pytest.approx(row["p"], abs=5e-5)
    again = Visit(browser, visit.address)
    again.page.goto(visit.page.url)
    again.page.wait_for_selector("h3:has-text('Paired differences, HR@5')")
    assert again.settle().table("Differences with p-values") == first
    assert again.query() == visit.query()
    again.close()


def test_a_point_that_is_clicked_is_in_the_address(visit: Visit, browser: Any) -> None:
    visit.open(page="embedding")
    assert "point" not in visit.query()
    visit.page.wait_for_selector(".scatterlayer .point")
    # A corner of the plane: where no other point lies above it.
    box = visit.page.evaluate(
        "() => [...document.querySelectorAll('.scatterlayer .point')]"
        ".map(p => p.getBoundingClientRect()).sort((a, b) => a.x - b.x)[0].toJSON()"
    )
    visit.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    visit.page.wait_for_function("location.search.includes('point=')")
    visit.settle()
    point, heading = visit.query()["point"], _last_heading(visit)
    assert point.split(":")[0] in ("item", "history")
    other = Visit(browser, visit.address).open(**visit.query())
    other.page.wait_for_selector("h3")
    assert (other.query()["point"], _last_heading(other)) == (point, heading)
    other.open(**{**visit.query(), "point": "item:no such"})
    assert "Nothing is chosen" in other.page.inner_text("[data-testid=stMain]")
    assert other.errors == []
    other.close()
    # A search shows what it finds; a click on another point wins over what was found.
    search = visit.page.get_by_role("textbox", name="Search")
    sought = "1" if not point.endswith(":1") else "2"
    search.fill(sought)
    search.press("Enter")
    visit.page.wait_for_function("p => !location.search.includes(encodeURIComponent(p))", arg=point)
    visit.settle()
    found = visit.query()["point"]
    assert found != point
    visit.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    visit.page.wait_for_function("p => location.search.includes(encodeURIComponent(p))", arg=point)
    visit.settle()
    assert _last_heading(visit) == heading and visit.query()["find"] == sought


def _last_heading(visit: Visit) -> str:
    return str(visit.page.locator("h3").last.inner_text())


def test_one_click_shows_who_gained_and_where_the_held_out_item_ranks(
    visit: Visit, measured: Any
) -> None:
    visit.open(page="inside", model="markov", beside="pop", metric="mrr", k="all")
    before = visit.query()["user"]
    visit.page.get_by_role("button", name="Worst lost", exact=True).click()
    visit.page.wait_for_function(
        "old => new URLSearchParams(location.search).get('user') !== old", arg=before
    )
    visit.settle()
    user = int(visit.query()["user"])
    ranks = {}
    for model in measured.config.models:
        ranked = read_targets(measured.report / "targets" / f"{model}.parquet")
        [at] = [i for i, one in enumerate(ranked.user) if one == user]
        ranks[model] = float(ranked.ranks[ranked.offsets[at]])
    shown = {
        row["model"]: float(row["rank"]) for row in visit.download("Ranks of the held-out items")
    }
    assert shown == ranks
    assert visit.page.get_by_text(f"User u{user:02d}").is_visible()
    gains = _gains(measured)
    assert gains[user] == min(gains.values())
    lists = visit.download("Lists")
    assert len(lists) == 10
    assert lists[0]["markov"].removeprefix("★ ").startswith("Title of")


def _gains(measured: Any) -> dict[int, float]:
    """Return markov's reciprocal rank less pop's for every user."""
    found = []
    for model in ("markov", "pop"):
        ranked = read_targets(measured.report / "targets" / f"{model}.parquet")
        found.append({int(u): 1 / r for u, r in zip(ranked.user, ranked.ranks, strict=True)})
    return {user: found[0][user] - found[1][user] for user in found[0]}


def test_files_of_another_form_end_no_page_in_an_exception(
    browser: Any, measured: Any, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    shutil.copytree(measured.output, output)
    report = output / "tiny" / "reports" / measured.report.name
    (report / "profile.json").write_text('{"main": {}}')
    (report / "exposure.json").write_text('[{"model": "pop"}]')
    for file in output.glob("tiny/runs/*/history.json"):
        file.write_text('{"epochs": [{"loss": 1.0}]}')
    for file in output.glob("tiny/index/*/tradeoff.json"):
        file.write_text('[{"kind": "flat"}]')
    with dashboard_of(output) as address:
        visit = Visit(browser, address).open()
        for module, title, _ in PAGES:
            visit.open(page=module)
            visit.page.wait_for_function(
                "t => document.querySelector('h1')?.innerText === t", arg=title
            )
            visit.settle()
            assert not visit.page.query_selector("[data-testid=stException]"), module
            if module == "data":
                assert "cannot be drawn" in visit.page.inner_text("[data-testid=stMain]")
        visit.close()
        assert visit.errors == []


def test_empty_partial_and_broken_directories_say_what_is_missing(
    browser: Any, measured: Any, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    with dashboard_of(output) as address:
        visit = Visit(browser, address).open()
        assert "No report below" in visit.page.inner_text("[data-testid=stMain]")
        shutil.copytree(measured.output, output)
        copy = output / "tiny" / "reports" / measured.report.name
        broken = copy.with_name("0bad0bad")
        shutil.copytree(copy, broken)
        (broken / "metrics.json").write_text("[{")
        for part in ("exposure.json", "costs.json", "profile.json", "comparisons.json"):
            (copy / part).unlink()
        for gone in (output / "tiny" / "index", output / "tiny" / "runs", copy / "targets"):
            shutil.rmtree(gone)
        (output / "mlflow.db").write_bytes(b"no database")
        for module, title, _ in PAGES:
            visit.open(page=module)
            visit.page.wait_for_function(
                "t => document.querySelector('h1')?.innerText === t", arg=title
            )
            visit.settle()
            assert not visit.page.query_selector("[data-testid=stException]"), module
            assert "cannot be shown" in visit.page.inner_text("[data-testid=stMain]"), module
        visit.close()
        assert visit.errors == []
