"""The configuration of an experiment: what a YAML file may say, checked where it enters.

Every section is a frozen model; an unknown key is an error that names the nearest valid one, and
`key=value` overrides any field before validation.
"""

from __future__ import annotations

import datetime
import difflib
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from recsys.errors import ConfigError
from recsys.schema import Clock, Kind, TargetKind


class Section(BaseModel):
    """A part of the configuration: immutable, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def _text_of_date(value: Any) -> Any:
    """Turn the dates and times that YAML makes of unquoted ones back into ISO text."""
    return value.isoformat() if isinstance(value, datetime.date) else value


Moment = Annotated[str | float | None, BeforeValidator(_text_of_date)]
"""A point in time: ISO text, or a number in the file's own unit."""

OnProblem = Literal["drop", "fail", "keep"]


class ProblemRules(Section):
    """What to do with events that break a rule; every case is counted and the first rows shown."""

    null_ids: Literal["drop", "fail"] = "fail"
    """Events without a user or an item."""
    bad_times: Literal["drop", "fail"] = "fail"
    """Times that are missing, do not parse or lie in the future."""
    duplicates: OnProblem = "keep"
    """Events equal to an earlier one in user, item and time."""
    unknown_items: OnProblem = "keep"
    """Events whose item has no record in the item file (only where there is one)."""
    bad_encoding: Literal["drop", "fail"] = "fail"
    """Text lines that are not UTF-8."""
    duplicate_items: Literal["drop", "fail"] = "fail"
    """Item records with the same id as an earlier one (`drop` keeps the first)."""


class FilterConfig(Section):
    """Which events stay. Applied in this order: time window, weight, k-core."""

    start: Moment = None
    """Earliest time kept (ISO date or the file's own unit)."""
    end: Moment = None
    """First time not kept."""
    min_weight: float | None = None
    """Events of smaller weight are dropped."""
    event_types: list[str] | None = None
    """Only these event types are kept."""
    min_user_events: int = Field(1, ge=1)
    """Users (lists) with fewer distinct items are dropped; repeated with the item rule until stable."""
    min_item_events: int = Field(1, ge=1)
    """Items with fewer distinct users are dropped; repeated with the user rule until stable."""


class DataConfig(Section):
    """Where the raw data are and what they mean."""

    preset: str | None = None
    """A known format (`recsys data list`); it fills the fields below, which may still be overridden."""
    events: list[str] = []
    """Event files: paths or globs, Parquet, CSV, TSV or JSON Lines, also .gz."""
    items: list[str] = []
    """Item files; optional."""
    columns: dict[str, str] = {}
    """Our name -> the file's name, for events: user_id, item_id, timestamp, position, basket_id, ..."""
    item_columns: dict[str, str] = {}
    """Our name -> the file's name, for items."""
    attributes: list[str] | None = None
    """Item attributes to keep, in order; all by default."""
    kind: Kind = "users"
    clock: Clock = "absolute"
    target: TargetKind = "next_event"
    time_unit: Literal["s", "ms", "us", "ns", "text"] = "s"
    """Unit of numeric times; `text` parses ISO dates or `time_format`."""
    time_format: str | None = None
    """strptime pattern of text times."""
    basket_minutes: float | None = Field(None, gt=0)
    """Without a basket_id column: events of a user within this many minutes' slot share a basket."""
    ties: Literal["input", "shuffle"] = "input"
    """Order of events of one user at one time: as in the input, or shuffled with the seed."""
    on_problem: ProblemRules = ProblemRules()
    filters: FilterConfig = FilterConfig()


class GlobalTimeSplit(Section):
    """Cut all users at the same moments; the honest default where the clock is absolute."""

    kind: Literal["global_time"] = "global_time"
    test: float = Field(0.1, gt=0, lt=1)
    """Share of events (of lists, by their first event, where `kind: lists`) after the test cut."""
    validation: float = Field(0.1, gt=0, lt=1)
    """Share of the remaining events after the validation cut."""
    test_from: Moment = None
    """The test cut as a time, instead of a share."""
    validation_from: Moment = None


