"""The commands about playlists: `recsys playlists similar | songs | for-song`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.commands.console import BundlePath, open_console, split_ids

if TYPE_CHECKING:
    from recsys.recommender import FoundPlaylists, Recommender

playlists_app = typer.Typer(
    help="Published playlists: like a list, for a song, and songs for one.", no_args_is_help=True
)
Items = Annotated[
    str | None, typer.Option(help="Item ids in the list's order, separated by commas.")
]
Name = Annotated[str | None, typer.Option(help="A playlist that is in the bundle.")]
K = Annotated[int, typer.Option("-k", help="How many.", min=1)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, not a table.")]


@playlists_app.command()
def similar(
    bundle: BundlePath,
    items: Items = None,
    playlist: Name = None,
    k: K = 10,
    as_json: AsJson = False,
) -> None:
    """Print the published playlists most like a list."""
    from recsys.recommender import SimilarPlaylists

    recommender = _open(bundle)
    asked = SimilarPlaylists(None if items is None else split_ids(items), playlist, k)
    [found] = recommender.similar_playlists([asked])
    _show(found, as_json)


@playlists_app.command("for-song")
def for_song(
    bundle: BundlePath,
    item: Annotated[str, typer.Option(help="Item id of the song.")],
    holding: Annotated[
        str, typer.Option(help="Only playlists `without` the song, `with` it, or `any`.")
    ] = "without",
    k: K = 10,
    as_json: AsJson = False,
) -> None:
    """Print the published playlists that a song may go into."""
    from recsys.recommender import PlaylistsForSong

    recommender = _open(bundle)
    asked = PlaylistsForSong(item, holding, k)  # type: ignore[arg-type]  # checked there
    [found] = recommender.playlists_for_song([asked])
    _show(found, as_json)


@playlists_app.command()
def songs(
    bundle: BundlePath,
    items: Items = None,
    playlist: Name = None,
    k: K = 10,
    as_json: AsJson = False,
) -> None:
    """Print the songs that a list may go on with."""
    from recsys.recommender import Query

    if (items is None) == (playlist is None):
        raise typer.BadParameter("give either --items or --playlist")
    recommender = _open(bundle)
    if playlist is not None:
        recommender.playlists.check(playlist)
    history = None if items is None else split_ids(items)
    query = Query(history=history, user_id=playlist, k=k, exclude_seen=True)
    [found] = recommender.recommend([query])
    if as_json:
        typer.echo(json.dumps({**asdict(found), "items": found.rows()}, indent=2))
        return
    _table(("song", "score"), list(zip(found.items, found.scores, strict=True)))
    _notes(found.unknown, found.fallback)


def _open(bundle: Path) -> Recommender:
    from recsys.bundle import load_bundle
    from recsys.published import find_bundle
    from recsys.recommender import Recommender

    return Recommender(load_bundle(find_bundle(bundle)))


def _show(found: FoundPlaylists, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2))
        return
    marks = ["holds it" if held else "" for held in found.holds] or [""] * len(found.playlists)
    rows = list(zip(found.playlists, found.scores, marks, strict=True))
    _table(("playlist", "score", ""), rows)
    _notes(found.unknown, found.fallback)
    if found.repeated:
        typer.echo(f"{found.repeated} items stood in the list before and counted again")
    if found.dropped:
        typer.echo(f"the model read the newest items only and left out the oldest {found.dropped}")


def _table(head: tuple[str, ...], rows: Sequence[tuple[Any, ...]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("#", *head, box=None, pad_edge=False)
    for rank, row in enumerate(rows, 1):
        cells = [f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in row]
        table.add_row(*map(Text, (str(rank), *cells)))
    open_console().print(table)


def _notes(unknown: list[str], fallback: str | None) -> None:
    if unknown:
        typer.echo(f"not in the catalogue, left out: {', '.join(unknown)}")
    if fallback:
        typer.echo(f"nothing known was asked about ({fallback})")
