"""Any model."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from recsys.config.attention import SASRecConfig, TiSASRecConfig
from recsys.config.counts import (
    BagOfTokensConfig,
    ItemKNNConfig,
    LagMarkovConfig,
    MarkovConfig,
    OwnPopularityConfig,
    PopularityConfig,
    TextVectorsConfig,
)
from recsys.config.playlists import Seq2SeqConfig, SetModelConfig
from recsys.config.recformer import RecformerConfig
from recsys.config.unirec import UniRecConfig
from recsys.config.votes import NeighbourVotesConfig

ModelConfig = Annotated[
    PopularityConfig
    | OwnPopularityConfig
    | MarkovConfig
    | LagMarkovConfig
    | ItemKNNConfig
    | NeighbourVotesConfig
    | BagOfTokensConfig
    | TextVectorsConfig
    | SASRecConfig
    | TiSASRecConfig
    | UniRecConfig
    | Seq2SeqConfig
    | SetModelConfig
    | RecformerConfig,
    Field(discriminator="kind"),
]
