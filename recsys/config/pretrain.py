"""Pre-training of Recformer's encoder over several data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from recsys.config.experiment import RayConfig, TrackingConfig
from recsys.config.section import NAME, Section
from recsys.config.text_encoder import TextEncoderConfig
from recsys.config.training import TrainingConfig


class PretrainTokenizerConfig(Section):
    """The tokenizer of all domains together."""

    directory: Path | None = None
    """A local Hugging Face directory; by default a WordPiece tokenizer is trained on the items of all
    domains that have training events."""
    vocabulary_size: int = Field(8192, ge=64)
    lowercase: bool = True


class PretrainConfig(Section):
    """What `recsys pretrain` reads.

    loss = contrast(history, next item) + mlm_weight (MLM(histories) + MLM(next items))
    """

    name: str = Field(pattern=NAME)
    seed: int = Field(0, ge=0)
    output: Path = Path("out")
    """Everything is written below `output/name`, the domains' own stages below theirs."""
    domains: Annotated[list[Path], Field(min_length=1)]
    """Configurations of experiments: their data, split and `text`; of their events those that train."""
    domain_overrides: list[str] = []
    """`key=value` settings for all of them."""
    tokenizer: PretrainTokenizerConfig = PretrainTokenizerConfig()
    encoder: TextEncoderConfig = TextEncoderConfig()
    start: Path | None = None
    """A local Hugging Face checkpoint to start from; its shape must be the encoder's."""
    train_words: bool = True
    """Whether the vectors of words learn."""
    temperature: float = Field(0.05, gt=0)
    mlm_weight: float = Field(0.1, ge=0)
    """Weight of masked language modelling on either side; 0 leaves it out."""
    mlm_share: float = Field(1.0, gt=0, le=1)
    """Share of a batch's pairs whose sentences are also read with hidden words."""
    masked: float = Field(0.15, gt=0, lt=1)
    """Expected share of a sentence's tokens that are hidden."""
    cached: bool = False
    """Compute a batch bucket by bucket (`encoder.bucket_tokens`), every one twice: memory is that of one
    bucket, whatever the batch size (GradCache)."""
    held_out: float = Field(0.05, gt=0, lt=1)
    """Share of each domain's users who are not learned from; their last training event validates."""
    held_out_most: int = Field(500, ge=1)
    """At most so many users of a domain."""
    training: TrainingConfig = TrainingConfig(batch_size=64, lr=5e-5, schedule="linear")
    """An epoch has one pair of every user; `loss` is not read."""
    ray: RayConfig = RayConfig()
    tracking: TrackingConfig = TrackingConfig()

    @property
    def workspace(self) -> Path:
        """Directory of this pre-training, absolute."""
        return (self.output / self.name).absolute()

    @model_validator(mode="after")
    def _fits_together(self) -> PretrainConfig:
        names = [path.stem for path in self.domains]
        if len(set(names)) < len(names):
            raise ValueError("domains: each configuration once")
        if self.start is not None and self.tokenizer.directory is None:
            raise ValueError(
                "start: the words of a checkpoint are those of its own tokenizer; set "
                "tokenizer.directory to it"
            )
        return self
