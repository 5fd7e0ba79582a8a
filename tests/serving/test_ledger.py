"""What clients tell is kept: once, in order, on the disk, whoever writes at the same time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from recsys.growth import NewItem
from serving.ledger import Happening, Ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "state")


def test_repeats_count_once(ledger: Ledger) -> None:
    first = Happening("u", "a", 5)
    assert ledger.append([first, Happening("u", "b", 5), first]) == 2
    assert ledger.append([first, Happening("v", "a", 5)]) == 1
    named = [Happening("u", "a", 5, event_id=name) for name in ("x", "y", "x")]
    assert ledger.append(named) == 2
    assert ledger.append([Happening("u", "z", 9, event_id="x")]) == 0
    found = ledger.events_of("u")
    assert [(event.item, event.time) for event in found] == [("a", 5), ("b", 5), ("a", 5), ("a", 5)]
    assert sorted({event.number for event in found}) == [event.number for event in found]


def test_many_writers_lose_and_double_nothing(tmp_path: Path) -> None:
    """Each event is sent by three clients at once, through two ledgers of one file."""
    ledgers = [Ledger(tmp_path) for _ in range(2)]
    events = [Happening(f"u{i % 7}", f"i{i}", i) for i in range(120)]
    with ThreadPoolExecutor(6) as pool:
        jobs = [(ledgers[n % 2], event) for event in events for n in range(3)]
        new = sum(pool.map(lambda job: job[0].append([job[1]]), jobs))
    assert new == len(events)
    found = [event for u in range(7) for event in ledgers[0].events_of(f"u{u}")]
    assert sorted(event.item for event in found) == sorted(event.item for event in events)
    assert len({event.number for event in found}) == len(events)


def test_a_portion_that_fails_is_not_written_in_part(ledger: Ledger) -> None:
    with pytest.raises(OverflowError):
        ledger.append([Happening("u", "a", 1), Happening("u", "b", 2**70)])
    assert ledger.events_of("u") == []


def test_it_knows_how_far_the_feature_store_is(ledger: Ledger) -> None:
    ledger.append([Happening(user, "a", n) for n, user in enumerate("uvuw")])
    assert ledger.not_pushed(3) == (3, ["u", "v"])
    ledger.pushed(3)
    ledger.pushed(1)
    assert ledger.not_pushed(3) == (4, ["w"])
    assert ledger.waiting() == 1
    ledger.pushed(4)
    assert ledger.not_pushed(3) == (0, [])


def test_all_of_it_survives(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.append([Happening("u", "a", 1, request="r1"), Happening("v", "b", 2)])
    added = NewItem("n", {"title": "T"}, ("a", "b"), (0.5, 0.25))
    ledger.add_item(added)
    ledger.remove_item("b")
    ledger.delete_user("v")
    ledger.close()
    again = Ledger(tmp_path)
    assert [rows for rows in again.export()] == [[("u", "a", 1, "r1")]]
    living = again.living()
    assert (living.version, living.added, living.removed) == (2, (added,), {"b"})
    assert again.is_deleted("v") and not again.is_deleted("u")


def test_numbers_go_on_after_a_deletion(ledger: Ledger) -> None:
    ledger.append([Happening("u", "a", 1)])
    ledger.delete_user("u")
    ledger.append([Happening("u", "a", 1)])
    [event] = ledger.events_of("u")
    assert event.number > 1


def test_an_item_that_comes_back_is_no_longer_removed(ledger: Ledger) -> None:
    ledger.add_item(NewItem("n", like=("a",)))
    ledger.remove_item("n")
    ledger.add_item(NewItem("n", like=("b",)))
    assert [item.like for item in ledger.living().added] == [("b",)]
    assert not ledger.living().removed
