"""The `recsys` command. Nothing heavy is imported before a command needs it, so `--help` is instant.

A `RecsysError` ends a command with its message on stderr and exit code 2, without a trace. Relative
paths, those inside configurations included, start at the current directory.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.console import Config, Overrides
from pipelines.console import load as _load
from pipelines.console import open_console as _console
from pipelines.environment import set_environment
from pipelines.playlists import playlists_app, probe
from pipelines.serve import dashboard, export_events, keys_app, serve
from recsys.errors import RecsysError

if TYPE_CHECKING:
    from rich.console import Console

    from pipelines.rolling import Histories
    from recsys.recommender import Recommendation, Recommender
    from recsys.schema import SplitName

app = typer.Typer(
    help="Sequential and playlist recommendation, from raw event logs to a live endpoint.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Public data sets that have a preset.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(keys_app, name="keys")
app.add_typer(playlists_app, name="playlists")

BundlePath = Annotated[
    Path, typer.Argument(metavar="BUNDLE", help="A bundle, or a directory of bundles.")
]
Groups = Annotated[int, typer.Option(help="Groups that avoid one another's items.", min=1)]
Beams = Annotated[int, typer.Option(help="Lists of each group.", min=1)]
Diversity = Annotated[
    float, typer.Option(help="In nats for diverse; from 0 to 1 for mmr and dpp.", min=0)
]
Candidates = Annotated[int, typer.Option(help="Items that compete at each place.", min=1)]


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; the arguments are the process's own by default."""
    set_environment()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        app(args=arguments)
    except RecsysError as error:
        # Ray wraps a task's error and writes its trace into the message; `cause` is the original.
        typer.echo(f"error: {getattr(error, 'cause', error)}", err=True)
        sys.exit(2)


@app.command()
def run(config: Config, overrides: Overrides = None) -> None:
    """Run every stage that is not up to date; end with a table of the models and the bundle."""
    from pipelines.stages import run_experiment

    run_experiment(_load(config, overrides), _console())


@app.command()
def prepare(config: Config, overrides: Overrides = None) -> None:
    """Read and check the raw files; write events, vocabularies and splits."""
    _run_stage("prepare", config, overrides)


@app.command()
def features(config: Config, overrides: Overrides = None) -> None:
    """Write packed sequences and the statistics of the training events."""
    _run_stage("features", config, overrides)


@app.command()
def train(config: Config, overrides: Overrides = None) -> None:
    """Fit every model; an interrupted training goes on where it was."""
    _run_stage("train", config, overrides)


@app.command()
def index(config: Config, overrides: Overrides = None) -> None:
    """Build the search index of every learned model and measure its recall."""
    _run_stage("index", config, overrides)


@app.command()
def evaluate(config: Config, overrides: Overrides = None) -> None:
    """Rank the full catalogue for every target of every model; write the report."""
    _run_stage("evaluate", config, overrides)


@app.command()
def publish(config: Config, overrides: Overrides = None) -> None:
    """Write the best model's bundle and register it."""
    _run_stage("publish", config, overrides)


@app.command()
def tune(config: Config, overrides: Overrides = None) -> None:
    """Search settings on validation, by the same budget for every model of the section `tune`."""
    from pipelines.stages import run_tune

    run_tune(_load(config, overrides), _console())


@app.command()
def rolling(
    config: Config,
    overrides: Overrides = None,
    model: Annotated[str | None, typer.Option(help="By default the first learned one.")] = None,
    epochs: Annotated[int, typer.Option(help="Of a daily update.", min=1)] = 2,
    histories: Annotated[
        str, typer.Option(help="That an update learns from: grown (since the day before) or all.")
    ] = "grown",
    lr: Annotated[float | None, typer.Option(help="Of an update; else the model's own.")] = None,
) -> None:
    """Compare daily updates of a model with a stale one and with training anew, over a rolling split."""
    if histories not in ("grown", "all"):
        raise typer.BadParameter(f"--histories is {histories!r}; it is grown or all")
    from pipelines.rolling import RollingSettings
    from pipelines.stages import run_rolling

    which: Histories = "grown" if histories == "grown" else "all"
    run_rolling(_load(config, overrides), RollingSettings(model, epochs, which, lr), _console())


@app.command()
def pretrain(config: Config, overrides: Overrides = None) -> None:
    """Pre-train a text encoder over several data sets, for models of kind recformer."""
    from pipelines.pretrain import pretrain as pretrain_encoder
    from pipelines.summary import shown
    from recsys.config import load_pretrain_config

    console = _console()
    directory = pretrain_encoder(load_pretrain_config(config, overrides or []), console)
    console.print(f"pre-trained  {shown(directory)}", highlight=False, markup=False)


@app.command()
def promote(config: Config, overrides: Overrides = None) -> None:
    """Make the candidate the champion if it is not worse on the guard metrics; exit code 1 if refused."""
    from pipelines.promote import promote as promote_candidate
    from pipelines.summary import print_promotion

    outcome = promote_candidate(_load(config, overrides))
    print_promotion(outcome, _console())
    if not outcome.promoted and outcome.guards:
        raise typer.Exit(1)


@app.command()
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN RUN...", help="Run directories, or report/model; two to six."),
    ],
    output: Annotated[Path, typer.Option(help="The directory of the experiments.")] = Path("out"),
    split: Annotated[str, typer.Option(help="test or validation.")] = "test",
    metric: Annotated[str, typer.Option(help="Metric of the differences.")] = "ndcg@10",
) -> None:
    """Print runs side by side: figures with intervals, paired differences, users won and lost."""
    from pipelines.comparison import print_comparison

    if split not in ("test", "validation"):
        raise typer.BadParameter("--split is test or validation")
    console = _console()
    console.width = max(console.width, 160)
    print_comparison(
        output, runs, "validation" if split == "validation" else "test", metric, console
    )