class LeaveOneOutSplit(Section):
    """Each user's last target tests, the one before validates. Leaks across users' futures."""

    kind: Literal["leave_one_out"] = "leave_one_out"


class LastNSplit(Section):
    """Each user's last n targets test, the n before validate."""

    kind: Literal["last_n"] = "last_n"
    n: int = Field(1, ge=1)


class RollingSplit(Section):
    """Several global-time folds: train before, test the window after, move on."""

    kind: Literal["rolling"] = "rolling"
    folds: int = Field(3, ge=1)
    window: float = Field(0.05, gt=0, lt=1)
    """Share of events in one window; the last fold ends with the data."""


class ContinuationSplit(Section):
    """Hide a part of some lists; the rest of the list is what must be found."""

    kind: Literal["continuation"] = "continuation"
    test: float = Field(0.1, gt=0, lt=1)
    """Share of lists that test (the newest where there is a clock, else a seeded choice)."""
    validation: float = Field(0.1, gt=0, lt=1)
    """Share of the remaining lists that validate."""
    hide: Literal["last", "random"] = "last"
    hidden: float = Field(0.5, gt=0, lt=1)
    """Share of each such list that is hidden, at least one item, leaving at least one."""


SplitConfig = Annotated[
    GlobalTimeSplit | LeaveOneOutSplit | LastNSplit | RollingSplit | ContinuationSplit,
    Field(discriminator="kind"),
]


class PopularityConfig(Section):
    """The most popular training items."""

    kind: Literal["pop"] = "pop"


class OwnPopularityConfig(Section):
    """What this user (list) repeats most, filled up with popularity."""

    kind: Literal["own_pop"] = "own_pop"


class MarkovConfig(Section):
    """Weighted item-to-next-item transition counts, filled up with popularity."""

    kind: Literal["markov"] = "markov"
    history: int = Field(10, ge=1)
    """How many of the newest events vote, each weighted 1/distance."""
    half_life: float | None = Field(None, gt=0)
    """Transitions lose half their count in this many users/lists (in order of their last event)."""
    reach: int = Field(1, ge=1)
    """Training events up to this far apart count as a transition, each 1/distance."""


class ItemKNNConfig(Section):
    """Cosine item-to-item neighbours over users, weighted by the age of the history event."""

    kind: Literal["item_knn"] = "item_knn"
    neighbours: int = Field(100, ge=1)
    history: int = Field(50, ge=1)
    shrinkage: float = Field(10.0, ge=0)
    decay: float = Field(1.0, gt=0, le=1)
    """Weight of each step into the past."""


class LossConfig(Section):
    """Which training loss and how its negatives are drawn."""

    kind: Literal["auto", "softmax", "sampled_softmax", "gbce", "bce", "bpr"] = "auto"
    """`auto`: full softmax while its largest block fits `memory_mb`, sampled softmax beyond."""
    negatives: int = Field(256, ge=1)
    sampler: Literal["uniform", "popularity", "in_batch"] = "uniform"
    alpha: float = Field(0.75, ge=0)
    """Exponent of popularity sampling."""
    share: Literal["token", "batch"] = "token"
    """Negatives drawn for every token, or once for the whole batch."""
    logq: bool = True
    """Correct sampled softmax for the sampling probability."""
    gbce_t: float = Field(0.75, ge=0, le=1)
    temperature: float = Field(1.0, gt=0)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    memory_mb: float = Field(256.0, gt=0)
    """Largest block of logits held at once."""


