"""The page to try the endpoint with, as a browser shows it, from a real server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from shutil import which
from typing import Any

import pytest
from tiny_bundle import make_bundle

START = """
import sys
from pathlib import Path
from serving.server import serve
serve(Path(sys.argv[1]), port=0)
"""
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    bundle = make_bundle(tmp_path_factory.mktemp("bundles"))
    process = subprocess.Popen(
        [sys.executable, "-c", START, str(bundle)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    yield process.stdout.readline().split(" on ")[1].split()[0]
    process.terminate()
    process.wait(timeout=20)
    process.stdout.close()


@pytest.fixture
def page(address: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=which("chromium"), args=list(FLAGS))
        page = browser.new_page()
        page.asked, page.said = [], []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.goto(address, wait_until="networkidle")
        yield page
        browser.close()


def listed(page: Any) -> list[str]:
    return [
        text.strip()
        for text in page.locator("#lists article").first.locator("li").all_inner_texts()
    ]


def ask(page: Any, body: dict[str, Any]) -> list[str]:
    """Return the titles of a list, asked of the endpoint itself."""
    answer = page.request.post(page.url + "v1/recommend", data=body).json()
    return [row["title"] for row in answer["items"]]


@pytest.mark.browser
def test_a_history_is_picked_by_titles_and_its_list_is_shown(page: Any, address: str) -> None:
    from playwright.sync_api import expect

    assert "tiny@" in page.locator("#model").inner_text()
    assert listed(page) == ask(page, {"history": []})
    for title in ("Title i05", "Title i09"):
        page.locator("#search").fill(title.lower())
        page.locator("#found button", has_text=title).click()
    assert page.locator("#history button").all_inner_texts() == ["Title i05", "Title i09"]
    titles = ask(page, {"history": ["i05", "i09"]})
    expect(page.locator("#lists article").first.locator("li")).to_have_text(titles)
    page.locator("#history button").first.click()
    titles = ask(page, {"history": ["i09"]})
    expect(page.locator("#lists article").first.locator("li")).to_have_text(titles)
    names = page.locator("#lists h3").all_inner_texts()
    assert names == ["top", "mmr", "dpp", "beam", "diverse"]
    for diversity in ("0", "1"):  # the knob
        page.locator("#diversity").fill(diversity)
        body = {"history": ["i09"], "strategy": "mmr", "diversity": float(diversity)}
        mmr = page.locator("#lists article").nth(1).locator("li")
        expect(mmr).to_have_text(ask(page, body))
    page.locator("#user").fill("u07")
    page.locator("#k").fill("3")
    expect(page.locator("#lists article").first.locator("li")).to_have_count(3)
    assert listed(page) == ask(page, {"user_id": "u07", "k": 3})
    page.locator("#k").fill("1001")
    expect(page.locator("#problem")).to_contain_text("body.k is more than 1000")
    assert all(url.startswith(address) for url in page.asked)
    assert [line for line in page.said if "422" not in line] == []


@pytest.mark.browser
def test_the_documentation_describes_and_tries_every_operation(page: Any, address: str) -> None:
    from playwright.sync_api import expect

    description = page.request.get(page.url + "openapi.json").json()
    page.goto(page.url + "docs", wait_until="networkidle")
    shown = page.locator("summary code").all_inner_texts()
    wanted = [f"{m.upper()} {path}" for path, own in description["paths"].items() for m in own]
    assert shown == wanted and "POST /v1/recommend" in shown
    one = page.locator("details", has=page.get_by_text("POST /v1/similar", exact=True))
    one.locator("summary").click()
    rows = one.locator("table").first.locator("tr")
    expect(rows.first).to_contain_text("items")
    expect(rows.first).to_contain_text("required, at least 1")
    one.locator("textarea").fill('{"items": ["i05"], "k": 2}')
    one.locator("button").click()
    expect(one.locator("pre")).to_contain_text("200 OK")
    expect(one.locator("pre")).to_contain_text('"item_id": "i05"')
    removal = page.locator("details", has=page.get_by_text("GET /v1/items", exact=True))
    removal.locator("summary").click()
    removal.locator("input").fill("i07")
    removal.locator("button").click()
    expect(removal.locator("pre")).to_contain_text("Title i07")
    assert all(url.startswith(address) for url in page.asked)
    assert page.said == []
