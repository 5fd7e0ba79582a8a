"""The whole experiment, and what it says of index, evaluation, publishing, Ray and tracking."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from recsys.config.data import DataConfig, GlobalTimeSplit, SplitConfig
from recsys.config.models import ModelConfig
from recsys.config.probes import ProbeConfig
from recsys.config.recformer import RecformerConfig
from recsys.config.section import NAME, Count, Section
from recsys.config.text import TextConfig
from recsys.config.tune import TuneConfig, check_tune
from recsys.config.unirec import UniRecConfig


def _without_repeats(values: list[Any]) -> list[Any]:
    repeated = sorted({value for value in values if values.count(value) > 1})
    if repeated:
        raise ValueError(f"each value once, but {', '.join(map(str, repeated))} is repeated")
    return values


Guard = Annotated[str, Field(pattern=r"^(hr|recall|ndcg|mrr|map|precision)@[1-9][0-9]*$")]
"""An accuracy metric with its cut-off, such as `ndcg@10`."""


def _anchored(model: ModelConfig) -> ModelConfig:
    if isinstance(model, RecformerConfig) and model.pretrained is not None:
        return model.model_copy(update={"pretrained": model.pretrained.absolute()})
    return model


class FeaturesConfig(Section):
    """What is computed of the training events beside what every model may need."""

    neighbours: Literal["auto", "on", "off"] = "auto"
    """Items consumed together with each item; `auto`: when a configured model needs them."""
    neighbour_window: int = Field(50, ge=2, le=10_000)
    """Newest training events of a user that make pairs."""
    neighbours_kept: int = Field(10, ge=1)
    """Neighbours of an item."""


class IndexConfig(Section):
    """How item vectors are searched."""

    kind: Literal["auto", "exact", "flat", "hnsw", "ivf_flat", "ivf_pq", "pq_scan"] = "auto"
    """`auto`: exact below `exact_below` items, HNSW above. `pq_scan` reads codes of all vectors, a
    sixteenth of their size (an eighth where the width is odd), and scores the best exactly: quickly
    built, fast for wide vectors."""
    exact_below: int = Field(200_000, ge=0)
    hnsw_links: int = Field(32, ge=2)
    ef_construction: int = Field(100, ge=1)
    ef_search: int = Field(256, ge=1)
    lists: int | None = Field(None, ge=1)
    """IVF cells; about 4 sqrt(items) by default."""
    probes: int | None = Field(None, ge=1)
    """IVF cells visited; an eighth of `lists` by default."""
    pq_bytes: int = Field(32, ge=1)
    scan_rerank: int = Field(16, ge=1)
    """Candidates that `pq_scan` scores exactly per wanted item; 320 at least."""
    shortlist: int = Field(500, ge=1)
    """Candidates that are scored again, where a model's score is more than one inner product."""
    gpu: Literal["auto", "on", "off"] = "auto"
    tradeoff: Literal["auto", "on", "off"] = "auto"
    """Build every kind and measure recall, latency and memory; `auto`: below `exact_below` items."""


class EvaluationConfig(Section):
    """What is measured, on which targets."""

    ks: Annotated[list[Count], Field(min_length=1), AfterValidator(_without_repeats)] = Field(
        default=[1, 5, 10, 20]
    )
    """Cut-offs of the metrics."""
    exclude: Literal["seen", "none"] | Count = "seen"
    """Never recommend seen items, or only those of the newest n events (a repeat window), or none."""
    repeats: Literal["drop", "miss"] = "drop"
    """Targets that the exclusion forbids: left out (and counted), or kept as misses."""
    list_length: int = Field(100, ge=1)
    """Length of the lists that are stored and used beyond accuracy."""
    bootstrap: int = Field(2000, ge=100)
    permutations: int = Field(10_000, ge=100)
    level: float = Field(0.95, gt=0, lt=1)
    head_share: float = Field(0.2, gt=0, lt=1)
    """The most popular share of items is `head`, the rest with training events `tail`."""
    among_cold: bool = False
    """Also rank the targets whose items have no training events among such items alone: the slice
    `item cold, among cold`."""
    baseline: str | None = None
    """Model that all others are tested against; by default all pairs."""
    splits: Annotated[
        list[Literal["validation", "test"]], Field(min_length=1), AfterValidator(_without_repeats)
    ] = ["test"]


class OrderTestConfig(Section):
    """Does the order of a history matter? See `recsys/evaluation/order_test.py`."""

    model: str | None = None
    """Whose; by default the first learned model, else the first that reads an order."""
    split: Literal["validation", "test"] = "test"
    shuffles: int = Field(5, ge=1)
    """Shuffles of every way, averaged."""
    k: int = Field(10, ge=1)
    """Cut-off of the metrics and of the lists that are compared."""
    margin: float = Field(0.05, gt=0, lt=1)
    """What a drop must come up to to matter, as a share of the metric with true histories."""
    targets: int | None = Field(20_000, ge=1)
    """A seeded sample of so many; `null` takes all."""


class PlaylistsConfig(Section):
    """The users' lists, to be found by songs and by one another; of learned models."""

    enabled: bool = False
    """Their vectors and names travel in the bundle."""
    min_songs: int = Field(2, ge=1)
    """Shorter lists are left out."""
    index: IndexConfig = IndexConfig(exact_below=20_000)
    """How they are searched."""


