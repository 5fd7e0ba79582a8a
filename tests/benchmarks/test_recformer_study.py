"""The Recformer study: the order of its cells, their configurations, and its paired comparisons."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from recformer_study import (
    ABLATED,
    CONFIGS,
    FLOORS,
    LEARNED,
    SHARES,
    TARGETS,
    Cell,
    cells,
    compare,
    few,
)

from recsys.config import RecformerConfig, SASRecConfig, load_config, load_pretrain_config


def test_the_most_informative_cells_come_first() -> None:
    found = cells([0, 1])
    assert len(found) == len(set(found))
    assert [c.model for c in found[: 2 + len(FLOORS)]] == ["zero_shot", *FLOORS, "sasrec"]
    assert [c.seed for c in found] == sorted(c.seed for c in found)
    assert {(c.model, c.users) for c in found if c.seed == 1} == {
        (few(model, share), share) for model in LEARNED for share in SHARES
    }
    assert ("sasrec_few", 0.01) in {(c.model, c.users) for c in found}
    more = cells([0], ablations=True)[len(cells([0])) :]
    assert [(c.model, c.users) for c in more[:2]] == [("plain", 0.1), ("plain_scratch", 0.1)]
    assert more[-3:] == [Cell(m, 1.0, 0) for m in ABLATED]


def test_an_ablation_is_recformer_less_a_part(tmp_path: Path) -> None:
    whole, less = (
        {
            name: Cell(name, 1.0, 0).config(TARGETS["scientific"], tmp_path, tmp_path).models[name]
            for name in names
        }
        for names in (["recformer"], ["plain", *ABLATED])
    )
    [recformer] = whole.values()
    found = {
        name: {
            field
            for field, value in model.model_dump().items()
            if value != recformer.model_dump()[field]
        }
        for name, model in less.items()
    }
    assert found == {
        "plain": {"lexical"},
        "one_stage": {"stages"},
        "frozen_words": {"train_words"},
        "no_structure": {"encoder"},
    }


@pytest.mark.parametrize("name", TARGETS)
def test_a_cell_is_one_model_at_a_share_of_the_users(tmp_path: Path, name: str) -> None:
    weights, target = tmp_path / "pretrained", TARGETS[name]
    config = Cell("recformer", 0.1, 2).config(target, tmp_path, weights)
    [model] = config.models.values()
    assert isinstance(model, RecformerConfig)
    assert (model.training.users, model.stages, model.pretrained) == (0.1, "two", weights)
    assert (config.seed, config.text.tokenizer) == (2, str(weights))
    [scratch] = Cell("scratch", 0.1, 2).config(target, tmp_path, weights).models.values()
    assert isinstance(scratch, RecformerConfig) and scratch.pretrained is None
    assert (scratch.encoder, scratch.lexical) == (model.encoder, model.lexical)
    [zero] = Cell("zero_shot", 0.0, 0).config(target, tmp_path, weights).models.values()
    assert isinstance(zero, RecformerConfig) and zero.stages == "none"
    [sasrec] = Cell("sasrec_few", 0.01, 0).config(target, tmp_path, weights).models.values()
    assert isinstance(sasrec, SASRecConfig) and sasrec.training.users == 0.01
    for floor in FLOORS:
        assert list(Cell(floor, 1.0, 0).config(target, tmp_path, weights).models) == [floor]


def test_a_target_is_none_of_its_pretrainings_domains_and_has_results_of_its_own() -> None:
    for target in TARGETS.values():
        pretraining = load_pretrain_config(
            CONFIGS / "recformer_pretrain.yaml", list(target.pretraining)
        )
        learned = [load_config(CONFIGS.parent / path).data for path in pretraining.domains]
        assert len(learned) >= 3
        assert load_config(CONFIGS / f"{target.tuned}.yaml").data not in learned
        assert load_config(CONFIGS / f"{target.zero_shot}.yaml").data not in learned
    for field in ("name", "results"):
        assert len({getattr(target, field) for target in TARGETS.values()}) == len(TARGETS)


def test_models_are_compared_by_user_at_the_same_share_and_seed(tmp_path: Path) -> None:
    folder = tmp_path / "users"
    folder.mkdir()
    users = np.arange(300)
    base = np.random.default_rng(0).random(300)

    def keep(name: str, values: np.ndarray) -> None:  # type: ignore[type-arg]
        np.savez(folder / f"{name}.npz", users=users, ndcg=values)

    keep("recformer.0.1.0", base + 0.2)
    keep("scratch.0.1.0", base)
    keep("sasrec_few.0.1.0", base + 0.2)
    keep("sasrec.1.0", base)
    keep("zero_shot.0.0", base - 0.1)
    rows = {tuple(row["pair"]): row for row in compare(tmp_path)}
    assert set(rows) == {
        ("recformer.0.1.0", "scratch.0.1.0"),
        ("recformer.0.1.0", "sasrec_few.0.1.0"),
        ("zero_shot.0.0", "sasrec.1.0"),
    }
    better = rows["recformer.0.1.0", "scratch.0.1.0"]
    assert better["p"] < 0.001 <= better["p_holm"] + 0.001
    assert better["ndcg@10"]["of"] - better["ndcg@10"]["against"] == pytest.approx(0.2)
    assert rows["recformer.0.1.0", "sasrec_few.0.1.0"]["p"] == 1.0
    np.savez(folder / "scratch.0.1.0.npz", users=users + 1, ndcg=base)
    with pytest.raises(ValueError, match="tested on different users"):
        compare(tmp_path)
