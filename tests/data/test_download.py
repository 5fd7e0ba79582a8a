from __future__ import annotations

import hashlib
import io
import logging
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from recsys.data import catalogue, download
from recsys.data.catalogue import Preset, Source
from recsys.errors import ConfigError, DataError

pytest.importorskip("pooch")

RATINGS = "userId,movieId,rating,timestamp\n1,2,3,4\n"


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """Return a directory and the loopback address it is served at."""
    root = tmp_path / "served"
    root.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield root, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("RECSYS_DATA_DIR", raising=False)
    monkeypatch.setenv("RECSYS_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def archive(root: Path) -> str:
    """Write set.zip and return its md5."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as content:
        content.writestr("ml/ratings.csv", RATINGS)
        content.writestr("ml/movies.csv", "movieId,title,genres\n2,B,C\n")
        content.writestr("ml/README.txt", "not wanted")
        content.writestr("../escape.txt", "not wanted either")
    (root / "set.zip").write_bytes(buffer.getvalue())
    return hashlib.md5(buffer.getvalue()).hexdigest()


def use(monkeypatch: pytest.MonkeyPatch, *sources: Source) -> Preset:
    """Put the sources into the catalogue's `movielens-latest`."""
    preset = replace(catalogue.PRESETS["movielens-latest"], sources=sources)
    monkeypatch.setattr(catalogue, "PRESETS", {**catalogue.PRESETS, preset.name: preset})
    return preset


MEMBERS = ("ml/ratings.csv", "ml/movies.csv")


def test_a_set_is_fetched_checked_unpacked_and_not_fetched_again(
    served: tuple[Path, str], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, address = served
    use(monkeypatch, Source(f"{address}/set.zip", f"md5:{archive(root)}", MEMBERS))
    directory = download.get("movielens-latest")
    assert directory == cache / "raw" / "movielens-latest"
    assert sorted(path.name for path in directory.iterdir()) == ["movies.csv", "ratings.csv"]
    assert (directory / "ratings.csv").read_text() == RATINGS
    assert not list(cache.rglob("escape.txt"))
    (root / "set.zip").unlink()
    assert download.get("movielens-latest") == directory


def test_a_wrong_checksum_is_refused_and_nothing_is_left(
    served: tuple[Path, str], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, address = served
    archive(root)
    use(monkeypatch, Source(f"{address}/set.zip", f"md5:{'0' * 32}", MEMBERS))
    with pytest.raises(DataError) as caught:
        download.get("movielens-latest")
    message = str(caught.value)
    assert "set.zip could not be fetched" in message and "hash" in message
    assert "grouplens.org" in message and str(cache) in message
    assert list((cache / "raw" / "movielens-latest").iterdir()) == []


def test_an_address_that_does_not_answer_says_what_to_do_by_hand(
    served: tuple[Path, str], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, Source(f"{served[1]}/absent.zip", None, MEMBERS))
    with pytest.raises(DataError, match=r"could not be fetched: 404[\s\S]*By hand: fetch it from"):
        download.get("movielens-latest")


def test_a_file_without_a_published_checksum_is_taken_with_a_word(
    served: tuple[Path, str],
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    root, address = served
    (root / "ratings.csv").write_text(RATINGS)
    use(monkeypatch, Source(f"{address}/ratings.csv"))
    with caplog.at_level(logging.WARNING, "recsys.data.download"):
        directory = download.get("movielens-latest")
    assert (directory / "ratings.csv").read_text() == RATINGS
    assert f"sha256 is {hashlib.sha256(RATINGS.encode()).hexdigest()}" in caplog.text


def test_an_archive_without_the_files_is_named(
    served: tuple[Path, str], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, address = served
    archive(root)
    use(monkeypatch, Source(f"{address}/set.zip", None, ("ml/absent.csv",)))
    with pytest.raises(DataError, match=r"set\.zip is not the archive that was expected"):
        download.get("movielens-latest")


def test_the_own_folder_comes_before_the_cache(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for root in (cache / "raw", tmp_path / "own"):
        (root / "movielens-latest").mkdir(parents=True)
        (root / "movielens-latest" / "ratings.csv").write_text(RATINGS)
    assert download.get("movielens-latest") == cache / "raw" / "movielens-latest"
    monkeypatch.setenv("RECSYS_DATA_DIR", str(tmp_path / "own"))
    assert download.get("movielens-latest") == tmp_path / "own" / "movielens-latest"


def test_an_unknown_set_and_one_without_an_address(cache: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'spotify'"):
        download.get("spotifi")
    with pytest.raises(DataError, match=r"aicrowd.com"):
        download.get("spotify")


def test_the_cache_has_a_place_on_every_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_CACHE_DIR", "/somewhere")
    assert download.cache_directory() == Path("/somewhere")
    monkeypatch.delenv("RECSYS_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.setattr("sys.platform", "linux")
    assert download.cache_directory() == Path("/xdg/recsys")
    monkeypatch.setattr("sys.platform", "darwin")
    assert download.cache_directory() == Path.home() / "Library/Caches/recsys"


def test_a_conversion_is_made_once_for_the_same_files_and_again_for_others(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECSYS_DATA_DIR", str(tmp_path))
    ratings = tmp_path / "movielens-1m" / "ratings.dat"
    ratings.parent.mkdir()
    ratings.write_text("1::2::3::4\n")
    first = download.get("movielens-1m")
    made = (first / "events.parquet").stat().st_mtime_ns
    assert download.get("movielens-1m") == first
    assert (first / "events.parquet").stat().st_mtime_ns == made
    ratings.write_text("1::2::3::5\n")
    assert download.get("movielens-1m") != first


def test_a_conversion_that_fails_leaves_nothing_that_counts(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECSYS_DATA_DIR", str(tmp_path))
    ratings = tmp_path / "movielens-1m" / "ratings.dat"
    ratings.parent.mkdir()
    ratings.write_text("1::2\n")
    with pytest.raises(DataError, match="expected 4 fields"):
        download.get("movielens-1m")
    assert not list(cache.rglob("manifest.json"))
