"""Lists of everybody are those that every user would get alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tiny_bundle import N_USERS, SASREC, make_bundle

from pipelines import cli
from pipelines.recommend import recommend_everybody
from recsys.bundle import load_bundle
from recsys.config import IndexConfig, MarkovConfig, ModelConfig, UniRecConfig
from recsys.errors import DataError
from recsys.recommender import Recommender
from recsys.recommender.everybody import lists_of_everybody
from recsys.retrieval.index import build_index

UNIREC = UniRecConfig(width=8, heads=2, blocks=1, max_length=6, global_weight=20.0)


def check(found: pl.DataFrame, bundle: Path, k: int) -> None:
    alone = pl.concat(Recommender(load_bundle(bundle)).recommend_batch(k=k))
    assert found.columns == alone.columns
    keys = ["user_id", "rank", "item_id", "fallback", "model_version"]
    assert found.select(keys).to_dicts() == alone.select(keys).to_dicts()
    np.testing.assert_allclose(found["score"], alone["score"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("config", [SASREC, UNIREC, MarkovConfig()], ids=lambda config: config.kind)
@pytest.mark.parametrize("exclude", ["seen", "none", 3])
def test_they_are_those_of_every_user_alone(
    tmp_path: Path, config: ModelConfig, exclude: str | int
) -> None:
    bundle = make_bundle(tmp_path, config, info={"exclude": exclude})
    output = tmp_path / "lists" / "all.parquet"
    assert recommend_everybody(bundle, output, k=7) == N_USERS
    check(pl.read_parquet(output), bundle, 7)
    assert [path.name for path in output.parent.iterdir()] == ["all.parquet"]


def test_any_block_and_any_index_give_the_same(tmp_path: Path) -> None:
    from dataclasses import replace

    bundle = load_bundle(make_bundle(tmp_path))
    assert bundle.index is not None
    flat = build_index(IndexConfig(kind="flat"), bundle.index.vectors)
    for one, block in ((bundle, 1), (bundle, 5), (replace(bundle, index=flat), 4)):
        check(pl.concat(lists_of_everybody(one, 50, block=block)), bundle.path, 50)
    some = pl.concat(lists_of_everybody(bundle, 3, first=4, last=6))
    assert some["user_id"].unique().sort().to_list() == ["u04", "u05"]


def test_what_cannot_be_is_said(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path, users=None, store=None)
    with pytest.raises(DataError, match="holds no users"):
        recommend_everybody(bundle, tmp_path / "x.parquet", 5)
    with pytest.raises(DataError, match="k is 0"):
        next(lists_of_everybody(load_bundle(bundle), 0))


def test_the_command_writes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle, output = make_bundle(tmp_path), tmp_path / "all.parquet"
    with pytest.raises(SystemExit):
        cli.main(["recommend", str(bundle), "--users", "all", "--output", str(output), "-k", "4"])
    assert f"{N_USERS} users" in capsys.readouterr().out
    check(pl.read_parquet(output), bundle, 4)


@pytest.mark.ray
@pytest.mark.slow
def test_on_ray_it_is_a_directory_of_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines import recommend

    monkeypatch.setattr(recommend, "USERS_A_TASK", 5)
    bundle = make_bundle(tmp_path)
    assert recommend_everybody(bundle, tmp_path / "all", 6, workers=2) == N_USERS
    files = sorted(path.name for path in (tmp_path / "all").iterdir())
    assert files == [f"part-0000{n}.parquet" for n in range(3)]
    check(pl.concat(pl.read_parquet(tmp_path / "all" / file) for file in files), bundle, 6)
