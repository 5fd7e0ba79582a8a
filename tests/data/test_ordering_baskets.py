"""Baskets are brought together, numbered per user and never mixed between users."""

from __future__ import annotations

import polars as pl

from recsys.data.ordering import group_baskets


def test_baskets_are_numbered_per_user_in_order_of_their_first_event() -> None:
    frame = pl.DataFrame(
        {
            "user": [0, 0, 0, 0, 1, 1, 1],
            "basket_id": ["b", "a", "b", "c", "c", "c", "a"],
            "item": [1, 2, 3, 4, 5, 6, 7],
        }
    )
    grouped = group_baskets(frame)
    assert grouped["item"].to_list() == [1, 3, 2, 4, 5, 6, 7]
    assert grouped["basket_id"].to_list() == [0, 0, 1, 2, 0, 0, 1]
    assert grouped["user"].to_list() == [0, 0, 0, 0, 1, 1, 1]
