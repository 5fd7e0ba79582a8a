"""Hidden words: whole ones, the right share of the real tokens, 80/10/10."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from recsys.data.item_sentences import SentenceBatch
from recsys.losses.masked_words import choose_words, hide_words

CLS, PAD, MASK, SHARE = 2, 0, 3, 0.15


def words(rows: int, length: int, real: int, width: int) -> SentenceBatch:
    """Sequences of `real` tokens in words of `width`, padded to `length`."""
    ids = torch.full((rows, length), PAD)
    ids[:, 0] = CLS
    ids[:, 1:real] = torch.arange(10, 10 + real - 1)
    starts = torch.zeros(rows, length, dtype=torch.bool)
    starts[:, 1:real:width] = True
    zero = torch.zeros_like(ids)
    return SentenceBatch(ids, zero, zero, starts, torch.full((rows,), real))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


@pytest.mark.parametrize("length", [31, 120])
@pytest.mark.parametrize("width", [1, 3, 10])
def test_the_share_is_of_real_tokens(length: int, width: int) -> None:
    chosen = choose_words(words(4000, length, 31, width), SHARE, generator())
    assert not chosen[:, 0].any() and not chosen[:, 31:].any()
    assert chosen.float().sum(1).mean().item() == pytest.approx(SHARE * 30, rel=0.05)


def test_words_are_hidden_whole() -> None:
    chosen = choose_words(words(500, 40, 31, 3), SHARE, generator())[:, 1:31]
    pieces = chosen.unflatten(1, (10, 3))
    assert torch.equal(pieces.any(2), pieces.all(2))


def test_a_sequence_that_is_cut_amid_a_word_and_one_without_words() -> None:
    batch = words(300, 12, 9, 4)
    batch.word_starts[:, 1] = False  # the first token is what is left of a word
    assert choose_words(batch, SHARE, generator())[:, 1].any()
    alone = replace(batch, lengths=torch.ones_like(batch.lengths))
    assert not choose_words(alone, SHARE, generator()).any()
    assert choose_words(words(0, 1, 1, 1), SHARE, generator()).shape == (0, 1)


def test_eight_in_ten_are_masked_and_one_is_another_token() -> None:
    batch = words(3000, 31, 31, 1)
    hidden = hide_words(batch, SHARE, MASK, (100, 200), generator())
    assert torch.equal(hidden.tokens, batch.ids[hidden.chosen])
    assert torch.equal(hidden.batch.ids[~hidden.chosen], batch.ids[~hidden.chosen])
    shown = hidden.batch.ids[hidden.chosen]
    shares = [(shown == MASK).float(), (shown >= 100).float(), (shown == hidden.tokens).float()]
    assert [s.mean().item() for s in shares] == pytest.approx([0.8, 0.1, 0.1], abs=0.01)


def test_equal_generators_hide_equal_words() -> None:
    batch = words(20, 31, 31, 2)
    one, other = (hide_words(batch, SHARE, MASK, (100, 200), generator()) for _ in range(2))
    assert torch.equal(one.batch.ids, other.batch.ids)
