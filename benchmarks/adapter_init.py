"""Adapter initialisation of one LLaMA-7B-shaped decoder layer: KORE, PEFT's CorDA, the reference algorithm.

    python benchmarks/adapter_init.py              # widths 4096 and 11008, rank 235; about ten minutes
    python benchmarks/adapter_init.py --quick      # small widths, seconds

Every distinct piece of work is timed once, on the same matrices, and counted as often as the layer needs it:
  reference  for each of the seven linears a full SVD of C (float32), P = U U^T of its last r columns, and
             the SVD of W0 P
  peft       for each of the seven linears PEFT's own `collect_eigens_for_layer`: inverse of C, SVD of W0 C
             (needs the package attrs)
  kore       for each of the four distinct inputs `null_basis` (exact; fast at the large width), for each of
             the seven linears `adapter_factors`
C is Q diag(v) Q^T with a known, slowly falling spectrum v (i^-1.2, the first four values ten times that) and
a dense orthogonal Q (a cosine transform with random signs), so that the least energy that r directions can
hold is known without any solver. Weights are random. With one thread (the default) the seconds are the
process's own, so that a busy machine does not count.

Finished pieces are kept in --work: after a stop (--minutes, or a kill) the same command goes on with the
rest. The result is written when all are there; with --extrapolate the reference's SVD of the large C may be
missing and is taken as the small one's times the cube of the widths' ratio, and marked so.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parents[1] / "docs" / "results" / "constraint" / "adapter_init.json"
SEED = 5


@dataclass(frozen=True)
class Layer:
    """Widths of a decoder layer and what it takes of each piece.

    Attributes:
        d: hidden width, which q, k, v, o, gate and up read. inner: width that down reads.
    """

    d: int
    inner: int
    rank: int

    @property
    def shapes(self) -> dict[tuple[int, int], int]:
        """(d_out, d_in) of the linears, with how many there are: q k v o, gate up, down."""
        return {(self.d, self.d): 4, (self.inner, self.d): 2, (self.d, self.inner): 1}

    def pieces(self) -> dict[str, tuple[str, int]]:
        """Piece -> (method, times that the layer takes it), quick ones first."""
        found: dict[str, tuple[str, int]] = {}
        for width, sites, linears in ((self.d, 3, 6), (self.inner, 1, 1)):
            found[f"basis {width}"] = ("kore", sites)
            found[f"svd C {width}"] = ("reference", linears)
        for (rows, columns), count in self.shapes.items():
            found[f"factors {rows}x{columns}"] = ("kore", count)
            found[f"svd WP {rows}x{columns}"] = ("reference", count)
            found[f"eigens {rows}x{columns}"] = ("peft", count)
        order = ("kore", "peft", "reference")
        return dict(sorted(found.items(), key=lambda item: (order.index(item[1][0]), "svd WP" in item[0])))


def spectrum(width: int) -> Any:
    """The eigenvalues, largest first."""
    import numpy

    values = numpy.arange(1, width + 1, dtype=float) ** -1.2
    values[:4] *= 10
    return values


def covariance(width: int) -> Any:
    """C, (d, d) float64, with the eigenvalues of `spectrum`."""
    import numpy
    import torch
    from scipy import fft

    dense = fft.idct(numpy.diag(spectrum(width)), axis=0, norm="ortho", overwrite_x=True)
    dense = fft.idct(dense, axis=1, norm="ortho", overwrite_x=True)
    signs = numpy.sign(numpy.random.default_rng(SEED).standard_normal(width))
    dense *= signs[:, None] * signs
    c = torch.from_numpy(dense)
    return c.add_(c.T.clone()).div_(2)


def weight(rows: int, columns: int) -> Any:
    """W0, (d_out, d_in) float32."""
    import torch

    made = torch.Generator().manual_seed(SEED)
    return torch.randn(rows, columns, generator=made) / columns**0.5


def energy(c: Any, vectors: Any) -> float:
    """Share of C's energy in the columns' span, tr(Q^T C Q) / tr C."""
    import torch

    basis, _ = torch.linalg.qr(vectors.double())
    return float((basis * (c @ basis)).sum() / c.diagonal().sum())


class Bench:
    """Times pieces and keeps what later ones need."""

    def __init__(self, layer: Layer, work: Path, threads: int) -> None:
        self.layer = layer
        self.work = work
        self.threads = threads
        self._held: tuple[int, Any] = (0, None)

    def run(self, name: str) -> dict[str, Any]:
        """Time one piece, and judge the directions that it found."""
        kind, _, size = name.rpartition(" ")
        rows, _, columns = size.rpartition("x")
        work: Callable[[], Any]
        if kind == "basis":
            work = self._basis(int(columns))
        elif kind == "svd C":
            work = self._reference(int(columns))
        elif kind == "factors":
            work = self._factors(int(rows), int(columns))
        elif kind == "svd WP":
            work = self._projected(int(rows), int(columns))
        else:
            work = self._corda(int(rows), int(columns))
        began, spent = time.perf_counter(), time.process_time()
        result = work()
        wall, own = time.perf_counter() - began, time.process_time() - spent
        row = {"seconds": own if self.threads == 1 else wall, "wall": wall}
        return {**row, **self._judge(kind, int(columns), result)}

    def _c(self, width: int) -> Any:
        if self._held[0] != width:
            self._held = (0, None)
            self._held = (width, covariance(width))
        return self._held[1]

    def _directions(self, who: str, width: int) -> Any:
        from safetensors.torch import load_file

        return load_file(self.work / f"{who}-{width}.safetensors")["vectors"]

    def _basis(self, width: int) -> Callable[[], Any]:
        from kore.nullspace.basis import null_basis

        c = self._c(width)
        solver = "exact" if width == self.layer.d else "fast"
        return lambda: null_basis(c, self.layer.rank, solver=solver)

    def _factors(self, rows: int, columns: int) -> Callable[[], Any]:
        from kore.nullspace.basis import adapter_factors

        w, vectors = weight(rows, columns), self._directions("kore", columns)
        return lambda: adapter_factors(w, vectors)

    def _reference(self, width: int) -> Callable[[], Any]:
        import torch

        c = self._c(width).float()
        return lambda: torch.linalg.svd(c)[0][:, -self.layer.rank :].contiguous()

    def _projected(self, rows: int, columns: int) -> Callable[[], Any]:
        import torch

        w, vectors = weight(rows, columns), self._directions("reference", columns)

        def work() -> Any:
            left, values, right = torch.linalg.svd(w @ (vectors @ vectors.T), full_matrices=False)
            root = values[: self.layer.rank].sqrt()
            return left[:, : self.layer.rank] * root, root[:, None] * right[: self.layer.rank]

        return work

    def _corda(self, rows: int, columns: int) -> Callable[[], Any]:
        import torch
        from peft.tuners.lora.corda import collect_eigens_for_layer

        linear: Any = torch.nn.Linear(columns, rows, bias=False, device="meta")
        linear.weight = torch.nn.Parameter(weight(rows, columns), requires_grad=False)
        linear.covariance_matrix = self._c(columns).float()
        return lambda: collect_eigens_for_layer(linear, None)  # type: ignore[arg-type]

    def _judge(self, kind: str, width: int, result: Any) -> dict[str, Any]:
        from safetensors.torch import save_file

        if kind == "basis":
            save_file({"vectors": result.vectors}, self.work / f"kore-{width}.safetensors")
            found = {name: getattr(result, name) for name in ("solver", "residual", "orthonormality")}
            return {**found, "energy": energy(self._c(width), result.vectors)}
        if kind == "svd C":
            save_file({"vectors": result}, self.work / f"reference-{width}.safetensors")
            return {"energy": energy(self._c(width), result)}
        if kind == "eigens":
            return {"energy": energy(self._c(width), result.V_WC[:, -self.layer.rank :])}
        return {}


def summary(layer: Layer, done: dict[str, Any]) -> dict[str, Any]:
    """Totals of the layer, ratios, energies over the optimum."""
    totals = {"kore": 0.0, "peft": 0.0, "reference": 0.0}
    for name, (method, count) in layer.pieces().items():
        totals[method] += count * done[name]["seconds"]
    energies = {}
    for width in (layer.d, layer.inner):
        values = spectrum(width)
        best = float(values[-layer.rank :].sum() / values.sum())
        row = {"optimum": best, "kore": done[f"basis {width}"]["energy"]}
        row["reference"] = done[f"svd C {width}"].get("energy")
        row["peft"] = done[f"eigens {layer.d}x{width}"]["energy"]
        energies[str(width)] = row
    return {
        "seconds": totals,
        "faster_than": {name: totals[name] / totals["kore"] for name in ("reference", "peft")},
        "energy": energies,
        "extrapolated": [name for name, row in done.items() if row.get("extrapolated")],
    }


def lines(layer: Layer, done: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """The tables for people."""
    made = [f"{'piece':24} {'method':10} {'times':>5} {'seconds each':>13}"]
    for name, (method, count) in layer.pieces().items():
        mark = "  extrapolated" if done[name].get("extrapolated") else ""
        made.append(f"{name:24} {method:10} {count:5d} {done[name]['seconds']:13.2f}{mark}")
    made += ["", *(f"{name:10} {value:9.1f} s a layer" for name, value in found["seconds"].items())]
    made += [f"kore is {value:.1f} times faster than {name}" for name, value in found["faster_than"].items()]
    for width, row in found["energy"].items():
        over = {n: f"{v / row['optimum']:.4f}" for n, v in row.items() if n != "optimum" and v is not None}
        made.append(f"width {width}: old energy over the optimum {row['optimum']:.3e}: {over}")
    return made


def main() -> int:
    """Time what is missing, then sum up."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--inner", type=int, default=11008)
    parser.add_argument("--rank", type=int, default=235)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no piece after so many")
    parser.add_argument(
        "--only", choices=["kore", "peft", "reference"], help="time only this method's pieces"
    )
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "kore-adapter-init")
    parser.add_argument("--restart", action="store_true", help="forget the pieces that are kept")
    parser.add_argument("--extrapolate", action="store_true", help="do without the SVD of the large C")
    parser.add_argument("--quick", action="store_true", help="widths 512 and 1376, rank 29; writes no result")
    parser.add_argument("--json", action="store_true", help="print the object instead of the tables")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.width, arguments.inner, arguments.rank = 512, 1376, 29
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(arguments.threads)
    layer = Layer(arguments.width, arguments.inner, arguments.rank)
    work = arguments.work / f"{layer.d}-{layer.inner}-{layer.rank}-{arguments.threads}"
    work.mkdir(parents=True, exist_ok=True)
    kept = work / "pieces.json"
    done: dict[str, Any] = json.loads(kept.read_text()) if kept.is_file() and not arguments.restart else {}
    bench, began = Bench(layer, work, arguments.threads), time.monotonic()
    wide = f"svd C {layer.inner}"
    for name, (method, _) in layer.pieces().items():
        skipped = arguments.extrapolate and name in (wide, f"svd WP {layer.d}x{layer.inner}")
        if name in done or skipped or arguments.only not in (None, method):
            continue
        if time.monotonic() - began > 60 * arguments.minutes:
            break
        done[name] = bench.run(name)
        kept.write_text(json.dumps(done, indent=1))
        print(f"{name}: {done[name]['seconds']:.2f} s", file=sys.stderr, flush=True)
    if arguments.extrapolate:
        cube = (layer.inner / layer.d) ** 3
        done.setdefault(wide, {"seconds": cube * done[f"svd C {layer.d}"]["seconds"], "extrapolated": True})
        done.setdefault(
            f"svd WP {layer.d}x{layer.inner}",
            {**done[f"svd WP {layer.inner}x{layer.d}"], "extrapolated": True},
        )
    missing = [name for name in layer.pieces() if name not in done]
    if missing:
        print(f"still to be timed: {', '.join(missing)}; the same command resumes", file=sys.stderr)
        return 1
    found = summary(layer, done)
    result = {
        "command": "python benchmarks/adapter_init.py" + (" --extrapolate" if found["extrapolated"] else ""),
        "width": layer.d,
        "inner": layer.inner,
        "rank": layer.rank,
        "threads": arguments.threads,
        **found,
        "pieces": done,
    }
    if not arguments.quick:
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1) if arguments.json else "\n".join(lines(layer, done, found)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
