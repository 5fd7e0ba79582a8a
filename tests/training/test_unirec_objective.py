"""UniRec's objective: all parts together, each a switch, the same after a restart, and it learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_fit import ITEMS, assert_same_result, plan, ring, small_model

from recsys.config import LossConfig, UniRecConfig
from recsys.data.sequences import TrainingData
from recsys.data.statistics import TrainingStatistics
from recsys.data.windows import TrainingBatches
from recsys.errors import ArtifactError
from recsys.losses import build_loss
from recsys.models.global_term import history_part
from recsys.models.unirec import UniRec
from recsys.training.fit import FitPlan, fit
from recsys.training.unirec_objective import UniRecObjective

BEGIN, HOUR, DAY = 1_388_534_400, 3600, 86_400


def timed_ring() -> tuple[TrainingData, TrainingStatistics]:
    """The ring of `test_fit` with times, and made-up statistics of it."""
    store, split = ring()
    rng = np.random.default_rng(0)
    gaps = rng.integers(60, 3 * HOUR, store.n_events)
    data = TrainingData(
        replace(store, timestamps=(BEGIN + gaps.cumsum()).astype(np.int64)), split.train_end
    )
    near = (np.arange(ITEMS + 1)[:, None] + np.arange(1, 11)) % ITEMS + 1
    statistics = TrainingStatistics(
        rng.random(store.n_users), rng.random(ITEMS + 1), data.item_counts(), near.astype(np.int32)
    )
    return data, statistics


def small(**changes: Any) -> UniRec:
    torch.manual_seed(1)
    settings = {"width": 8, "max_length": 12, "dropout": 0.1, "blocks": 1} | changes
    return UniRec(UniRecConfig(**settings), ITEMS)


def timed_plan(directory: Path, **training: Any) -> FitPlan:
    data, statistics = timed_ring()
    return replace(plan(directory, **training), data=data, statistics=statistics)


LEAN = {"sequence_enhancement": False, "item_enhancement": False, "global_term": False}
FORMS: dict[str, dict[str, Any]] = {
    "published": {},
    "reference": {"mode": "reference"},
    "ancestor": {"interval": False, "sequence_enhancement": False, "item_enhancement": False},
    "part": {"sequence_teacher": "target", "uniformity": True},
    "fused": {"block": "ligr", "fusion": "sum", "gaps": "log", "time_bias": True, **LEAN},
    "injected": {"block": "ligr", "inject_tail": "both", "item_bias": True, "normalise": True},
}


@pytest.mark.parametrize("form", FORMS)
def test_it_learns(form: str, tmp_path: Path) -> None:
    rows = fit(small(**FORMS[form]), timed_plan(tmp_path, epochs=12))
    assert rows[0]["ndcg@10"] < max(row["ndcg@10"] for row in rows)
    assert max(row["ndcg@10"] for row in rows) > 0.5


@pytest.mark.parametrize("kind", ["bce", "sampled_softmax", "bpr"])
def test_it_learns_by_sampled_losses_too(kind: str, tmp_path: Path) -> None:
    loss = LossConfig(kind=kind, negatives=1 if kind == "bce" else 16)  # type: ignore[arg-type]
    rows = fit(small(), timed_plan(tmp_path, epochs=12, loss=loss))
    assert max(row["ndcg@10"] for row in rows) > 0.4


def test_an_interrupted_run_ends_where_an_undisturbed_one_does(tmp_path: Path) -> None:
    """Weights of the objective and its draws go on, too."""

    def stop(row: dict[str, float]) -> None:
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    fit(small(inject_tail="inputs"), timed_plan(tmp_path / "whole", epochs=5))
    killed = replace(timed_plan(tmp_path / "killed", epochs=5), on_epoch=stop)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(small(inject_tail="inputs"), killed)
    fit(small(inject_tail="inputs"), replace(killed, on_epoch=None))
    assert_same_result(tmp_path / "whole", tmp_path / "killed")


def objective(net: UniRec, statistics: TrainingStatistics | None) -> UniRecObjective:
    data, _ = timed_ring()
    loss = build_loss(LossConfig(kind="softmax"), data.item_counts(), 100)
    return UniRecObjective(net, loss, data, statistics)


def test_parts_add_up_and_reseeding_restarts_them() -> None:
    data, statistics = timed_ring()
    batch = next(TrainingBatches(data, 12, 16).epoch(0))
    values = {}
    for name, switches in (
        ("all", {}),
        ("lean", LEAN),
        ("sequences", LEAN | {"sequence_enhancement": True}),
        ("items", LEAN | {"item_enhancement": True}),
        ("global", LEAN | {"global_term": True}),
    ):
        net = small(dropout=0.0, attention_noise=0.0, **switches)
        made = objective(net, statistics)
        torch.manual_seed(3)
        if made.sequences is not None and made.sequences.map is not None:
            torch.nn.init.normal_(made.sequences.map.weight)
        if made.items is not None:
            torch.manual_seed(4)
            made.items.enhancer.init_weights()  # type: ignore[union-attr]
        made.reseed(9)
        values[name] = made(net, batch, 0.8).item()
        again = made(net, batch, 0.8).item()
        made.reseed(9)
        assert made(net, batch, 0.8).item() == values[name]
        assert (again == values[name]) == (name in ("lean", "sequences"))
    parts = sum(values[name] - values["lean"] for name in ("sequences", "items", "global"))
    assert all(values[name] > values["lean"] for name in ("sequences", "items", "global"))
    assert values["all"] == pytest.approx(values["lean"] + parts, rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.07])
def test_the_global_term_learns_the_logit_of_what_it_adds_to_the_score(temperature: float) -> None:
    """Of two positives and negatives alike, by the definition of both, as far as the draws go."""
    data, statistics = timed_ring()
    training = {"loss": {"kind": "softmax", "temperature": temperature}}
    net = small(
        dropout=0.0,
        normalise=True,
        training=training,
        **LEAN | {"global_term": True, "global_weight": 1.0},
    ).eval()
    made = objective(net, statistics)
    batch = next(TrainingBatches(data, 12, 16).epoch(0))
    assert batch.targets is not None
    made.reseed(3)
    found = made._global(net, batch, net.encode_items())
    made.reseed(3)
    target = batch.targets.flatten()[batch.last]
    negatives, _ = made.sampler(target)
    table = net.encode_items()
    events, distinct = net.global_items(batch)
    part = history_part(events, distinct, table) @ table.T + net.beyond_product(batch)  # [B, V + 1]
    logits = part / temperature
    right = torch.nn.functional.softplus(-logits.gather(1, target[:, None]))[:, 0]
    kept = negatives != target[:, None]
    wrong = torch.nn.functional.softplus(logits.gather(1, negatives)) * kept
    losses = right + wrong.sum(1) / kept.sum(1)
    torch.testing.assert_close(found, losses.mean(), rtol=1e-5, atol=1e-6)


def test_every_weight_gets_a_gradient_from_the_first_step() -> None:
    """Processes that train together derive the same weights in every step."""
    data, statistics = timed_ring()
    batch = next(TrainingBatches(data, 12, 16).epoch(0))
    for form in FORMS.values():
        net = small(**form)
        made = objective(net, statistics)
        made(net, batch, 0.0).backward()
        both = torch.nn.ModuleList([net, made])
        assert [n for n, p in both.named_parameters() if p.grad is None] == []


def test_what_the_model_keeps_is_of_the_training_events() -> None:
    net = small(inject_tail="both")
    data, statistics = timed_ring()
    times = data.store.timestamps
    assert times is not None
    begins, ends = data.store.offsets[:-1], data.store.offsets[1:]
    for user, (begin, held_out, end) in enumerate(zip(begins, data.train_end, ends, strict=True)):
        assert begin < held_out < end, user
        times[held_out:end] += 3 * 365 * DAY  # what is held out happens years later
    net.prepare(data)
    objective(net, statistics)
    assert net.calendar is not None
    assert (net.calendar.first_year.item(), net.calendar.last_year.item()) == (2014, 2014)
    assert net.is_rare.sum() == ITEMS - int(0.3 * ITEMS)
    assert torch.equal(net.neighbours[:, 0].int(), torch.from_numpy(statistics.neighbours[:, 0]))
    assert not net.is_rare[0]


def test_what_an_earlier_training_counted_by_goes_on() -> None:
    """Years, and how much rare items are made of neighbours; else the weights would fit neither."""
    net, (data, statistics) = small(inject_tail="inputs"), timed_ring()
    batch = next(TrainingBatches(data, 12, 16).epoch(0))
    assert net.calendar is not None
    for goes_on, year, share in ((False, 2014, 0.0), (True, 2010, 0.75)):
        net.calendar.first_year.fill_(2010)
        net.injected.fill_(0.75)
        net.goes_on = goes_on
        net.prepare(data)
        objective(net, statistics)(net, batch, 0.0)
        assert (net.calendar.first_year.item(), net.injected.item()) == (year, share)
        assert net.calendar.last_year.item() == 2014
    objective(net, statistics)(net, batch, 1.0)
    assert net.injected.item() >= 0.75


def test_statistics_are_asked_for_where_a_part_reads_them() -> None:
    with pytest.raises(ArtifactError, match="run the features stage, or switch these parts off"):
        objective(small(), None)
    objective(small(**LEAN), None)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["sasrec", "unirec"])
def test_what_trains_is_compiled_where_that_is_asked_for(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a backend that only traces: every step runs through it, and the losses stay."""
    whole, calls = torch.compile, 0

    def traced(step: Any, dynamic: bool) -> Any:
        def counted(*arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            return run(*arguments)

        run = whole(step, dynamic=dynamic, backend="aot_eager")
        return counted

    monkeypatch.setattr(torch, "compile", traced)
    losses = {}
    for compile_ in ("off", "on"):
        model = (
            small_model(dropout=0.0)
            if form == "sasrec"
            else small(dropout=0.0, block="ligr", **LEAN)
        )
        directory = tmp_path / compile_
        rows = fit(model, timed_plan(directory, epochs=1, compile=compile_))
        losses[compile_] = rows[0]["loss"]
        assert (calls > 0) == (compile_ == "on")
    assert losses["on"] == pytest.approx(losses["off"], rel=1e-4)
