"""A model whose training can be switched off for a while, for methods that are no PEFT adapter.

It answers to `disable_adapter` as a PeftModel does, so evaluation, chat and probes need not know.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from kore.errors import MissingArtefact
from kore.io.files import write_json
from kore.models.checkpoint import read_tensors

FACTS, CONFIG, WEIGHTS = "kore.json", "adapter_config.json", "kore_weights.safetensors"


class Switch(Protocol):
    """Knows how to make a trained model the untouched base."""

    def __call__(self, model: nn.Module, /) -> AbstractContextManager[None]:
        """The base while the context is open."""

    def undo(self, model: nn.Module, /) -> None:
        """The base for good, also after a load that failed halfway."""


class Switched(nn.Module):
    """A model with an off switch.

    Args:
        inner: the model.
        off: makes `inner` the untouched base, for a while or for good.
    """

    def __init__(self, inner: nn.Module, off: Switch) -> None:
        super().__init__()
        self.inner = inner
        self._off = [off]  # in a list, so that it is no submodule

    def forward(self, **inputs: Any) -> Any:
        return self.inner(**inputs)

    def generate(self, **inputs: Any) -> Any:
        """As the model's own."""
        return self.inner.generate(**inputs)  # type: ignore[operator]

    @contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """The untouched base inside the block."""
        with self._off[0](self.inner):
            yield

    def unload(self) -> nn.Module:
        """The untouched base, for good; what was trained is let go."""
        self._off[0].undo(self.inner)
        return self.inner

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "inner":
                raise
            return getattr(self.inner, name)


def write_weights(
    folder: Path, form: str, parameters: Mapping[str, nn.Parameter], facts: Mapping[str, Any]
) -> None:
    """Save weights by name, with a configuration that PEFT refuses by name instead of misreading."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file({n: p.detach().cpu().contiguous() for n, p in parameters.items()}, folder / WEIGHTS)
    write_json(folder / CONFIG, {"peft_type": f"KORE_{form.upper()}", "made_by": "kore train"})
    write_json(folder / FACTS, {**facts, "format": form})


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Weights by name.

    Raises:
        MissingArtefact: none in the folder.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        raise MissingArtefact(f"no weights here: {folder}", hint="make them with: kore train")
    return read_tensors(path)
