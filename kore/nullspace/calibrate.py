"""Sums the covariances of a model's language layers over samples of what it already knows (paper, 4.2.2)."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kore.artifacts.manifest import Manifest, State, claimed
from kore.distributed import barrier, current, on_first_rank
from kore.errors import DataError, UsageError
from kore.io.files import hash_json
from kore.models.families import language_layers, language_linears
from kore.nullspace.accumulator import Accumulator
from kore.nullspace.activation_hooks import LayerTaps, site_names
from kore.nullspace.batches import Batches, make_batches, placed, sample_hash
from kore.nullspace.covariance import KIND, Covariance, Site, read_sites, shard, write_shard
from kore.nullspace.group import Group
from kore.nullspace.layer_selection import parse_layers
from kore.nullspace.layerwise import (
    HiddenCache,
    NotPlainStack,
    Start,
    is_plain_stack,
    quiet_inference,
    run_layer,
    run_whole,
    start,
)
from kore.nullspace.memory_plan import Plan, check_room, make_plan, parse_bytes
from kore.nullspace.weight_provider import Held, Weights
from kore.progress import Progress, silent

if TYPE_CHECKING:
    from kore.config.resolve import CalibrateSection
    from kore.data.records import Sample
    from kore.models.load import Backbone
    from kore.nullspace.site_selection import Choice

STAGE = "calibrate"
_HIDDEN = "hidden-states"


class Calibration:
    """One calibration: prepares, plans, runs.

    Args:
        backbone: model, processor and fingerprint; its layers may be on the meta device if `weights`
            materialises them.
        samples: what to protect.
        section: how.
        label: what the samples are, for people.
        weights: brings decoder layers into memory; by default they are there already.
        choice: only its inputs are summed; by default all of the section's layers.
    """

    def __init__(
        self,
        backbone: Backbone,
        samples: Sequence[Sample],
        section: CalibrateSection,
        *,
        label: str = "",
        weights: Weights | None = None,
        choice: Choice | None = None,
    ) -> None:
        if not samples:
            raise UsageError("there is no sample to calibrate on")
        self.backbone = backbone
        self.section = section
        self.label = label or f"{len(samples)} samples"
        self.lineage = backbone.lineage
        self.samples = samples
        self.stack: nn.ModuleList = language_layers(backbone.model, backbone.family)
        self.weights: Weights = weights or Held(backbone.model)
        self.choice = choice
        self._all = _by_layer(backbone)
        self.linears = self._chosen()
        self.layers = list(self.linears)
        self.batches: Batches = make_batches(
            backbone.processor, samples, batch=section.batch, with_answers=section.with_answers
        )
        self.world = current()
        self.widest = 0
        with quiet_inference():
            self.whole = self._needs_whole_passes()
            self.plan: Plan = self._plan()

    def manifest(self) -> Manifest:
        """What identifies this covariance: the model, the samples and how they are read."""
        section = self.section
        hashes = [sample_hash(s) for s in self.samples]
        settings: dict[str, Any] = {
            "with_answers": section.with_answers,
            "normalise": section.normalise,
            "accumulate": section.accumulate,
            "layers": self.layers,
            "dtype": str(self.backbone.model.dtype),
            "root": self.lineage.root,
            "lineage": list(self.lineage.chain),
        }
        if self.choice is not None:
            settings["sites"] = self.choice.names
        if self.backbone.reads:
            settings["reads"] = self.backbone.reads
        inputs = {"model": self.backbone.identity, "samples": hash_json(hashes)}
        facts = {
            "label": self.label,
            "tokens": self.batches.tokens,
            "samples": [{"id": s.id, "hash": h} for s, h in zip(self.samples, hashes, strict=True)],
            "plan": self.plan.to_json(),
            "choice": self.choice.to_json() if self.choice else None,
        }
        sources = {"model": str(self.backbone.path)}
        if self.backbone.earlier is not None:
            sources["adapter"] = str(self.backbone.earlier.folder.resolve())
        return Manifest(KIND, settings, inputs, sources, facts=facts)

    def run(self, out: Path, *, restart: bool = False, progress: Progress = silent) -> Covariance:
        """Sum and write; goes on where an earlier call with the same inputs stopped."""
        with ExitStack() as held:
            claim = claimed(out, self.manifest(), restart=restart)
            return self.fill(out, on_first_rank(lambda: held.enter_context(claim)), progress)

    def fill(self, out: Path, state: State, progress: Progress = silent) -> Covariance:
        """`run` in a folder that is claimed already, as `state` says."""
        if state == "done":
            return Covariance(out)
        self.check_room(out)
        manifest = self.manifest()
        began = time.monotonic()
        with quiet_inference():
            self._run(out, progress)

        def finish() -> None:
            sites = [s.to_json() for n in self.layers for s in read_sites(shard(out, n))]
            manifest.finished(seconds=round(time.monotonic() - began, 2), sites=sites).write(out)

        on_first_rank(finish)
        return Covariance(out)

    def check_room(self, out: Path) -> None:
        """Refuse before starting what could not finish in the memory and on the disk of this machine.

        Raises:
            UsageError: with the figures; or there are fewer batches than processes.
        """
        self._own_batches()
        written = sum(path.stat().st_size for path in out.glob("layer-*.safetensors"))
        weights = 0 if self.weights.keeps_all else self.plan.weights
        device, here = self.backbone.device, self.world.local_size
        check_room(self.plan, out, weights=weights, written=written, processes=here, device=device)

    def _run(self, out: Path, progress: Progress) -> None:
        mine = self._own_batches()
        present = on_first_rank(lambda: [n for n in self.layers if shard(out, n).exists()])
        pending = [n for n in self.layers if n not in present]
        groups = Group.split(pending, self.plan.at_once)
        on_disk = self.plan.hidden_on == "disk"
        folder = out / _HIDDEN / str(self.world.rank) if on_disk else None
        cache = HiddenCache(folder, self.backbone.device)
        streaming = self.whole or (len(groups) == 1 and self.weights.keeps_all)
        starts: dict[int, Start] = {}
        done = len(present)
        try:
            if groups and not streaming:
                with self.weights.outside():
                    for batch in mine:
                        starts[batch] = self._begin(batch)
                        cache.put(batch, starts[batch].hidden)
                        starts[batch].hidden = starts[batch].hidden.new_empty(0)
            for group in groups:
                taps = self._stream(group, mine) if streaming else self._sum_group(group, mine, starts, cache)
                for layer in group.summed:
                    self._write(out, layer, taps.pop(layer))
                    done += 1
                    progress(STAGE, done, len(self.layers), f"layer {layer}")
        finally:
            cache.clear()
        barrier()
        if self.world.first:  # a killed run with a smaller budget may have left some too
            shutil.rmtree(out / _HIDDEN, ignore_errors=True)

    def _own_batches(self) -> list[int]:
        """The batches of this rank.

        Raises:
            UsageError: fewer batches than processes.
        """
        batches, size = len(self.batches.groups), self.world.size
        if batches < size:
            raise UsageError(
                f"{batches} batches are too few for {size} processes", hint="--set calibrate.batch=1"
            )
        return list(range(self.world.rank, batches, size))

    def _begin(self, batch: int) -> Start:
        """Embeddings, vision tower and projector on one batch."""
        with self.weights.outside():
            return start(self.backbone.model, self.stack, self._inputs(batch))

    def _stream(self, group: Group, mine: list[int]) -> dict[int, LayerTaps]:
        """All layers in one go, batch by batch: nothing needs to be kept."""
        taps = {n: self._taps(self.linears[n]) for n in group.summed}
        for batch in mine:
            if self.whole:
                self._through_model(batch, taps)
                continue
            begun = self._begin(batch)
            hidden = begun.hidden
            for n in group.layers:
                hidden = self._through(n, batch, hidden, begun, taps.get(n))
        return taps

    def _through_model(self, batch: int, taps: Mapping[int, LayerTaps]) -> None:
        """The whole model on one batch, with taps on some of its layers."""
        inputs = self._inputs(batch)
        with ExitStack() as held, self._named(batch):
            for each in taps.values():
                held.enter_context(each).start(inputs["attention_mask"].bool())
            run_whole(self.backbone.model, self.stack, inputs)

    def _sum_group(
        self, group: Group, mine: list[int], starts: dict[int, Start], cache: HiddenCache
    ) -> dict[int, LayerTaps]:
        """A stretch of layers from the kept hidden states to the next ones."""
        taps = {n: self._taps(self.linears[n]) for n in group.summed}
        # weights that are here anyway: read and write the hidden states once per stretch
        stretches = [group.layers] if self.weights.keeps_all else [[n] for n in group.layers]
        for stretch in stretches:
            with self.weights.layer(stretch[0]) if len(stretch) == 1 else nullcontext():
                for batch in mine:
                    hidden = cache.get(batch)
                    for n in stretch:
                        hidden = self._through(n, batch, hidden, starts[batch], taps.get(n))
                    cache.put(batch, hidden)
        return taps

    def _through(self, n: int, batch: int, hidden: Tensor, begun: Start, taps: LayerTaps | None) -> Tensor:
        if taps is None:
            return run_layer(self.stack[n], hidden, begun.calls[n])
        with taps, self._named(batch):
            taps.start(begun.mask)
            result = run_layer(self.stack[n], hidden, begun.calls[n])
            taps.end()
        return result

    @contextmanager
    def _named(self, batch: int) -> Iterator[None]:
        """Errors inside the block name the batch's samples."""
        try:
            yield
        except DataError as error:
            ids = ", ".join(self.samples[i].id for i in self.batches.groups[batch])
            raise DataError(f"{error.message} (samples {ids})", where=error.where) from error

    def _write(self, out: Path, layer: int, taps: LayerTaps) -> None:
        for tap in taps.taps:
            tap.sum.reduce()

        def write() -> None:
            matrices, sites = {}, []
            for site, tap in zip(site_names([tap.linears for tap in taps.taps]), taps.taps, strict=True):
                packed = matrices[site] = tap.sum.packed()
                sites.append(
                    Site.measure(
                        packed,
                        layer=layer,
                        site=site,
                        linears=tap.linears,
                        d_in=tap.sum.d_in,
                        tokens=tap.sum.tokens,
                    )
                )
            write_shard(out, layer, matrices, sites)

        on_first_rank(write)

    def _chosen(self) -> dict[int, dict[str, nn.Linear]]:
        """The linears whose inputs are summed, by layer."""
        if self.choice is None:
            wanted_layers = parse_layers(self.section.layers, len(self.stack))
            return {n: self._all[n] for n in wanted_layers if n in self._all}
        wanted: dict[int, dict[str, nn.Linear]] = {}
        for site in self.choice.chosen:
            wanted.setdefault(site.layer, {}).update({n: self._all[site.layer][n] for n in site.linears})
        return dict(sorted(wanted.items()))

    def _taps(self, linears: Mapping[str, nn.Linear]) -> LayerTaps:
        dtype = getattr(torch, self.section.accumulate)

        def make(width: int) -> Accumulator:
            return Accumulator(width, dtype=dtype, device=self.backbone.device)

        return LayerTaps(linears, make, normalise=self.section.normalise == "max")

    def _inputs(self, batch: int) -> dict[str, Tensor]:
        return placed(self.backbone, self.batches.inputs(batch))

    def _within(self, linears: Iterable[str]) -> frozenset[str]:
        """Names of linears inside their layer."""
        return frozenset(map(self.backbone.family.within_layer, linears))

    def _needs_whole_passes(self) -> bool:
        """Whether the decoder layers cannot be run one by one, tried on a batch with images and one without.

        Raises:
            NotPlainStack: so it is, and the weights come from disk layer by layer.
        """
        seen: dict[bool, int] = {}
        for batch, group in enumerate(self.batches.groups):
            seen.setdefault(any(self.samples[i].images for i in group), batch)
        for batch in seen.values():
            if not self.weights.keeps_all:
                try:
                    self._begin(batch)
                except NotPlainStack as error:
                    raise NotPlainStack(error.message, hint="calibrate it without --offload") from error
            elif not is_plain_stack(self.backbone.model, self.stack, self._inputs(batch)):
                return True
        return False

    def _plan(self) -> Plan:
        """Find the sites of each kind of layer on the shortest batch, and count bytes."""
        alike: dict[frozenset[str], int] = {}  # layers with the same linears have the same sites
        for n, linears in self._all.items():
            alike.setdefault(self._within(linears), n)
        hidden = extra = 0
        taps = {n: self._taps(self._all[n]) for n in alike.values()}
        if self.whole:
            self._through_model(0, taps)
        else:
            begun = self._begin(0)
            for n in taps:
                with self.weights.layer(n):
                    self._through(n, 0, begun.hidden, begun, taps[n])
            share = -(-self.batches.padded // self.world.size)
            first = self.batches.lengths[self.batches.groups[0][-1]] * len(self.batches.groups[0])
            hidden = share * begun.hidden.shape[-1] * begun.hidden.element_size()
            extra = share * begun.extra_bytes // first
        sites = {
            kind: [(self._within(tap.linears), tap.sum.d_in) for tap in taps[n].taps]
            for kind, n in alike.items()
        }
        widths = [
            [
                d_in
                for readers, d_in in sites[self._within(self._all[n])]
                if readers & self._within(self.linears[n])
            ]
            for n in self.layers
        ]
        self.widest = max(max(each) for each in widths)
        return make_plan(
            widths=widths,
            samples=len(self.samples),
            tokens=self.batches.tokens,
            hidden=hidden,
            extra=extra,
            weights=self.weights.peak_bytes,
            budget=parse_bytes(self.section.memory),
            item=8 if self.section.accumulate == "float64" else 4,
            one_by_one=not self.weights.keeps_all,
        )


def _by_layer(backbone: Backbone) -> dict[int, dict[str, nn.Linear]]:
    """The adapted linears of each decoder layer, by full name."""
    found: dict[int, dict[str, nn.Linear]] = {}
    for name, module in language_linears(backbone.model, backbone.family).items():
        found.setdefault(backbone.family.layer_of(name), {})[name] = module
    return found


def calibrate(
    backbone: Backbone,
    samples: Sequence[Sample],
    section: CalibrateSection,
    out: Path,
    *,
    restart: bool = False,
    label: str = "",
    progress: Progress = silent,
) -> Covariance:
    """Sum the covariances of `samples` into the folder `out`.

    Raises:
        DataError: a broken sample, a non-finite activation, a model whose layers cannot be run alone.
        UsageError: `out` holds other settings, or memory or disk do not suffice.
    """
    job = Calibration(backbone, samples, section, label=label)
    return job.run(out, restart=restart, progress=progress)
