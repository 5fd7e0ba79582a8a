from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys import __version__
from recsys.errors import ArtifactError, RecsysError
from recsys.manifest import (
    MANIFEST,
    file_hash,
    is_current,
    read_manifest,
    replace_directory,
    stable_hash,
    stage_directory,
    write_manifest,
)


class KilledError(Exception):
    """Stands for a process that dies on the way."""


def finish(directory: Path, key: str, content: str = "x") -> None:
    with stage_directory(directory, key) as (work, manifest):
        (work / "data.txt").write_text(content)
        manifest["rows"] = len(content)


def test_a_finished_stage_has_its_files_and_manifest_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "prepared"
    finish(target, "k1", "abc")
    assert sorted(p.name for p in target.iterdir()) == ["data.txt", MANIFEST]
    assert [p.name for p in tmp_path.iterdir()] == ["prepared"]
    manifest = read_manifest(target)
    assert manifest == {"schema_version": 1, "code_version": __version__, "key": "k1", "rows": 3}


def test_a_stage_is_current_only_for_its_own_key(tmp_path: Path) -> None:
    target = tmp_path / "prepared"
    assert not is_current(target, "k1")
    finish(target, "k1")
    assert is_current(target, "k1")
    assert not is_current(target, "k2")


def test_a_stage_that_dies_leaves_the_finished_one_alone(tmp_path: Path) -> None:
    target = tmp_path / "prepared"
    finish(target, "k1", "old")
    with pytest.raises(KilledError), stage_directory(target, "k2") as (work, _):
        (work / "data.txt").write_text("half")
        raise KilledError
    assert is_current(target, "k1")
    assert (target / "data.txt").read_text() == "old"


def test_a_stage_that_dies_first_time_is_not_finished(tmp_path: Path) -> None:
    target = tmp_path / "prepared"
    with pytest.raises(KilledError), stage_directory(target, "k1") as (work, _):
        (work / "data.txt").write_text("half")
        raise KilledError
    assert not target.exists()
    with pytest.raises(ArtifactError, match="holds no finished stage"):
        read_manifest(target)


def test_the_same_command_finds_its_unfinished_work(tmp_path: Path) -> None:
    target = tmp_path / "run"
    with pytest.raises(KilledError), stage_directory(target, "k1") as (work, _):
        (work / "last.ckpt").write_text("epoch 3")
        raise KilledError
    with stage_directory(target, "k1") as (work, _):
        assert (work / "last.ckpt").read_text() == "epoch 3"
    assert (target / "last.ckpt").read_text() == "epoch 3"


def test_another_key_does_not_inherit_unfinished_work(tmp_path: Path) -> None:
    target = tmp_path / "run"
    with pytest.raises(KilledError), stage_directory(target, "k1") as (work, _):
        (work / "last.ckpt").write_text("epoch 3")
        raise KilledError
    with stage_directory(target, "k2") as (work, _):
        assert not (work / "last.ckpt").exists()


def test_unfinished_work_of_unknown_origin_is_not_used(tmp_path: Path) -> None:
    partial = tmp_path / ".run.partial"
    partial.mkdir()
    (partial / "last.ckpt").write_text("whose?")
    with stage_directory(tmp_path / "run", "k1") as (work, _):
        assert not (work / "last.ckpt").exists()


def test_a_new_result_replaces_the_old_one_whole(tmp_path: Path) -> None:
    target = tmp_path / "prepared"
    finish(target, "k1", "old")
    (target / "left over.txt").write_text("old")
    finish(target, "k2", "new")
    assert sorted(p.name for p in target.iterdir()) == ["data.txt", MANIFEST]
    assert (target / "data.txt").read_text() == "new"


def test_what_a_killed_replacement_left_is_cleared(tmp_path: Path) -> None:
    old = tmp_path / ".prepared.old"
    old.mkdir()
    (old / "x").write_text("x")
    source, target = tmp_path / "source", tmp_path / "prepared"
    source.mkdir()
    target.mkdir()
    replace_directory(source, target)
    assert [p.name for p in tmp_path.iterdir()] == ["prepared"]


