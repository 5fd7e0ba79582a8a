"""The commands that ask what models are worth: `compare`, `study`, `probe`, `frontier`, `order-test`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.commands.console import (
    Beams,
    Config,
    Groups,
    Overrides,
    load,
    open_console,
    split_ids,
)

if TYPE_CHECKING:
    from recsys.schema import SplitName


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
    console = open_console()
    console.width = max(console.width, 160)
    print_comparison(
        output, runs, "validation" if split == "validation" else "test", metric, console
    )


def study(
    config: Annotated[Path, typer.Argument(help="YAML file of the study, see configs/.")],
    overrides: Overrides = None,
    sets: Annotated[str, typer.Option(help="Only these, separated by commas.")] = "",
    models: Annotated[str, typer.Option(help="Only these, separated by commas.")] = "",
    seeds: Annotated[str, typer.Option(help="Only these, separated by commas.")] = "",
    hours: Annotated[float | None, typer.Option(help="Begin nothing after so many.")] = None,
) -> None:
    """Train and compare models over several data sets and seeds; goes on where it was stopped.

    Models of a set that have equal settings are trained once.
    """
    from pipelines.study import run_study
    from pipelines.study_summary import PAGE, SUMMARY, study_tables
    from recsys.config import load_study_config

    if not all(seed.isdecimal() for seed in split_ids(seeds)):
        raise typer.BadParameter(f"--seeds is {seeds!r}; it is like 0,1,2")
    console = open_console()
    chosen = load_study_config(config, overrides or [])
    directory = run_study(
        chosen,
        console,
        sets=split_ids(sets),
        models=split_ids(models),
        seeds=[int(seed) for seed in split_ids(seeds)],
        hours=hours,
    )
    summary = json.loads((directory / SUMMARY).read_text(encoding="utf-8"))
    console.width = max(console.width, 120)
    for table in study_tables(summary):
        console.print(table)
    if left := summary["cells_left"]:
        console.print(
            f"{left} cells have no figures that count; without --sets, --models and --seeds the study goes on"
            if sets or models or seeds
            else f"{left} cells have no figures that count; the same command goes on"
        )
    console.print(f"page  {directory / PAGE}", highlight=False, markup=False, soft_wrap=True)


def probe(config: Config, overrides: Overrides = None) -> None:
    """Ask the trained models' vectors of lists what they know: labels, length, songs, order."""
    from pipelines.probe import RESULT, probe_table
    from pipelines.probe import probe as ask

    console = open_console()
    directory = ask(load(config, overrides), console)
    result = json.loads((directory / RESULT).read_text(encoding="utf-8"))
    console.width = max(console.width, 200)
    console.print(probe_table(result))
    left = ", ".join(f"{count} {why}" for why, count in result["left_out"].items() if count)
    console.print(f"{result['lists']} lists; left out: {left or 'none'}", highlight=False)
    if result["labels_without_classes"]:
        names = ", ".join(result["labels_without_classes"])
        console.print(f"too few lists of two classes for: {names}", highlight=False)
    console.print(f"figures  {directory / RESULT}", highlight=False, markup=False, soft_wrap=True)


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
    console = open_console()
    directory = measure(load(config, overrides), settings, console)
    result = json.loads((directory / RESULT).read_text(encoding="utf-8"))
    console.width = max(console.width, 180)
    for line in shown_lines(result):
        console.print(line, highlight=False, markup=False)
    console.print(frontier_table(result))
    console.print(f"page  {directory / PAGE}", highlight=False, markup=False, soft_wrap=True)


def order_test(config: Config, overrides: Overrides = None) -> None:
    """Say whether the order of histories matters here: a trained model on true and shuffled ones."""
    from pipelines.order_test import PAGE, order_table, read_result, shown_lines
    from pipelines.stages import run_order_test

    console = open_console()
    directory = run_order_test(load(config, overrides), console)
    result = read_result(directory)
    console.width = max(console.width, 160)
    for line in shown_lines(result):
        console.print(line, highlight=False, markup=False)
    console.print(order_table(result))
    console.print(f"page  {directory / PAGE}", highlight=False, markup=False, soft_wrap=True)
