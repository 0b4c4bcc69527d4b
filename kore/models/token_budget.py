"""How many tokens a training sample may have, measured with the model's own processor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kore.errors import MissingArtefact
from kore.models.load import load_processor, model_folder
from kore.models.processing import Encoder

if TYPE_CHECKING:
    from kore.config.schema import ModelSection, TrainSection
    from kore.data.records import Sample


@dataclass(frozen=True)
class TokenBudget:
    """The most tokens of a sample.

    Attributes:
        limit: train.max_length.
        context: the longest sequence that the model itself takes, where its configuration says.
    """

    encoder: Encoder
    limit: int
    context: int | None = None

    def tokens(self, sample: Sample) -> int:
        """Tokens of a sample: chat template, text and pictures."""
        return self.encoder.length(sample)

    def fits(self, sample: Sample) -> bool:
        """Whether the sample can be trained on whole."""
        return self.tokens(sample) <= self.limit

    def remedy(self, needed: int) -> str:
        """What to change so that a sample of `needed` tokens fits."""
        if self.context is not None and needed > self.context:
            more = self.limit < self.context
            raised = f" or --set train.max_length={self.context}, the most that the model takes" * more
            return f"shorten the text{raised}"
        takes = f" (the model takes up to {self.context})" if self.context else ""
        return f"--set train.max_length={needed}{takes}, or shorten the text"


def token_budget(model: ModelSection, train: TrainSection, *, download: bool = False) -> TokenBudget:
    """The budget of a model under these settings; reads its processor, not its weights.

    Raises:
        MissingArtefact: the model is not here. DataError: it has no usable processor.
    """
    folder = model_folder(model.id, download=download)
    return TokenBudget(Encoder(load_processor(folder, model)), train.max_length, context_length(folder))


def find_token_budget(
    model: ModelSection, train: TrainSection, *, download: bool = False
) -> TokenBudget | None:
    """As `token_budget`; None without the model: some dry runs need none, and other runs end later."""
    try:
        return token_budget(model, train, download=download)
    except MissingArtefact:
        return None


def context_length(folder: Path) -> int | None:
    """The longest sequence of a model's language part, by its configuration."""
    from transformers import AutoConfig

    text = AutoConfig.from_pretrained(folder, trust_remote_code=False).get_text_config()
    value = getattr(text, "max_position_embeddings", None)
    return int(value) if isinstance(value, int) else None
