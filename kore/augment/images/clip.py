"""Features by open-clip, as in the paper; needs the package and its weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kore.errors import DataError, MissingArtefact, UsageError
from kore.io.images import open_image

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_CHOICES = (
    "--encoder clip:MODEL/TAG (weights in the local cache), clip:MODEL/FILE (a weights file), or classic"
)


class ClipEncoder:
    """A CLIP image tower.

    Args:
        choice: ``MODEL/TAG`` with a tag of open-clip's list, or ``MODEL/FILE`` with a local weights file.
            Only a tag says how its pictures are prepared and which activation it was trained with: with a
            file, OpenAI's preparation is taken, and OpenAI's own weights go with models ``...-quickgelu``.
        batch: pictures per forward pass.

    Raises:
        MissingArtefact: open-clip or the weights are not there; names the choices.
        UsageError: no such model. DataError: a file that does not hold the model's weights.
    """

    def __init__(self, choice: str, batch: int = 32) -> None:
        model, _, weights = choice.partition("/")
        if not model or not weights:
            raise UsageError(f"which weights? clip:{choice}", hint=_CHOICES)
        self.name = f"clip:{model}/{Path(weights).name}"
        self.batch = batch
        try:
            import open_clip
            import torch
        except ImportError as error:
            raise MissingArtefact(
                "the clip encoder needs open-clip: pip install 'kore-inject[clip]'",
                hint=f"or choose: {_CHOICES}",
            ) from error
        if model not in open_clip.list_models():
            raise UsageError(f"open-clip knows no model {model}", hint=_CHOICES)
        self._torch = torch
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        file, options = self._weights(open_clip, model, weights)
        self._model, self._prepare = self._load(open_clip, model, file, options)

    def _weights(self, open_clip: Any, model: str, weights: str) -> tuple[str, dict[str, Any]]:
        """The weights' file, and how a model and its pictures are prepared for them."""
        if Path(weights).is_file():
            return weights, {}
        tags = open_clip.list_pretrained_tags_by_model(model)
        if weights not in tags:
            known = f"there are {', '.join(tags)}" if tags else "open-clip lists none: give a file"
            raise MissingArtefact(f"no weights {weights} for {model}; {known}", hint=_CHOICES)
        from kore.augment.images.clip_weights import cached_weights, options_of

        config = open_clip.get_pretrained_cfg(model, weights)
        found = cached_weights(config)
        if found is None:
            hub = str(config.get("hf_hub", "")).strip("/") or model
            raise MissingArtefact(
                f"the weights {model}/{weights} are not in the local cache",
                hint=f"hf download {hub} fetches them; or: {_CHOICES}",
            )
        return found, options_of(config)

    def _load(self, open_clip: Any, model: str, file: str, options: dict[str, Any]) -> tuple[Any, Any]:
        try:
            # weights_only: a checkpoint from elsewhere must not run code
            made, _, prepare = open_clip.create_model_and_transforms(
                model, pretrained=file, weights_only=True, **options
            )
        except Exception as error:  # pickle, safetensors, torch and open-clip each have their own
            said = " ".join(str(error).split())[:160]
            raise DataError(
                f"these are no weights of {model} that can be read: {said}", where=file, hint=_CHOICES
            ) from error
        made.eval().to(self._device)
        return made, prepare

    def features(self, paths: Sequence[Path]) -> NDArray[np.float32]:
        """One row per picture, (n, d) float32, of length 1."""
        import numpy as np

        rows = []
        for start in range(0, len(paths), self.batch):
            pictures = [self._prepare(open_image(path)) for path in paths[start : start + self.batch]]
            with self._torch.inference_mode():
                made = self._model.encode_image(self._torch.stack(pictures).to(self._device))
                rows.append((made / made.norm(dim=-1, keepdim=True)).float().cpu().numpy())
        return np.concatenate(rows).astype(np.float32)
