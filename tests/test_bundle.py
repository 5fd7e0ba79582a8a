from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from tiny_bundle import N_ITEMS, events, fitted, items_frame, make_bundle, users_frame

from recsys.bundle import load_bundle, newest
from recsys.bundle.layout import version_of
from recsys.config import IndexConfig, SASRecConfig
from recsys.data.batches import batch_from_lists
from recsys.errors import ArtifactError, DataError, RecsysError
from recsys.lock import locked
from recsys.manifest import file_hash, stable_hash
from recsys.retrieval.index import ExactIndex, build_index, recall_check

FILES = [
    "config.yaml",
    "index/index.json",
    "index/vectors.npy",
    "items.parquet",
    "model.safetensors",
    "popularity.npy",
    "recent/items.npy",
    "recent/offsets.npy",
    "recent/sequences.json",
    "recent/timestamps.npy",
    "seen/items.npy",
    "seen/offsets.npy",
    "seen/sequences.json",
    "users.parquet",
]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundles"))


@pytest.fixture
def copy(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / original.name))


def test_loads_what_was_written(original: Path) -> None:
    bundle = load_bundle(original)
    assert original.name == f"tiny@{bundle.version}"
    assert bundle.name == "tiny"
    assert not bundle.model.training
    batch = batch_from_lists([[1, 2], [], [7]], None, 6)
    with torch.no_grad():
        assert torch.equal(bundle.model.score(batch), fitted().score(batch))
    assert bundle.items.equals(items_frame())
    assert bundle.item_ids.decode([1, N_ITEMS]) == ["i01", "i40"]
    assert bundle.user_ids is not None
    assert bundle.user_ids.ids.to_list() == users_frame()["user_id"].to_list()
    assert isinstance(bundle.index, ExactIndex)
    assert torch.equal(bundle.index.vectors, fitted().state_dict()["item_table.weight"])
    assert bundle.popularity.sum() == events().n_events
    assert bundle.manifest["info"]["metrics"] == {"NDCG@10": 0.5}
    assert bundle.manifest["sizes"]["items"] == N_ITEMS
    assert sorted(bundle.manifest["files"]) == FILES


def test_only_the_newest_events_travel(original: Path) -> None:
    recent, full = load_bundle(original).recent, events()
    assert recent is not None
    for user in range(full.n_users):
        mine = slice(recent.offsets[user], recent.offsets[user + 1])
        end = full.offsets[user + 1]
        theirs = slice(max(full.offsets[user], end - 5), end)
        assert recent.items[mine].tolist() == full.items[theirs].tolist()
        assert recent.timestamps is not None
        assert full.timestamps is not None
        assert recent.timestamps[mine].tolist() == full.timestamps[theirs].tolist()
    assert newest(full, 0).n_events == 0


def test_the_items_of_all_events_travel_too(original: Path) -> None:
    seen, full = load_bundle(original).seen, events()
    assert seen is not None
    assert seen.items.tolist() == full.items.tolist()
    assert seen.items.dtype == np.int32
    assert seen.offsets.tolist() == full.offsets.tolist()
    assert seen.timestamps is None
    assert isinstance(seen.items, np.memmap)


@pytest.mark.parametrize(
    ("info", "rule"), [({}, "seen"), ({"exclude": "none"}, "none"), ({"exclude": 5}, 5)]
)
def test_the_rule_of_exclusion_travels(tmp_path: Path, info: dict[str, object], rule: str) -> None:
    assert load_bundle(make_bundle(tmp_path, info=info)).exclude == rule


@pytest.mark.parametrize("rule", ["sene", True, None, 0])
def test_what_is_no_rule_of_exclusion_is_refused(tmp_path: Path, rule: object) -> None:
    with pytest.raises(DataError, match=r"rule of exclusion is|window is 0"):
        make_bundle(tmp_path, info={"exclude": rule})
    assert list(tmp_path.iterdir()) == []


