"""Which inputs are worth an adapter: where the new samples pull hardest at the least cost to the old ones.

A change dW of a linear's weight gains <G, dW> on the new samples, G being the gradient of their loss, and
moves the old outputs by sum_j D_j |dW_j|^2 / E|W x|^2, D the mean square of each old input channel. The
largest gain squared per such move, over all dW, is
    E|W x|^2 * ||G D^(-1/2)||^2,
so that is a linear's score: new gradient energy against old input energy, free of the scales of x and W.
A site scores the sum over the linears that read it. A few samples of each kind suffice, one at a time, and
nothing larger than a sample's own activations is held: ||G||^2 comes from the tokens' products.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kore.errors import DataError
from kore.models.collate import collate
from kore.models.families import language_layers, language_linears
from kore.models.processing import Encoder
from kore.nullspace.activation_hooks import site_names
from kore.nullspace.batches import features, placed

if TYPE_CHECKING:
    from kore.data.records import Sample
    from kore.models.load import Backbone

FEW = 16  # samples of each kind
_DAMP = 1e-2  # of the mean channel: what the few old samples do not use is not free


@dataclass(frozen=True)
class SiteScore:
    """What one distinct input of a decoder layer is worth.

    Attributes:
        name: layers.0.qkv, as the covariance will name it.
        cost: trainable parameters per rank, the sum of the linears' d_out.
        score: new gradient energy against old input energy, per trainable parameter of a rank.
    """

    name: str
    layer: int
    linears: tuple[str, ...]
    cost: int
    score: float


@dataclass(frozen=True)
class Choice:
    """The sites that are worth their cost.

    Attributes:
        scores: of every site. chosen: of those that are taken; both in the order of the model.
        seconds: what the scores took.
    """

    share: float
    scores: list[SiteScore]
    chosen: list[SiteScore]
    seconds: float = 0.0

    @property
    def names(self) -> list[str]:
        """Names of the chosen sites."""
        return [s.name for s in self.chosen]

    def to_json(self) -> dict[str, Any]:
        """A plain object."""
        rows = [
            {"site": s.name, "cost": s.cost, "score": s.score, "chosen": s.name in self.names}
            for s in self.scores
        ]
        return {"share": self.share, "seconds": self.seconds, "sites": rows}

    def line(self) -> str:
        """For people."""
        part = sum(s.cost for s in self.chosen) / sum(s.cost for s in self.scores)
        layers = len({s.layer for s in self.chosen})
        return (
            f"auto:{self.share:g} takes {len(self.chosen)} of {len(self.scores)} inputs, in {layers} layers, "
            f"{part:.0%} of the trainable parameters: {', '.join(self.names)}"
        )


def score_sites(
    backbone: Backbone, old: Sequence[Sample], new: Sequence[Sample], *, with_answers: bool = False
) -> list[SiteScore]:
    """Score every site of the language layers.

    Args:
        backbone: wholly in memory.
        old: samples to protect, read as they will be summed. new: samples to learn, answers and all.
        with_answers: the old ones' answers are read too.

    Raises:
        DataError: no gradient reaches a linear, or it is not finite; names it.
    """
    encoder = Encoder(backbone.processor)
    linears = language_linears(backbone.model, backbone.family)
    channels: dict[str, Tensor] = {}
    outputs = dict.fromkeys(linears, 0.0)
    rows = 0

    def see(name: str, x: Tensor, y: Tensor) -> None:
        x, y = x.detach().flatten(0, -2).float(), y.detach().flatten(0, -2).float()
        total = x.square().sum(dim=0).double()
        channels[name] = channels[name] + total if name in channels else total
        outputs[name] += float(y.square().sum())

    with torch.no_grad(), _watched(linears, see):
        for sample in _spread(old):
            inputs = placed(backbone, collate([features(encoder, sample, with_answers)], encoder.pad_id))
            backbone.model(**inputs, use_cache=False)
            rows += inputs["input_ids"].shape[1]

    energy = dict.fromkeys(linears, 0.0)
    inverse = {}
    for name, total in channels.items():
        mean = total / rows
        inverse[name] = (mean + _DAMP * mean.mean()).clamp_min(1e-30).rsqrt().float()
    groups = _Groups()

    def pull(name: str, x: Tensor, y: Tensor) -> None:
        groups.meet(name, x)
        scaled = x.detach().flatten(0, -2).float() * inverse[name]  # (T, d_in)

        def take(gradient: Tensor) -> None:
            g = gradient.detach().flatten(0, -2).float()  # (T, d_out)
            energy[name] += float(((g @ g.T) * (scaled @ scaled.T)).sum())

        hook: Any = y.register_hook
        hook(take)

    with _frozen(backbone.model), torch.enable_grad(), _watched(linears, pull), _rooted(backbone):
        for sample in _spread(new):
            inputs = placed(backbone, collate([encoder.training(sample)], encoder.pad_id))
            groups.start()
            backbone.model(**inputs, use_cache=False).loss.backward()
    layers: dict[int, list[list[str]]] = {}
    for names in groups.found:
        layers.setdefault(backbone.family.layer_of(names[0]), []).append(names)
    return [
        _score(f"layers.{layer}.{site}", layer, names, linears, energy, outputs, rows)
        for layer, found in layers.items()
        for site, names in zip(site_names(found), found, strict=True)
    ]


def choose_sites(scores: list[SiteScore], share: float) -> Choice:
    """The best sites whose trainable parameters stay within `share` of all; at least one."""
    room = share * sum(s.cost for s in scores)
    taken: set[str] = set()
    for site in sorted(scores, key=lambda s: (-s.score, s.name)):
        if not taken or site.cost <= room:
            taken.add(site.name)
            room -= site.cost
    return Choice(share, scores, [s for s in scores if s.name in taken])


def _score(
    site: str,
    layer: int,
    names: list[str],
    linears: dict[str, nn.Linear],
    energy: dict[str, float],
    outputs: dict[str, float],
    rows: int,
) -> SiteScore:
    values = {n: energy[n] * outputs[n] / rows for n in names}
    for name, value in values.items():
        if not 0 <= value < float("inf"):
            raise DataError("the gradient of the new samples is not finite", where=name)
    cost = sum(linears[n].out_features for n in names)
    return SiteScore(site, layer, tuple(names), cost, sum(values.values()) / cost)


class _Groups:
    """Linears that read the same tensor, found by its identity in the first pass."""

    def __init__(self) -> None:
        self.found: list[list[str]] = []
        self._seen: list[tuple[Tensor, list[str]]] = []
        self._known: set[str] = set()

    def start(self) -> None:
        self._seen.clear()

    def meet(self, name: str, x: Tensor) -> None:
        if name in self._known:
            return
        self._known.add(name)
        # kept alive while the pass runs, so that identity cannot be confused by reused memory
        names = next((names for tensor, names in self._seen if tensor is x), None)
        if names is None:
            names = []
            self.found.append(names)
            self._seen.append((x, names))
        names.append(name)


@contextmanager
def _watched(linears: dict[str, nn.Linear], told: Callable[[str, Tensor, Tensor], None]) -> Iterator[None]:
    """Tell of each linear's input and output while it runs."""

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], None]:
        return lambda module, args, out: told(name, args[0], out)

    handles = [module.register_forward_hook(hook(name)) for name, module in linears.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """No parameter's gradient is kept inside the block: only the activations' are wanted."""
    before = [(p, p.requires_grad) for p in model.parameters()]
    try:
        for parameter, _ in before:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter, wanted in before:
            parameter.requires_grad_(wanted)


@contextmanager
def _rooted(backbone: Backbone) -> Iterator[None]:
    """The hidden states that enter the first decoder layer are where gradients begin."""

    def root(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (args[0].detach().requires_grad_(True), *args[1:])

    handle = language_layers(backbone.model, backbone.family)[0].register_forward_pre_hook(root)
    try:
        yield
    finally:
        handle.remove()


def _spread(samples: Sequence[Sample]) -> Sequence[Sample]:
    """A few of them, from beginning to end: draws go through a source's categories one after the other."""
    step = max(len(samples) // FEW, 1)
    return samples[::step][:FEW]