class TrainingConfig(Section):
    """How a learned model is fitted."""

    epochs: int = Field(30, ge=1)
    batch_size: int = Field(128, ge=1)
    """Sequences per step and process."""
    windows: Literal["last", "all"] = "all"
    objective: Literal["next_event", "next_basket"] = "next_event"
    repeats: Literal["keep", "mask"] = "keep"
    """`mask` does not train on targets the user has had before; right where seen items are excluded."""
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    betas: tuple[float, float] = (0.9, 0.98)
    warmup_steps: int = Field(100, ge=0)
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    clip: float | None = Field(5.0, gt=0)
    """Gradient norm limit."""
    ema: float | None = Field(None, gt=0, lt=1)
    """Decay of an exponential moving average of the weights, used for validation and kept."""
    patience: int = Field(5, ge=1)
    """Validations without a better NDCG@10 before training stops."""
    validate_every: int = Field(1, ge=1)
    """Epochs between validations."""
    validation_targets: int | None = Field(None, ge=1)
    """Validate on a seeded sample of this many targets; all by default."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    compile: Literal["auto", "on", "off"] = "auto"
    loss: LossConfig = LossConfig()


class SASRecConfig(Section):
    """Causal self-attention over the event sequence with a tied item table."""

    kind: Literal["sasrec"] = "sasrec"
    width: int = Field(64, ge=1)
    """Model width and item-vector size (D)."""
    blocks: int = Field(2, ge=1)
    heads: int = Field(2, ge=1)
    max_length: int = Field(50, ge=1)
    block: Literal["prenorm", "ligr"] = "ligr"
    ffn: float = Field(4.0, gt=0)
    """Feed-forward width as a multiple of `width`."""
    dropout: float = Field(0.2, ge=0, lt=1)
    positions: Literal["learned", "none"] = "learned"
    normalise: bool = False
    """Unit-length sequence and item vectors (cosine scores)."""
    baskets: Literal["ordered", "set"] = "ordered"
    """`set`: events of one basket share a position and see one another; needs objective next_basket."""
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> SASRecConfig:
        if self.width % self.heads:
            raise ValueError(f"width ({self.width}) must be a multiple of heads ({self.heads})")
        if self.baskets == "set" and self.training.objective != "next_basket":
            raise ValueError(
                "baskets: set lets an event see its whole basket, so training.objective must be "
                f"next_basket (it is {self.training.objective})"
            )
        return self


ModelConfig = Annotated[
    PopularityConfig | OwnPopularityConfig | MarkovConfig | ItemKNNConfig | SASRecConfig,
    Field(discriminator="kind"),
]


class IndexConfig(Section):
    """How item vectors are searched."""

    kind: Literal["auto", "exact", "flat", "hnsw", "ivf_flat", "ivf_pq"] = "auto"
    """`auto`: exact below `exact_below` items, HNSW above."""
    exact_below: int = Field(200_000, ge=0)
    hnsw_links: int = Field(32, ge=2)
    ef_construction: int = Field(100, ge=1)
    ef_search: int = Field(256, ge=1)
    lists: int | None = Field(None, ge=1)
    """IVF cells; about 4 sqrt(items) by default."""
    probes: int | None = Field(None, ge=1)
    """IVF cells visited; an eighth of `lists` by default."""
    pq_bytes: int = Field(32, ge=1)
    gpu: Literal["auto", "on", "off"] = "auto"


class EvaluationConfig(Section):
    """What is measured, on which targets."""

    ks: list[int] = [1, 5, 10, 20]
    exclude: Literal["seen", "none"] | int = "seen"
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
    baseline: str | None = None
    """Model that all others are tested against; by default all pairs."""
    splits: list[Literal["validation", "test"]] = ["test"]


class PublishConfig(Section):
    """What leaves the house."""

    model: str | None = None
    """Model to publish; by default the best on validation NDCG@10."""
    recent_events: int = Field(100, ge=0)
    """Newest events of every user that travel in the bundle."""
    alias: str = "candidate"
    """MLflow registry alias given to the new version."""


class RayConfig(Section):
    """Where the stages run."""

    address: str | None = None
    """A cluster; a local Ray in this machine by default."""
    workers: int | Literal["auto"] = "auto"
    """Parallel tasks of prepare and features."""
    partitions: int | Literal["auto"] = "auto"
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

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    seed: int = Field(0, ge=0)
    output: Path = Path("out")
    """Everything is written below `output/name`."""
    data: DataConfig
    split: SplitConfig = GlobalTimeSplit()
    models: dict[str, ModelConfig] = Field(min_length=1)
    index: IndexConfig = IndexConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    publish: PublishConfig = PublishConfig()
    ray: RayConfig = RayConfig()
    tracking: TrackingConfig = TrackingConfig()

    @property
    def workspace(self) -> Path:
        """Directory of this experiment's stages, absolute."""
        return (self.output / self.name).absolute()

    @model_validator(mode="after")
    def _fits_together(self) -> ExperimentConfig:
        absolute = self.split.kind in ("global_time", "rolling")
        if absolute and self.data.clock != "absolute" and self.data.preset is None:
            raise ValueError(
                f"split {self.split.kind} compares times between users, but data.clock is "
                f"{self.data.clock}; use leave_one_out, last_n or continuation"
            )
        return self


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # yaml has no stubs
    """Safe YAML in which `2024-01-01` stays the text it is written as, as our times want it."""

    yaml_implicit_resolvers: typing.ClassVar[dict[str, Any]] = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def load_config(path: Path, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """Return the validated experiment of a YAML file, with `key.sub=value` overrides applied."""
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; configurations live in configs/")
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} must hold a mapping of sections, found {type(raw).__name__}")
    for override in overrides:
        _apply_override(raw, override)
    return parse_config(raw, str(path))