class PublishConfig(Section):
    """What leaves the house."""

    model: str | None = None
    """Model to publish; by default the best on validation NDCG@10."""
    recent_events: int = Field(100, ge=0)
    """Newest events of every user that travel in the bundle."""
    playlists: PlaylistsConfig = PlaylistsConfig()
    alias: str = "candidate"
    """MLflow registry alias given to the new version."""
    guards: Annotated[list[Guard], Field(min_length=1), AfterValidator(_without_repeats)] = [
        "ndcg@10",
        "hr@10",
    ]
    """Metrics in which a candidate must not be worse than the champion to be promoted."""
    guard_margin: float = Field(0.02, ge=0, lt=1)
    """What still counts as not worse, as a share of the champion's value."""
    guard_level: float = Field(0.95, gt=0.5, lt=1)
    """How sure that must be: one-sided, by the paired differences over users."""


class FeastConfig(Section):
    """The feature store that `publish` fills and the endpoint reads."""

    enabled: bool = False
    online: Literal["sqlite", "redis"] = "sqlite"
    """Where rows are read online: a file below the output directory, or a Redis server."""
    redis: str = "127.0.0.1:6379"
    """`host:port` of it; options as `db=1` or `ssl=true` follow after commas."""


class RayConfig(Section):
    """Where the stages run."""

    address: str | None = None
    """A cluster; a local Ray in this machine by default."""
    workers: Count | Literal["auto"] = "auto"
    """Parallel tasks of prepare and features."""
    partitions: Count | Literal["auto"] = "auto"
    """User partitions; `auto` aims at two million events each."""
    train_workers: int = Field(1, ge=1)
    """Data-parallel training processes."""
    object_store_mb: int = Field(200, ge=80)


class TrackingConfig(Section):
    """Where runs are recorded."""

    enabled: bool = True
    uri: str | None = None
    """MLflow tracking address; an SQLite file in the output directory by default."""
    experiment: str | None = None
    """MLflow experiment; the configuration's name by default."""


class ExperimentConfig(Section):
    """One experiment: a data set, a split, the models compared on it."""

    name: str = Field(pattern=NAME)
    seed: int = Field(0, ge=0)
    data_seed: int | None = Field(None, ge=0)
    """Of what preparing draws (the order of ties, drawn splits, hidden items); `seed` by default. With one
    of its own, trainings by several seeds have the same data and the same targets."""
    output: Path = Path("out")
    """Everything is written below `output/name`."""
    data: DataConfig
    split: SplitConfig = GlobalTimeSplit()
    models: dict[Annotated[str, Field(pattern=NAME)], ModelConfig] = Field(min_length=1)
    """Any names, of the same letters as `name`; every model is evaluated on the same targets."""
    refit: bool = False
    """Fit every model again on training and validation events, with the settings and the epoch that
    validation chose: that model is tested, indexed and published."""
    warm_start: Path | None = None
    """A bundle from whose model the training of the same kind goes on. Items are known by their ids: those
    that left are gone, new ones begin where the items around them, or of like texts, stand. Settings but
    those of training and dropout must be the bundle's; set fewer epochs for an update."""
    features: FeaturesConfig = FeaturesConfig()
    text: TextConfig = TextConfig()
    """The items' sentences, made where a model reads texts."""
    index: IndexConfig = IndexConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    order_test: OrderTestConfig | None = None
    """With this section (`{}` is enough) the report tests whether order matters here."""
    publish: PublishConfig = PublishConfig()
    feast: FeastConfig = FeastConfig()
    tune: TuneConfig | None = None
    """What `recsys tune` searches; no other command reads it."""
    probe: ProbeConfig = ProbeConfig()
    """What `recsys probe` asks of the learned models' vectors of lists; no other command reads it."""
    ray: RayConfig = RayConfig()
    tracking: TrackingConfig = TrackingConfig()

    @property
    def drawn_by(self) -> int:
        """The seed of what preparing draws."""
        return self.seed if self.data_seed is None else self.data_seed

    @property
    def workspace(self) -> Path:
        """Directory of this experiment's stages, absolute."""
        return (self.output / self.name).absolute()

    def anchored(self) -> ExperimentConfig:
        """Return the same with absolute paths to what it makes and goes on from: a process of Ray runs in
        a directory of its own.
        """
        warm = None if self.warm_start is None else self.warm_start.absolute()
        models = {name: _anchored(model) for name, model in self.models.items()}
        return self.model_copy(
            update={"output": self.output.absolute(), "warm_start": warm, "models": models}
        )

    @model_validator(mode="after")
    def _fits_together(self) -> ExperimentConfig:
        problems = []
        absolute = self.split.kind in ("global_time", "rolling")
        if absolute and self.data.clock != "absolute" and self.data.preset is None:
            problems.append(
                f"split.kind: {self.split.kind} compares times between users, but data.clock is "
                f"{self.data.clock}; use leave_one_out, last_n or continuation"
            )
        if self.tune is not None:
            problems += check_tune(self.tune, self.models)
        if self.features.neighbours == "off":
            problems += [
                f"features.neighbours: is off, but models.{name} needs neighbours; leave it at auto"
                for name, model in self.models.items()
                if getattr(model, "needs_neighbours", False)
            ]
        made = self.features.neighbours_kept
        for name, model in self.models.items():
            if not isinstance(model, UniRecConfig):
                continue
            problems += [f"models.{name}.{problem}" for problem in model.without_effect()]
            if model.needs_neighbours and model.kept_neighbours > made:
                problems.append(
                    f"models.{name}.kept_neighbours: is {model.kept_neighbours}, but "
                    f"features.neighbours_kept makes {made} for each item; raise that, or keep fewer"
                )
        chosen = {
            "evaluation.baseline": self.evaluation.baseline,
            "publish.model": self.publish.model,
            "order_test.model": None if self.order_test is None else self.order_test.model,
        }
        problems += [
            f"{place}: {name!r} is no model of this configuration; it has {', '.join(self.models)}"
            for place, name in chosen.items()
            if name is not None and name not in self.models
        ]
        if problems:
            raise ValueError("\n".join(problems))
        return self