def test_version_is_a_function_of_the_content(tmp_path: Path, original: Path) -> None:
    same = make_bundle(tmp_path / "a", info={"note": "another day"})
    assert same.name == original.name
    assert make_bundle(tmp_path / "a", info={}) == same  # replaces
    assert [p.name for p in (tmp_path / "a").iterdir()] == [same.name]
    other = make_bundle(tmp_path / "b", model=fitted(seed=4))
    assert other.name != original.name
    fewer = make_bundle(tmp_path / "c", recent_events=4)
    assert fewer.name != original.name


def test_another_rule_is_another_version_and_leaves_the_first_alone(tmp_path: Path) -> None:
    """A champion must not change because a candidate of the same weights was published."""
    seen = make_bundle(tmp_path, info={"exclude": "seen"})
    none = make_bundle(tmp_path, info={"exclude": "none"})
    minutes = make_bundle(tmp_path, info={"exclude": "none", "basket_minutes": 5.0})
    assert len({seen, none, minutes}) == 3
    assert [load_bundle(path).exclude for path in (seen, none, minutes)] == ["seen", "none", "none"]


@pytest.mark.parametrize("place", ["first", "middle", "last"])
@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_one_flipped_byte_is_refused_and_the_file_named(copy: Path, name: str, place: str) -> None:
    content = bytearray((copy / name).read_bytes())
    where = {"first": 0, "middle": len(content) // 2, "last": len(content) - 2}[place]
    content[where] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=name):
        load_bundle(copy)


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_truncated_and_missing_files_are_refused_and_named(copy: Path, name: str) -> None:
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[:-3])
    with pytest.raises(ArtifactError, match=name):
        load_bundle(copy)
    (copy / name).unlink()
    with pytest.raises(ArtifactError, match=f"{name} is missing"):
        load_bundle(copy)


def reseal(bundle: Path, **changes: object) -> None:
    """Change the manifest as another version of the code would have written it."""
    manifest = {**json.loads((bundle / "manifest.json").read_text()), **changes}
    manifest.pop("digest")
    manifest["digest"] = stable_hash(manifest)
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def version_with(bundle: Path, files: dict[str, Any]) -> str:
    """Return the version that a bundle of these files has."""
    info = json.loads((bundle / "manifest.json").read_text())["info"]
    return version_of(files, info)


@pytest.mark.parametrize("key", ["schema_version", "bundle_version"])
def test_other_versions_are_refused(copy: Path, key: str) -> None:
    reseal(copy, **{key: 99})
    with pytest.raises(ArtifactError, match=r"manifest.json has .* version 99"):
        load_bundle(copy)


def test_a_stage_directory_is_no_bundle(copy: Path, tmp_path: Path) -> None:
    reseal(copy, format="something else")
    with pytest.raises(ArtifactError, match="does not describe a bundle"):
        load_bundle(copy)
    (copy / "manifest.json").write_text("[]")
    with pytest.raises(ArtifactError, match="does not describe a bundle"):
        load_bundle(copy)
    with pytest.raises(ArtifactError, match="is no bundle"):
        load_bundle(tmp_path / "nowhere")


def test_a_file_left_out_of_the_manifest_is_refused(copy: Path) -> None:
    files = json.loads((copy / "manifest.json").read_text())["files"]
    del files["index/vectors.npy"]
    reseal(copy, files=files)
    with pytest.raises(ArtifactError, match=r"manifest.json is damaged"):
        load_bundle(copy)  # the version does not fit
    reseal(copy, files=files, version=version_with(copy, files))
    with pytest.raises(ArtifactError, match=r"vectors.npy is not listed"):
        load_bundle(copy)


@pytest.mark.parametrize(
    "config", ["kind: oracle\n", "kind: sasrec\nwidth: 8\nsecret: 1\n", "- 1\n"]
)
def test_unknown_models_are_refused(tmp_path: Path, config: str) -> None:
    bundle = make_bundle(tmp_path)
    (bundle / "config.yaml").write_text(config)
    files = json.loads((bundle / "manifest.json").read_text())["files"]
    files["config.yaml"] = {
        "bytes": len(config),
        "sha256": file_hash(bundle / "config.yaml"),
    }
    reseal(bundle, files=files, version=version_with(bundle, files))
    with pytest.raises(ArtifactError, match=r"config.yaml: model kind .* is not known"):
        load_bundle(bundle)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"model.safetensors does not fit"):
        load_bundle(make_bundle(tmp_path, SASRecConfig(width=16), model=fitted()))


