"""SASRec as `transformers` knows decoders: the same blocks and weights, its own cache and search.

Imported only in the environment that `make_golden.py` and the beam benchmark make for it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from recsys.models.sasrec import SASRec


class DecoderConfig(PretrainedConfig):  # type: ignore[misc]
    """What `generate` looks at."""

    model_type = "sasrec"

    def __init__(self, vocab_size: int = 0, num_hidden_layers: int = 0, **rest: Any) -> None:
        super().__init__(**rest)
        self.vocab_size, self.num_hidden_layers = vocab_size, num_hidden_layers


class Decoder(PreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """A fitted SASRec; token i is item i, and PAD is never chosen."""

    config_class = DecoderConfig

    def __init__(self, model: SASRec) -> None:
        super().__init__(DecoderConfig(model.n_items + 1, len(model.blocks)))
        self.model = model

    def forward(
        self, input_ids: Tensor, past_key_values: Any = None, **ignored: Any
    ) -> CausalLMOutputWithPast:
        """Return the logits of the newest place; keys and values of the others are cached."""
        done = 0 if past_key_values is None else past_key_values.get_seq_length()
        new = input_ids.shape[1]
        places = torch.arange(done, done + new)
        x = self.model._embed(input_ids, places)
        mask = None if new == 1 else torch.arange(done + new) <= places[:, None]
        for i, block in enumerate(self.model._stack()):
            q, k, v = block.attention.project(block.norm1(x))
            if past_key_values is not None:
                k, v = past_key_values.update(k, v, i)
            x = block.finish(x, block.attention.attend(q, k, v, mask))
        logits = self.model._finish(x[:, -1:]) @ self.model.item_table.weight.T
        logits = logits / self.model.temperature
        logits[..., 0] = -torch.inf
        return CausalLMOutputWithPast(logits=logits, past_key_values=past_key_values)


@torch.no_grad()
def generate(
    decoder: Decoder,
    histories: Tensor,
    steps: int,
    groups: int,
    beams: int,
    diversity: float,
    end: int | None = None,
    length_penalty: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Return `(items [N, groups * beams, steps], scores [N, groups * beams])`, best first over groups.

    Args:
        decoder: the model.
        histories: int64 [N, L], all of one length.
        steps: new items.
        groups: beam groups.
        beams: beams of each group.
        diversity: strength of the Hamming penalty.
        end: the token that ends a list.
        length_penalty: see `transformers`.
    """
    grouped = {"num_beam_groups": groups, "diversity_penalty": diversity} if groups > 1 else {}
    found = decoder.generate(
        histories,
        max_new_tokens=steps,
        num_beams=groups * beams,
        num_return_sequences=groups * beams,
        do_sample=False,
        early_stopping=False,
        length_penalty=length_penalty,
        eos_token_id=end,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_scores=True,
        use_cache=True,
        **grouped,
    )
    shape = (len(histories), groups * beams)
    items = found.sequences[:, histories.shape[1] :]
    return items.view(*shape, -1), found.sequences_scores.view(shape)
