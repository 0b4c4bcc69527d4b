"""An earlier adapter under a new one: the model that the next batch is calibrated and trained on.

The earlier adapter is not merged: in half precision most of a small Delta W would be rounded away, and
a quantised base or one that stays on disk has no weights to merge into. Each of its products B A x is
added to its linear's output instead, frozen. To every method and to calibration the result is a plain
model. What is trained on it is saved joined with the earlier adapter, as one LoRA on the untouched base,
so that nothing that loads a later adapter can lose an earlier batch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from kore.adapters.lora import FACTS, read_facts
from kore.adapters.lora_state import read_low_rank, write_low_rank
from kore.errors import DataError
from kore.io.files import read_json, write_json
from kore.models.lineage import adapter_fingerprint

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

    from kore.models.load import Backbone


class Earlier:
    """A finished adapter that another goes on from.

    Args:
        folder: an adapter folder with kore.json.

    Attributes:
        base: fingerprint of the base that it belongs to.
        chain: fingerprints of all adapters up to this one, oldest first.

    Raises:
        MissingArtefact: no adapter there. DataError: no low-rank adapter, or its base is not known.
    """

    def __init__(self, folder: Path) -> None:
        facts = read_facts(folder)
        if not facts.get("base"):
            raise DataError(
                "the adapter does not say which base it belongs to",
                where=str(folder),
                hint="name the run that made it, not an export",
            )
        self.folder = folder
        self.base = str(facts["base"])
        self.low_rank = read_low_rank(folder)
        self.fingerprint = adapter_fingerprint(folder)
        self.chain = (*(str(a) for a in facts.get("chain") or ()), self.fingerprint)
        self._factors = dict(self.low_rank.factors)
        self._hooks: list[RemovableHandle] = []
        self._replaced: dict[str, Tensor] = {}

    def check(self, base: str) -> None:
        """Refuse another base.

        Raises:
            DataError: names both.
        """
        if base != self.base:
            raise DataError(
                f"the earlier adapter belongs to base {self.base}, the model is {base}",
                where=str(self.folder),
                hint="go on from it with the model that it was trained on",
            )

    def stack_on(self, backbone: Backbone) -> None:
        """Make the backbone's model answer as the earlier adapter left it.

        Raises:
            DataError: another base, or a linear that the model has not.
        """
        self.check(backbone.fingerprint)
        modules = dict(backbone.model.named_modules())
        for name in self._factors:
            if name not in modules:
                raise DataError("the model has no such linear", where=name)
            self._hooks.append(modules[name].register_forward_hook(self._adding(name)))
        self.put_whole(backbone.model)
        backbone.earlier = self

    def put_whole(self, model: Any) -> None:
        """Put what was trained in full (the projector) in the place of the model's own; a parameter on
        the meta device is left for whoever brings its weights."""
        parameters = dict(model.named_parameters())
        with torch.no_grad():
            for name, value in self.low_rank.whole.items():
                if not parameters[name].is_meta:
                    self._replaced.setdefault(name, parameters[name].detach().cpu().clone())
                    parameters[name].copy_(value)

    def take_off(self, backbone: Backbone) -> None:
        """Make the model the untouched base again."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        parameters = dict(backbone.model.named_parameters())
        with torch.no_grad():
            for name, value in self._replaced.items():
                parameters[name].copy_(value)
        backbone.earlier = None

    def weight(self, name: str, base: Tensor) -> Tensor:
        """A linear's weight as the model computes with it, W0 + B A, (d_out, d_in)."""
        if name not in self._factors:
            return base
        a, b = (t.to(base.device, torch.float32) for t in self._factors[name])
        return base.float() + b @ a

    def join(self, folder: Path) -> None:
        """Write the earlier adapter into a new one's folder: one LoRA of rank r1 + r2 per linear."""
        write_low_rank(folder, self.low_rank.then(read_low_rank(folder)))
        facts = {**read_json(folder / FACTS), "chain": list(self.chain), "after": str(self.folder.resolve())}
        write_json(folder / FACTS, facts)

    def _adding(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def hook(_: nn.Module, args: tuple[Tensor, ...], y: Tensor) -> Tensor:
            a, b = self._factors[name]
            if a.device != y.device:
                a, b = self._factors[name] = (a.to(y.device), b.to(y.device))
            return y + linear(linear(args[0].to(a.dtype), a), b).to(y.dtype)

        return hook
