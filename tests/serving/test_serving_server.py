from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tiny_bundle import item_name, make_bundle

from recsys.errors import ArtifactError, ConfigError
from serving.server import serve

START = """
import atexit, sys
from pathlib import Path
from serving.server import serve
heavy = {"pytorch_lightning", "lightning", "mlflow", "feast", "ray", "transformers", "faiss"}
atexit.register(lambda: print("heavy:", sorted(heavy & set(sys.modules)), flush=True))
serve(Path(sys.argv[1]), port=0)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[subprocess.Popen[str], str]]:
    bundle = make_bundle(tmp_path_factory.mktemp("bundles"))
    process = subprocess.Popen(
        [sys.executable, "-c", START, str(bundle)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert f"serving {bundle.name} on http://127.0.0.1:" in line
    yield process, line.split(" on ")[1].split()[0]
    if process.poll() is None:
        process.terminate()
        process.wait(timeout=20)
    process.stdout.close()


def post(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        f"{url}/v1/recommend", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


def test_a_real_server_answers_many_clients_alike(
    server: tuple[subprocess.Popen[str], str],
) -> None:
    url = server[1]
    bodies = [{"history": [item_name(i % 40 + 1), item_name(3)], "k": 7} for i in range(100)]
    alone = [post(url, body) for body in bodies]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda body: post(url, body), bodies))
    for one, other in zip(alone, together, strict=True):
        assert [r["item_id"] for r in one["items"]] == [r["item_id"] for r in other["items"]]


def test_it_listens_on_loopback_only(server: tuple[subprocess.Popen[str], str]) -> None:
    import psutil

    ports = psutil.Process(server[0].pid).net_connections(kind="inet")
    assert {c.laddr.ip for c in ports if c.status == psutil.CONN_LISTEN} == {"127.0.0.1"}


def test_it_ends_when_asked_and_never_imported_what_it_does_not_need(
    server: tuple[subprocess.Popen[str], str],
) -> None:
    process, url = server
    assert post(url, {"history": []})["fallback"] == "empty_history"
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert "heavy: []" in process.stdout.read()
    assert process.wait(timeout=20) in (0, 130, -signal.SIGINT)


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}"):
            serve(bundle, port=port)


def test_a_bad_bundle_is_refused_before_a_port_is_opened(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is no bundle"):
        serve(tmp_path / "nothing")