def test_parts_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    index = build_index(IndexConfig(), torch.ones(N_ITEMS, 8))
    with pytest.raises(ArtifactError, match=r"'index': 39"):
        make_bundle(tmp_path, index=index)
    with pytest.raises(ArtifactError, match=r"'items': 39"):
        make_bundle(tmp_path, items=items_frame().head(39))
    with pytest.raises(ArtifactError, match="11 users"):
        make_bundle(tmp_path, users=users_frame().head(11))
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_of_a_write_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: ExactIndex, directory: Path) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(ExactIndex, "save", full)
    with pytest.raises(OSError, match="no space"):
        make_bundle(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_killed_writers_left_is_cleared(tmp_path: Path) -> None:
    left = tmp_path / ".another.partial-17"
    left.mkdir()
    (left / "model.safetensors").write_text("half")
    path = make_bundle(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_what_another_process_is_writing_stays(tmp_path: Path) -> None:
    theirs = tmp_path / ".another.partial-17"
    with locked(tmp_path / ".lock", tmp_path, ""):
        theirs.mkdir()
        with pytest.raises(RecsysError, match=r"another process is at work in .* publish again"):
            make_bundle(tmp_path)
        assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == [theirs.name]


def test_metrics_without_a_value_become_null(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path, info={"HR@10": float("nan"), "low": float("-inf")})
    assert load_bundle(bundle).manifest["info"] == {"HR@10": None, "low": None}


def test_users_are_optional(tmp_path: Path) -> None:
    bundle = load_bundle(make_bundle(tmp_path, users=None, store=None))
    assert bundle.user_ids is None
    assert bundle.recent is None
    assert bundle.seen is None


FRESH = """
import sys
from pathlib import Path
from typing import Any
from recsys.bundle import load_bundle
from recsys.recommender import Query, Recommender
bundle = load_bundle(Path(sys.argv[1]))
answer, = Recommender(bundle).recommend([Query(history=["i03", "i17"], k=5)])
heavy = {"pytorch_lightning", "mlflow", "feast", "ray", "transformers"} & set(sys.modules)
print(",".join(answer.items), sorted(heavy))
"""


def test_works_in_a_fresh_process_with_the_training_data_gone(tmp_path: Path) -> None:
    data = tmp_path / "prepared"
    events().save(data)
    from recsys.data.sequences import SequenceStore

    bundle = make_bundle(tmp_path / "bundles", store=SequenceStore.load(data))
    shutil.rmtree(data)
    done = subprocess.run(
        [sys.executable, "-c", FRESH, str(bundle)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    batch = batch_from_lists([[3, 17]], None, 6)
    with torch.no_grad():
        scores = fitted().score(batch)[0]
    scores[[0, 3, 17]] = -torch.inf
    expected = ",".join(f"i{i:02d}" for i in scores.argsort(descending=True)[:5].tolist())
    assert done.stdout.strip() == f"{expected} []"


def test_nothing_is_pickled(original: Path) -> None:
    for path in original.rglob("*"):
        if path.is_file():
            assert path.suffix in {".json", ".yaml", ".safetensors", ".parquet", ".npy"}
            if path.suffix == ".npy":
                np.load(path, allow_pickle=False)
            if path.suffix == ".parquet":
                assert not any(t == pl.Object for t in pl.read_parquet(path).dtypes)


def test_an_approximate_index_travels_too(tmp_path: Path) -> None:
    with torch.no_grad():
        vectors = fitted().state_dict()["item_table.weight"]
    index = build_index(IndexConfig(kind="hnsw"), vectors)
    recall_check(index, vectors, vectors[1:], 5)
    path = make_bundle(tmp_path, index=index)
    bundle = load_bundle(path)
    assert bundle.index is not None
    assert bundle.index.kind == "hnsw"
    assert bundle.manifest["index"]["recall"] == index.recall is not None
    content = bytearray((path / "index" / "index.faiss").read_bytes())
    content[-1] ^= 1
    (path / "index" / "index.faiss").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"index.faiss"):
        load_bundle(path)
