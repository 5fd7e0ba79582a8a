"""The endpoint's life: the model of the moment behind one worker, the ledger, the users, the log.

The worker outlives the models. It takes the current one once for every batch of requests, so a change of
the model is one assignment: no request is lost, and every answer names the model that made it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from recsys.bundle import Bundle
from recsys.errors import DataError
from recsys.fallback import MODEL
from recsys.growth import NewItem
from recsys.recommender import (
    Continuation,
    Continue,
    FoundPlaylists,
    PlaylistsForSong,
    Query,
    Recommendation,
    SimilarPlaylists,
)
from serving.answers import AnswerLog
from serving.feature_reader import FeatureReader
from serving.feature_writer import FeatureWriter
from serving.keys import KeyRing
from serving.ledger import Ledger, Living
from serving.logs import place_of
from serving.metrics import Metrics
from serving.model import ServedModel, load_model
from serving.schemas import SimilarRequest
from serving.settings import ServingSettings
from serving.users import Users
from serving.worker import Worker

log = logging.getLogger(__name__)

Asked = Query | Continue | SimilarRequest | SimilarPlaylists | PlaylistsForSong
Found = Recommendation | Continuation | FoundPlaylists | dict[str, Recommendation]
PROBATION: Final = 200
"""First answers of a new model; if it fails too often in them, the one before comes back."""
FAILURES: Final = 3


@dataclass(frozen=True)
class Answer:
    """What was found, by what: a model, and the rung of its ladder."""

    found: Found
    model: ServedModel
    source: str = MODEL
    stages: dict[str, float] = field(default_factory=dict)


class DeadlineError(Exception):
    """An answer took longer than the endpoint lets a request wait."""


class Service:
    """What the routes call. Made when the server starts, with the first bundle."""

    def __init__(self, bundle: Bundle, settings: ServingSettings, metrics: Metrics) -> None:
        self.settings, self.metrics = settings, metrics
        self.draining = False
        self.building = threading.Lock()
        """Held by who makes a model that will take the place of the current one."""
        self.given_up: str | None = None
        """The directory name of a bundle whose model failed and gave way to the one before."""
        self._previous: ServedModel | None = None
        self._answered = self._failures = 0
        self._stages: dict[str, float] = {}
        self.keys = None if settings.keys is None else KeyRing(settings.keys)
        state = settings.state
        self.ledger = None if state is None else Ledger(state)
        keep_answers = state is not None and settings.log_answers
        self.answers = AnswerLog(state / "answers") if state and keep_answers else None
        self.model = ServedModel(bundle, self._living(), self.observe)
        self._name_model(self.model)
        self.reader, self.writer = self._feature_store(settings)
        self.users = Users(self.ledger, self.reader)
        self.worker: Worker[Asked, Answer] = Worker(
            self._answer,
            batch=settings.batch,
            waiting=settings.waiting,
            threads=settings.threads,
            observe=self._observe,
        )

    def start(self) -> None:
        """Open what has to be open before the first request."""
        if self.reader is not None:
            self.reader.start()
        for part in (self.writer, self.answers, self.worker):
            if part is not None:
                part.start()

    def stop(self) -> None:
        """Answer what waits, write what is to be written, close everything."""
        self.worker.stop()
        for part in (self.writer, self.reader, self.answers):
            if part is not None:
                part.stop()
        if self.ledger is not None:
            self.ledger.close()

    async def ask(self, asked: Asked) -> Answer:
        """Return the answer to a request.

        Raises:
            QueueFullError: too many requests wait.
            DeadlineError: it did not come in time.
        """
        try:
            return await asyncio.wait_for(self.worker.ask(asked), self.settings.deadline)
        except TimeoutError as error:
            raise DeadlineError from error

    def load(self, path: Path) -> ServedModel:
        """Load a bundle beside the current one and let it answer from now on.

        Raises:
            ArtifactError: it is damaged or does not answer; the current one stays.
        """
        with self.building:
            model = load_model(path, self._living(), self.observe)
            self._previous, self._answered, self._failures = self.model, 0, 0
            self.given_up = None
            self._swap(model)
        return model

    def renew_catalogue(self) -> None:
        """Take over what clients changed in the catalogue since the current model was made."""
        with self.building:
            living = self._living()
            if living.version != self.model.living.version:
                self._swap(self.model.with_living(living, self.observe))

    def add_item(self, item: NewItem) -> None:
        """Write a new item down, and have it in lists when this returns."""
        if self.ledger is not None:
            self.ledger.add_item(item)
            self.renew_catalogue()

    def remove_item(self, item_id: str) -> None:
        """Write down that an item is in no list, which holds when this returns."""
        if self.ledger is not None:
            self.ledger.remove_item(item_id)
            self.renew_catalogue()

    def is_deleted(self, user: str) -> bool:
        """Tell whether a user was deleted: then its list is none that is found."""
        return self.ledger is not None and self.ledger.is_deleted(user)

    def observe(self, stage: str, seconds: float) -> None:
        """Record a stage of the batch at work; called in the worker's thread."""
        self.metrics.observe_stage(stage, seconds)
        self._stages[stage] = seconds

    def _living(self) -> Living:
        return Living() if self.ledger is None else self.ledger.living()

    def _swap(self, model: ServedModel) -> None:
        self.model = model
        self._name_model(model)

    def _name_model(self, model: ServedModel) -> None:
        self.metrics.name_model(**model.version)
        self.metrics.unplaced.set(len(model.grown.unplaced))

    def _answer(self, requests: Sequence[Asked]) -> list[Answer]:
        """Answer what came together: queries by one model call, likeness by one product, lists that
        are made item by item by one search for all that are asked alike.
        """
        model, self._stages = self.model, {}
        try:
            found = self._by_model(model, requests)
        except DataError:
            raise
        except Exception as error:
            if len(requests) > 1:
                raise  # the worker asks again for each alone
            self._failed(model, error)
            return [Answer(*_from_below(model, requests[0]))]
        self._answered += len(requests)
        return [Answer(one, model, MODEL, dict(self._stages)) for one in found]

    def _by_model(self, model: ServedModel, requests: Sequence[Asked]) -> list[Found]:
        """Return what the model finds for each request; a part of it that nobody asks need not work."""
        alike = [(r.items, r.k) for r in requests if isinstance(r, SimilarRequest)]
        likenesses = iter(model.recommender.similar_batch(alike) if alike else [])
        longer = [r for r in requests if isinstance(r, Continue)]
        continued = iter(model.recommender.continue_lists(longer) if longer else [])
        lists_like = [r for r in requests if isinstance(r, SimilarPlaylists)]
        like_lists = iter(model.recommender.similar_playlists(lists_like) if lists_like else [])
        songs = [r for r in requests if isinstance(r, PlaylistsForSong)]
        for_songs = iter(model.recommender.playlists_for_song(songs) if songs else [])
        queries = [r for r in requests if isinstance(r, Query)]
        ranked = iter(model.recommender.recommend(queries) if queries else [])
        found: list[Found] = []
        for request in requests:
            match request:
                case Query():
                    found.append(next(ranked))
                case Continue():
                    found.append(next(continued))
                case SimilarPlaylists():
                    found.append(next(like_lists))
                case PlaylistsForSong():
                    found.append(next(for_songs))
                case SimilarRequest():
                    found.append(next(likenesses))
        return found

    def _failed(self, model: ServedModel, error: Exception) -> None:
        """Note that a model failed; one that is new gives way to the one before it."""
        log.error("the model failed", extra={"error": type(error).__name__, "at": place_of(error)})
        self.metrics.model_failures.inc()
        self._failures += 1
        previous = self._previous
        if previous is None or self._answered >= PROBATION or self._failures < FAILURES:
            return
        self._previous = None
        if self.model is model:
            self.given_up = model.base.path.name
            self._swap(previous)
            self.metrics.loads.labels("rolled_back").inc()
            log.error("the model before answers again", extra={"model": previous.label})

    def _observe(self, size: int, waits: list[float]) -> None:
        self.metrics.batches.observe(size)
        for wait in waits:
            self.metrics.observe_stage("wait", wait)

    def _feature_store(
        self, settings: ServingSettings
    ) -> tuple[FeatureReader | None, FeatureWriter | None]:
        """Return the reader and the writer of the feature store, neither of them started."""
        if settings.features is None:
            return None, None
        from features.store import FeatureStore, StoreSettings

        stored = StoreSettings.load(settings.features)
        reader = FeatureReader(
            lambda: FeatureStore(stored),
            settings.feature_timeout,
            lambda why: self.metrics.feature_misses.labels(why).inc(),
        )
        if self.ledger is None or settings.state is None:
            return reader, None
        writer = FeatureWriter(
            self.ledger,
            lambda: FeatureStore(stored),
            settings.state,
            is_published=lambda user: self.model.is_user(user),
            keep=stored.recent_events,
            failed=lambda name: self.metrics.push_failures.inc(),
        )
        return reader, writer


def _from_below(model: ServedModel, request: Asked) -> tuple[Found, ServedModel, str]:
    """Return what the ladder finds where the model failed, with the rung."""
    found: Found
    match request:
        case Query():
            found, rung = model.ladder.answer(request)
        case Continue():
            found, rung = model.ladder.continued(request)
        case SimilarRequest():
            found, rung = model.ladder.similar(request.items, request.k)
        case SimilarPlaylists():
            found, rung = model.playlist_ladder.similar(request)
        case PlaylistsForSong():
            found, rung = model.playlist_ladder.for_song(request)
    return found, model, rung
