"""Input files are told by what they hold."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

import pytest

import pipelines.input_files as module
from pipelines.input_files import directory_hash, fingerprints


def test_a_file_is_told_by_its_bytes(tmp_path: Path) -> None:
    path, same = tmp_path / "a.csv", tmp_path / "b.csv"
    path.write_bytes(b"some")
    same.write_bytes(b"some")
    found = fingerprints([path, same], {})
    assert list(found) == [str(path), str(same)]
    assert {one["sha256"] for one in found.values()} == {sha256(b"some").hexdigest()}
    stat = path.stat()
    path.write_bytes(b"more")  # of the same size, at the same time
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    again = fingerprints([path], found)[str(path)]
    assert again["sha256"] == sha256(b"more").hexdigest()
    assert again["modified_ns"] == found[str(path)]["modified_ns"]


def test_a_large_file_is_read_again_when_it_looks_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HASH_AGAIN_BELOW", 3)
    read: list[str] = []
    whole = module.file_hash
    monkeypatch.setattr(module, "file_hash", lambda p: (read.append(p.name), whole(p))[1])
    path = tmp_path / "large"
    path.write_bytes(b"some")
    first = fingerprints([path], {})
    assert fingerprints([path], first) == first and read == ["large"]
    os.utime(path, ns=(1, 1))
    touched = fingerprints([path], first)
    assert len(read) == 2 and touched[str(path)]["sha256"] == first[str(path)]["sha256"]
    path.write_bytes(b"some more")
    assert fingerprints([path], touched)[str(path)]["sha256"] != first[str(path)]["sha256"]
    old = {str(path): {"size": 9, "modified_ns": path.stat().st_mtime_ns}}  # written without a hash
    assert "sha256" in fingerprints([path], old)[str(path)]


def test_a_directory_is_told_by_its_files(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for directory in (one, other):
        (directory / "inside").mkdir(parents=True)
        (directory / "inside" / "a").write_bytes(b"some")
    assert directory_hash(one) == directory_hash(other)
    (other / ".cache").mkdir()
    (other / ".cache" / "lock").write_bytes(b"")
    (other / ".hidden").write_bytes(b"")
    assert directory_hash(one) == directory_hash(other)
    (other / "inside" / "a").rename(other / "inside" / "b")
    renamed = directory_hash(other)
    assert directory_hash(one) != renamed
    (other / "inside" / "b").write_bytes(b"changed")
    assert directory_hash(other) not in (renamed, directory_hash(one))