def parse_config(raw: dict[str, Any], source: str = "configuration") -> ExperimentConfig:
    """Validate a plain mapping; `ConfigError` lists every problem with its place."""
    try:
        return ExperimentConfig.model_validate(raw)
    except ValidationError as error:
        lines = [_explain(problem, raw) for problem in error.errors()]
        raise ConfigError("\n".join([f"{source} is not valid:", *lines])) from None


def dump_config(config: BaseModel) -> str:
    """Return a section as YAML that `load_config` reads back to an equal one."""
    text: str = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    return text


def _apply_override(raw: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"override {override!r} is not of the form key=value")
    node = raw
    *parents, leaf = key.split(".")
    for i, parent in enumerate(parents):
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            place = ".".join(parents[: i + 1])
            raise ConfigError(f"override {override!r}: {place} is a value, not a section")
        node = child
    try:
        node[leaf] = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"override {override!r}: the value is not valid YAML: {error}") from error


def _explain(problem: Any, raw: dict[str, Any]) -> str:
    """Turn one pydantic problem into `  place: what is wrong` with the nearest valid key."""
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        valid = _valid_keys(ExperimentConfig, problem["loc"][:-1])
        near = difflib.get_close_matches(str(problem["loc"][-1]), valid, n=1, cutoff=0.0)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"  {place}: unknown key{hint} Allowed here: {', '.join(sorted(valid))}."
    shown = problem.get("input")
    value = "" if isinstance(shown, dict) else f" (got {shown!r})"
    return f"  {place}: {problem['msg']}{value}"


def _valid_keys(model: type[BaseModel], loc: tuple[Any, ...]) -> list[str]:
    """Return the field names allowed at a place, walking unions by their `kind` tag."""
    if not loc:
        return list(model.model_fields)
    head, *rest = loc
    if head not in model.model_fields:
        return []
    candidates = _sections(model.model_fields[head].annotation)
    for candidate in candidates:
        tail = list(rest)
        if typing.get_origin(model.model_fields[head].annotation) is dict:
            tail = tail[1:]  # the user's own name of the entry
        tags = candidate.model_fields.get("kind")
        if tail and tags is not None and len(candidates) > 1:  # a union: the tag is in the place
            if tail[0] != tags.default:
                continue
            tail = tail[1:]
        return _valid_keys(candidate, tuple(tail))
    return []


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """Return every Section inside an annotation: unions, Annotated and dict values unwrapped."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    origin = typing.get_origin(annotation)
    args = typing.get_args(annotation)
    if origin is dict:
        return _sections(args[1])
    if origin is Annotated:
        return _sections(args[0])
    if origin in (typing.Union, types.UnionType):
        return [section for arg in args for section in _sections(arg)]
    return []
