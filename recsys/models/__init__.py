"""Models: each is built from its configuration alone and used without Lightning."""

from __future__ import annotations

from recsys.config import (
    BagOfTokensConfig,
    ItemKNNConfig,
    LagMarkovConfig,
    MarkovConfig,
    ModelConfig,
    NeighbourVotesConfig,
    OwnPopularityConfig,
    PopularityConfig,
    RecformerConfig,
    SASRecConfig,
    Seq2SeqConfig,
    SetModelConfig,
    TextVectorsConfig,
    TiSASRecConfig,
    UniRecConfig,
)
from recsys.models.contract import CountingModel, EncoderModel, Model

__all__ = ["CountingModel", "EncoderModel", "Model", "build_model"]


def build_model(config: ModelConfig, n_items: int) -> Model:
    """Return an untrained model for a catalogue of `n_items` items."""
    match config:
        case PopularityConfig():
            from recsys.models.popularity import Popularity

            return Popularity(config, n_items)
        case OwnPopularityConfig():
            from recsys.models.popularity import OwnPopularity

            return OwnPopularity(n_items)
        case MarkovConfig():
            from recsys.models.markov import Markov

            return Markov(config, n_items)
        case LagMarkovConfig():
            from recsys.models.lag_markov import LagMarkov

            return LagMarkov(config, n_items)
        case ItemKNNConfig():
            from recsys.models.item_knn import ItemKNN

            return ItemKNN(config, n_items)
        case NeighbourVotesConfig():
            from recsys.models.neighbour_votes import VotesAlone

            return VotesAlone(config, n_items)
        case BagOfTokensConfig():
            from recsys.models.bag_of_tokens import BagOfTokens

            return BagOfTokens(config, n_items)
        case TextVectorsConfig():
            from recsys.models.text_vectors import TextVectors

            return TextVectors(config, n_items)
        case SASRecConfig():
            from recsys.models.sasrec import SASRec

            return SASRec(config, n_items)
        case TiSASRecConfig():
            from recsys.models.tisasrec import TiSASRec

            return TiSASRec(config, n_items)
        case UniRecConfig():
            from recsys.models.unirec import UniRec

            return UniRec(config, n_items)
        case Seq2SeqConfig():
            from recsys.models.playlists.seq2seq import Seq2Seq

            return Seq2Seq(config, n_items)
        case SetModelConfig():
            from recsys.models.sets.model import SetModel

            return SetModel(config, n_items)
        case RecformerConfig():
            from recsys.models.recformer.model import Recformer

            return Recformer(config, n_items)
