"""The commands that make lists by a bundle: `recommend` and `continue`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.commands.console import (
    Beams,
    BundlePath,
    Groups,
    Times,
    open_console,
    split_ids,
    split_times,
)

if TYPE_CHECKING:
    from rich.console import Console

    from recsys.recommender import Recommendation, Recommender

Diversity = Annotated[
    float, typer.Option(help="In nats for diverse; from 0 to 1 for mmr and dpp.", min=0)
]
Candidates = Annotated[int, typer.Option(help="Items that compete at each place.", min=1)]


def recommend(
    bundle: BundlePath,
    history: Annotated[
        str | None, typer.Option(help="Item ids, oldest first, separated by commas.")
    ] = None,
    times: Times = None,
    user: Annotated[str | None, typer.Option(help="A user whose history is in the bundle.")] = None,
    previous: Annotated[
        list[str] | None,
        typer.Option(metavar="IDS", help="A list that came before; again for each, oldest first."),
    ] = None,
    k: Annotated[int, typer.Option("-k", help="Length of the list.", min=1)] = 10,
    exclude: Annotated[str, typer.Option(help="Item ids that are not wanted.")] = "",
    repeats: Annotated[
        bool | None,
        typer.Option(help="Allow items of the history; by default as the model was evaluated."),
    ] = None,
    repeat_window: Annotated[
        int | None,
        typer.Option(help="Leave out the items of the newest so many events only.", min=1),
    ] = None,
    strategy: Annotated[
        str, typer.Option(help="How the list is made: top, beam, diverse, mmr or dpp.")
    ] = "top",
    groups: Groups = 4,
    beams: Beams = 2,
    diversity: Diversity = 0.5,
    candidates: Candidates = 500,
    steps: Annotated[
        int | None,
        typer.Option(help="Items of the continuations that beam and diverse merge.", min=1),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not a table.")] = False,
    users: Annotated[
        str | None, typer.Option(help="`all`: the top list of every user, written to --output.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Parquet file of those; a directory with --workers.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Tasks on Ray that write them.", min=1)] = 1,
) -> None:
    """Print the list for one history or user, or write those of all users."""
    if users is not None:
        _recommend_all(bundle, users, output, k, workers)
        return
    if (history is None) == (user is None):
        raise typer.BadParameter("give either --history or --user")
    from recsys.bundle import load_bundle
    from recsys.published import find_bundle
    from recsys.recommender import Query, Recommender, SearchSettings

    recommender = Recommender(load_bundle(find_bundle(bundle)))
    query = Query(
        history=None if history is None else split_ids(history),
        times=split_times(times),
        user_id=user,
        previous=None if previous is None else [split_ids(one) for one in previous],
        k=k,
        exclude=split_ids(exclude),
        exclude_seen=None if repeats is None else not repeats,
        repeat_window=repeat_window,
        strategy=strategy,  # type: ignore[arg-type]  # checked where it is resolved
        settings=SearchSettings(groups, beams, diversity, candidates=candidates),
        steps=steps,
    )
    [answer] = recommender.recommend([query])
    if as_json:
        typer.echo(json.dumps(_as_mapping(recommender, answer), indent=2))
    else:
        _print_list(recommender, answer, open_console())


def _recommend_all(bundle: Path, users: str, output: Path | None, k: int, workers: int) -> None:
    if users != "all" or output is None:
        raise typer.BadParameter("for the lists of all users give --users all --output FILE")
    from pipelines.recommend import recommend_everybody
    from recsys.published import find_bundle

    count = recommend_everybody(find_bundle(bundle), output, k, workers)
    typer.echo(f"{count} users  {output}")


def continue_list(
    bundle: BundlePath,
    history: Annotated[
        str | None, typer.Option(help="Item ids, oldest first, separated by commas.")
    ] = None,
    times: Times = None,
    user: Annotated[str | None, typer.Option(help="A user whose history is in the bundle.")] = None,
    steps: Annotated[int, typer.Option(help="Items of each list.", min=1)] = 10,
    groups: Groups = 4,
    beams: Beams = 2,
    diversity: Diversity = 0.5,
    candidates: Candidates = 500,
    exclude: Annotated[str, typer.Option(help="Item ids that are not wanted.")] = "",
    required: Annotated[str, typer.Option(help="Item ids that every list must hold.")] = "",
    at_most: Annotated[
        list[str] | None,
        typer.Option(metavar="ATTRIBUTE=N", help="At most N items of one value, as artist=2."),
    ] = None,
) -> None:
    """Print several lists, as JSON, that may follow one history or user: the best of each group first."""
    if (history is None) == (user is None):
        raise typer.BadParameter("give either --history or --user")
    from dataclasses import asdict

    from recsys.bundle import load_bundle
    from recsys.published import find_bundle
    from recsys.recommender import Continue, Recommender, SearchSettings

    recommender = Recommender(load_bundle(find_bundle(bundle)))
    asked = Continue(
        history=None if history is None else split_ids(history),
        times=split_times(times),
        user_id=user,
        steps=steps,
        settings=SearchSettings(groups, beams, diversity, candidates=candidates),
        exclude=split_ids(exclude),
        required=split_ids(required),
        at_most=_limits(at_most or []),
    )
    [answer] = recommender.continue_lists([asked])
    version = {"name": recommender.bundle.name, "version": recommender.bundle.version}
    typer.echo(json.dumps({"model": version, **asdict(answer)}, indent=2))


def _limits(texts: list[str]) -> dict[str, int]:
    """Read `attribute=n` texts."""
    limits = {}
    for text in texts:
        name, _, number = text.partition("=")
        if not number.isdigit():
            raise typer.BadParameter(f"{text!r} is not of the form ATTRIBUTE=N, as artist=2")
        limits[name.strip()] = int(number)
    return limits


def _as_mapping(recommender: Recommender, answer: Recommendation) -> dict[str, Any]:
    return {
        "model": {"name": recommender.bundle.name, "version": recommender.bundle.version},
        "items": answer.rows(),
        "unknown": answer.unknown,
        "unknown_excluded": answer.unknown_excluded,
        "unknown_previous": answer.unknown_previous,
        "dropped_previous": answer.dropped_previous,
        "fallback": answer.fallback,
    }


def _print_list(recommender: Recommender, answer: Recommendation, console: Console) -> None:
    """Print the list as a table, with the item's title where the catalogue has one."""
    import polars as pl
    from rich.table import Table
    from rich.text import Text

    from recsys.schema import ITEM

    items = recommender.bundle.items
    titled = "title" in items.columns
    table = Table("#", "item", *(["title"] if titled else []), "score", box=None, pad_edge=False)
    found = items.filter(pl.col(ITEM).is_in(answer.items))
    titles = dict(found.select(ITEM, "title").iter_rows()) if titled else {}
    for rank, (item, score) in enumerate(zip(answer.items, answer.scores, strict=True), start=1):
        title = [str(titles.get(item) or "")] if titled else []
        cells = (str(rank), item, *title, f"{score:.4f}")
        table.add_row(*map(Text, cells))  # ids and titles may have brackets, which are no markup
    console.print(table)
    if answer.unknown:
        console.print(Text(f"not in the catalogue, left out: {', '.join(answer.unknown)}"))
    if answer.unknown_excluded:
        names = ", ".join(answer.unknown_excluded)
        console.print(Text(f"not in the catalogue, nothing there to exclude: {names}"))
    if answer.unknown_previous:
        names = ", ".join(answer.unknown_previous)
        console.print(Text(f"not in the catalogue, left out of the lists before: {names}"))
    if answer.dropped_previous:
        console.print(Text(f"lists before that the model does not read: {answer.dropped_previous}"))
    if answer.fallback:
        console.print(Text(f"default list of an empty history ({answer.fallback})"))
