"""The order-search benchmark: its tasks, its decoder's probabilities, and what it calls likelihood."""

from __future__ import annotations

import math
from argparse import Namespace
from itertools import permutations, product
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from order_search import SYMBOLS, Sets, Writer, setlists, star, surprise, train


def test_a_star_is_drawn_from_what_its_entropy_says() -> None:
    one, other = star(200), star(4000)
    assert one.train.shape == (200, 10) and len(one.test) == 500
    assert ((one.train // SYMBOLS) == torch.arange(10)).all()
    assert one.entropy is not None and other.entropy is not None
    assert one.entropy == pytest.approx(
        other.entropy, rel=0.1
    )  # of other samples of the same model
    head = torch.bincount(other.train[:, 0], minlength=SYMBOLS) / 4000
    again = torch.bincount(other.test[:, 0], minlength=SYMBOLS) / 500
    assert (head - again).abs().max() < 0.1


def test_windows_stay_inside_a_show_and_the_newest_are_tested(tmp_path: Path) -> None:
    """Every show plays songs of its own, so a window that spans two would hold songs of both."""
    shows = [
        (f"{1000 + show}", f"{show:03d} song {i:02d}") for show in range(200) for i in range(40)
    ]
    folder = tmp_path / "grateful-dead"
    folder.mkdir()
    columns = ["show_date", "song"]
    pl.DataFrame(shows, schema=columns, orient="row").write_csv(folder / "setlists.csv")
    sets = setlists(tmp_path)
    assert (sets.values, len(sets.train), len(sets.test)) == (200 * 40, 160 * 36, 500)
    for part, first, last in (
        (sets.train, 0, 160),
        (sets.validation, 160, 180),
        (sets.test, 180, 200),
    ):
        songs = part - sets.values * torch.arange(5)
        assert ((songs - songs[:, :1]) == torch.arange(5)).all()
        assert (songs // 40).min() >= first and (songs // 40).max() < last


def test_the_decoder_writes_every_variable_once_and_its_probabilities_sum_to_one() -> None:
    torch.manual_seed(0)
    writer, rows = Writer(3, 2, 8).eval(), torch.zeros(1, dtype=torch.int64)
    total = 0.0
    with torch.no_grad():
        for values in product(range(2), repeat=3):
            sets = torch.tensor([[2 * v + value for v, value in enumerate(values)]])
            of_orders = [
                float(surprise(writer, sets, order, 0)[0]) for order in permutations(range(3))
            ]
            whole = sum(math.exp(-x) for x in of_orders)
            assert float(surprise(writer, sets, None, 0)[0]) == pytest.approx(
                -math.log(whole), abs=1e-4
            )
            total += whole
        again = writer(torch.tensor([[1, 4]]), rows)[0, -1].exp()
    assert total == pytest.approx(1, abs=1e-5)
    assert again[[0, 1, 4, 5]].max() == 0 and again[[2, 3]].sum() == pytest.approx(1)


@pytest.mark.parametrize("order", ["head first", "sampled", "corrected", "hard", "uniform"])
def test_every_order_can_be_learned(order: str) -> None:
    rng = np.random.default_rng(0)
    head = rng.integers(0, 3, 400)
    sets = torch.from_numpy(np.stack([head, 3 + head, 6 + (head + 1) % 3], axis=1))
    task = Sets(sets[:200], sets[200:300], sets[300:], 3)
    torch.manual_seed(0)
    writer = Writer(3, 3, 16)
    fixed = (0, 1, 2) if order == "head first" else None
    options = Namespace(updates=120, batch=16, lr=0.01)
    train(writer, task, order, fixed, 0, options)
    perplexity = math.exp(float(surprise(writer, task.test, fixed, 0).mean()) / 3)
    assert perplexity < 1.7, "one of three equal values is 3 ** (1 / 3) = 1.44 a variable"