app.command()(probe)
app.command()(serve)
app.command()(dashboard)
app.command("events")(export_events)


@app.command()
def recommend(
    bundle: BundlePath,
    history: Annotated[
        str | None, typer.Option(help="Item ids, oldest first, separated by commas.")
    ] = None,
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
        history=None if history is None else _ids(history),
        user_id=user,
        previous=None if previous is None else [_ids(one) for one in previous],
        k=k,
        exclude=_ids(exclude),
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
        _print_list(recommender, answer, _console())


def _recommend_all(bundle: Path, users: str, output: Path | None, k: int, workers: int) -> None:
    if users != "all" or output is None:
        raise typer.BadParameter("for the lists of all users give --users all --output FILE")
    from pipelines.recommend import recommend_everybody
    from recsys.published import find_bundle

    count = recommend_everybody(find_bundle(bundle), output, k, workers)
    typer.echo(f"{count} users  {output}")


@app.command("continue")
def continue_list(
    bundle: BundlePath,
    history: Annotated[
        str | None, typer.Option(help="Item ids, oldest first, separated by commas.")
    ] = None,
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
        history=None if history is None else _ids(history),
        user_id=user,
        steps=steps,
        settings=SearchSettings(groups, beams, diversity, candidates=candidates),
        exclude=_ids(exclude),
        required=_ids(required),
        at_most=_limits(at_most or []),
    )
    [answer] = recommender.continue_lists([asked])
    version = {"name": recommender.bundle.name, "version": recommender.bundle.version}
    typer.echo(json.dumps({"model": version, **asdict(answer)}, indent=2))


@app.command()
def frontier(
    config: Config,
    overrides: Overrides = None,
    model: Annotated[str | None, typer.Option(help="By default the first learned one.")] = None,
    split: Annotated[str, typer.Option(help="Whose targets: test or validation.")] = "test",
    targets: Annotated[int, typer.Option(help="How many targets, drawn by the seed.", min=1)] = 500,
    groups: Groups = 10,
    beams: Beams = 2,
    steps: Annotated[int, typer.Option(help="Items of each list.", min=1)] = 10,
    k: Annotated[int, typer.Option("-k", help="Length of the merged list.", min=1)] = 10,
) -> None:
    """Compare ways of making lists on a trained model: accuracy against diversity, with intervals."""
    if split not in ("test", "validation"):
        raise typer.BadParameter(f"split is {split!r}; it is test or validation")
    from pipelines.frontier import (
        PAGE,
        RESULT,
        FrontierSettings,
        frontier_table,
        shown_lines,
    )
    from pipelines.frontier import frontier as measure

    chosen: SplitName = "test" if split == "test" else "validation"
    settings = FrontierSettings(model, chosen, targets, groups, beams, steps, k)
    console = _console()
    directory = measure(_load(config, overrides), settings, console)
    result = json.loads((directory / RESULT).read_text(encoding="utf-8"))
    console.width = max(console.width, 180)
    for line in shown_lines(result):
        console.print(line, highlight=False, markup=False)
    console.print(frontier_table(result))
    console.print(f"page  {directory / PAGE}", highlight=False, markup=False, soft_wrap=True)


@app.command("order-test")
def order_test(config: Config, overrides: Overrides = None) -> None:
    """Say whether the order of histories matters here: a trained model on true and shuffled ones."""
    from pipelines.order_test import PAGE, order_table, read_result, shown_lines
    from pipelines.stages import run_order_test

    console = _console()
    directory = run_order_test(_load(config, overrides), console)
    result = read_result(directory)
    console.width = max(console.width, 160)
    for line in shown_lines(result):
        console.print(line, highlight=False, markup=False)
    console.print(order_table(result))
    console.print(f"page  {directory / PAGE}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def describe(
    data: Annotated[list[str], typer.Argument(help="Parquet, CSV, TSV or JSON Lines; globs too.")],
) -> None:
    """Say what is in data files: columns, counts, time span, problems."""
    from recsys.data.describe import describe as describe_files

    _console().print(describe_files(data).render())


@app.command()
def doctor(
    output: Annotated[Path, typer.Option(help="Where results will be written.")] = Path("out"),
) -> None:
    """Look at versions, cores, devices, memory and disk; say what is missing and how to get it."""
    from pipelines.doctor import examine, exit_code, render

    findings = examine(output)
    render(findings, _console())
    raise typer.Exit(exit_code(findings))


@data_app.command("list")
def list_data() -> None:
    """List the presets and how each gets its files."""
    from rich.table import Table
    from rich.text import Text

    from recsys.data.catalogue import PRESETS

    table = Table("preset", "what", "how to get it", box=None, pad_edge=False)
    for preset in PRESETS.values():
        fetched = f"recsys data get {preset.name}" if preset.sources else preset.where
        table.add_row(*map(Text, (preset.name, preset.about, fetched)))
    _console().print(table)


@data_app.command("get")
def get_data(name: Annotated[str, typer.Argument(help="A name of `recsys data list`.")]) -> None:
    """Get a data set, checksum verified, and print where it lies."""
    from recsys.data.download import get

    typer.echo(get(name))


def _run_stage(stage: str, config: Path, overrides: list[str] | None) -> None:
    from pipelines.stages import run_stage

    run_stage(_load(config, overrides), stage, _console())


def _ids(text: str) -> list[str]:
    """Split `a,b,c`; an empty text is an empty list."""
    return [part.strip() for part in text.split(",") if part.strip()]


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


if __name__ == "__main__":
    main()