def killed_between_the_renames(source: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave on disk what a kill leaves after the old directory is set aside."""
    moved = Path.replace

    def replace(self: Path, to: Path) -> Path:
        if self == source:
            raise KilledError
        return moved(self, to)

    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(Path, "replace", replace)
        replace_directory(source, target)
    assert not target.exists()


def test_a_directory_lost_to_a_kill_is_put_back_for_its_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, source = tmp_path / "prepared", tmp_path / "source"
    finish(target, "k1", "old")
    source.mkdir()
    killed_between_the_renames(source, target, monkeypatch)
    assert is_current(target, "k1")
    assert (target / "data.txt").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["prepared", "source"]


def test_a_directory_lost_to_a_kill_outlives_a_stage_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, source = tmp_path / "prepared", tmp_path / "source"
    finish(target, "k1", "old")
    source.mkdir()
    killed_between_the_renames(source, target, monkeypatch)
    with pytest.raises(KilledError), stage_directory(target, "k2"):
        raise KilledError
    assert is_current(target, "k1")


def test_what_is_half_deleted_is_not_put_back(tmp_path: Path) -> None:
    old = tmp_path / ".prepared.old"
    old.mkdir()
    (old / "data.txt").write_text("the half that is left")
    assert not is_current(tmp_path / "prepared", "k1")
    assert not (tmp_path / "prepared").exists()


def test_work_that_was_killed_before_its_move_is_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(source: Path, target: Path) -> None:
        raise KilledError

    target = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr("recsys.manifest.replace_directory", killed)
        finish(target, "k1", "trained for hours")
    with stage_directory(target, "k1") as (work, _):
        assert (work / "data.txt").read_text() == "trained for hours"


def test_two_processes_do_not_write_one_directory(tmp_path: Path) -> None:
    target = tmp_path / "run"
    with stage_directory(target, "k1") as (work, _):
        (work / "last.ckpt").write_text("epoch 3")
        for key in ("k1", "k2"):
            at_work = rf"another process is at work in .*run \(pid {os.getpid()} on "
            with pytest.raises(RecsysError, match=at_work), stage_directory(target, key):
                pytest.fail("the other one is still there")
        assert (work / "last.ckpt").read_text() == "epoch 3"
    assert is_current(target, "k1")


def test_a_manifest_that_is_not_json(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text("{half")
    with pytest.raises(ArtifactError, match="not valid JSON"):
        read_manifest(tmp_path)
    assert not is_current(tmp_path, "k")


def test_a_manifest_of_another_schema(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text(json.dumps({"schema_version": 99, "key": "k"}))
    with pytest.raises(ArtifactError, match="schema version 99"):
        read_manifest(tmp_path)
    assert not is_current(tmp_path, "k")


def test_writing_a_manifest_leaves_no_side_file(tmp_path: Path) -> None:
    write_manifest(tmp_path, {"path": tmp_path, "b": 1})
    assert [p.name for p in tmp_path.iterdir()] == [MANIFEST]
    assert read_manifest(tmp_path)["path"] == str(tmp_path)


def test_file_hash_is_sha256_of_the_bytes(tmp_path: Path) -> None:
    content = bytes(range(256)) * 9000  # more than one block
    path = tmp_path / "blob"
    path.write_bytes(content)
    assert file_hash(path) == hashlib.sha256(content).hexdigest()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def reordered(value: object) -> object:
    """Return the same value with every mapping's keys in reverse order."""
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(value)}
    if isinstance(value, list):
        return [reordered(item) for item in value]
    return value


@given(json_values)
def test_stable_hash_does_not_depend_on_key_order(value: object) -> None:
    assert stable_hash(value) == stable_hash(reordered(value))


def some_values() -> Iterator[object]:
    yield from ({"a": 1}, {"a": "1"}, {"a": 1.5}, {"b": 1}, [1, 2], [2, 1], None, "None", {}, [])


def test_stable_hash_tells_different_values_apart() -> None:
    hashes = [stable_hash(value) for value in some_values()]
    assert len(set(hashes)) == len(hashes)
