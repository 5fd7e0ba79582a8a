"""The configuration of an experiment: what a YAML file may say, checked where it enters.

Every section is a frozen model; an unknown key is an error that names the nearest valid one, and
`key=value` overrides any field before validation.
"""

from __future__ import annotations

from recsys.config.attention import SASRecConfig, TiSASRecConfig
from recsys.config.clock import check_clock, check_times
from recsys.config.counts import (
    BagOfTokensConfig,
    ItemKNNConfig,
    LagMarkovConfig,
    MarkovConfig,
    OwnPopularityConfig,
    PopularityConfig,
    TextVectorsConfig,
)
from recsys.config.data import (
    ContinuationSplit,
    DataConfig,
    FilterConfig,
    GlobalTimeSplit,
    LastNSplit,
    LeaveOneOutSplit,
    Moment,
    OnProblem,
    ProblemRules,
    RollingSplit,
    SplitConfig,
)
from recsys.config.experiment import (
    EvaluationConfig,
    ExperimentConfig,
    FeastConfig,
    FeaturesConfig,
    IndexConfig,
    OrderTestConfig,
    PublishConfig,
    RayConfig,
    TrackingConfig,
)
from recsys.config.file import (
    dump_config,
    is_study,
    load_config,
    load_pretrain_config,
    load_study_config,
    parse_config,
    parse_pretrain_config,
    parse_study_config,
)
from recsys.config.models import ModelConfig
from recsys.config.playlists import (
    Seq2SeqConfig,
    SetModelConfig,
)
from recsys.config.pretrain import PretrainConfig
from recsys.config.recformer import RecformerConfig
from recsys.config.section import (
    Section,
)
from recsys.config.study import StudyConfig
from recsys.config.text import (
    ItemVectors,
    TextConfig,
    TextItems,
    TextVotes,
)
from recsys.config.text_encoder import TextEncoderConfig
from recsys.config.training import (
    LossConfig,
    TrainingConfig,
)
from recsys.config.tune import (
    Range,
    TuneConfig,
    apply_settings,
    setting_of,
)
from recsys.config.unirec import UniRecConfig
from recsys.config.votes import NeighbourVotesConfig, PairVotes, VotesConfig

__all__ = [
    "BagOfTokensConfig",
    "ContinuationSplit",
    "DataConfig",
    "EvaluationConfig",
    "ExperimentConfig",
    "FeastConfig",
    "FeaturesConfig",
    "FilterConfig",
    "GlobalTimeSplit",
    "IndexConfig",
    "ItemKNNConfig",
    "ItemVectors",
    "LagMarkovConfig",
    "LastNSplit",
    "LeaveOneOutSplit",
    "LossConfig",
    "MarkovConfig",
    "ModelConfig",
    "Moment",
    "NeighbourVotesConfig",
    "OnProblem",
    "OrderTestConfig",
    "OwnPopularityConfig",
    "PairVotes",
    "PopularityConfig",
    "PretrainConfig",
    "ProblemRules",
    "PublishConfig",
    "Range",
    "RayConfig",
    "RecformerConfig",
    "RollingSplit",
    "SASRecConfig",
    "Section",
    "Seq2SeqConfig",
    "SetModelConfig",
    "SplitConfig",
    "StudyConfig",
    "TextConfig",
    "TextEncoderConfig",
    "TextItems",
    "TextVectorsConfig",
    "TextVotes",
    "TiSASRecConfig",
    "TrackingConfig",
    "TrainingConfig",
    "TuneConfig",
    "UniRecConfig",
    "VotesConfig",
    "apply_settings",
    "check_clock",
    "check_times",
    "dump_config",
    "is_study",
    "load_config",
    "load_pretrain_config",
    "load_study_config",
    "parse_config",
    "parse_pretrain_config",
    "parse_study_config",
    "setting_of",
]
