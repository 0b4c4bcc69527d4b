"""Every setting of a run, by section, with its default; each is documented by the line below it.

`kore.config.resolve` fills them from a file, the environment and flags.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

ONEVISION_SUBSETS = ("Geometry3K(MathV360K)", "iiit5k", "VizWiz(MathV360K)", "FigureQA(MathV360K)")
"""Subsets of LLaVA-OneVision-Data that stand for general knowledge: fetched, drawn from, counted."""


class Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=()
    )


class ModelSection(Section):
    id: str = "kore-tiny"
    """A folder, a hub id, or kore-tiny, the embedded base."""
    architecture: str | None = None
    """A configuration folder shipped with KORE (kore/models/architectures): counts without weights."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto: float32 on a CPU, bfloat16 on a GPU."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: the GPU if there is one."""
    quantisation: Literal["none", "8bit", "4bit"] = "none"
    """By bitsandbytes while the base is loaded; the adapter needs no change to it."""
    max_pixels: int | None = None
    """Upper limit on a picture's pixels, for families that resize freely (Qwen2.5-VL)."""
    vision_select_layer: int | None = None
    """The vision tower's layer that is read (LLaVA: -2)."""


class HttpImages(Section):
    url: str | None = None
    """Search address with {query} and {count}; {NAME} in capitals is read from the environment."""
    key_header: str | None = None
    """Header that carries the key."""
    key_param: str | None = None
    """Query parameter that carries the key."""
    key_env: str | None = None
    """Environment variable that holds the key."""
    results: str = "items"
    """Path to the list of results in the JSON answer, dots between keys."""
    link: str = "link"
    """Path to a result's picture address."""
    licence: str | None = None
    """Path to a result's licence, if it has one."""
    page: str | None = None
    """Path to the address of the page that shows the picture."""


class AugmentSection(Section):
    strategy: Literal["kore", "none", "text-aware", "text-agnostic", "image-aware", "image-agnostic"] = "kore"
    """kore: the knowledge tree; the others are the plain augmentations of the paper's Table 6."""
    teacher: str | None = None
    """openai:MODEL, hf:PATH, offline or replay:FILE; there is no silent default."""
    base_url: str | None = None
    """Any OpenAI-compatible server; default: OpenAI's own."""
    temperature: float = 0.7
    """Sampling temperature of the teacher."""
    questions: int = Field(default=10, ge=0, le=50)
    """At most this many questions in the trunk's dialogue."""
    answers: Literal["batched", "each"] = "batched"
    """One call for all answers, or the paper's one call per answer."""
    vqa: int = Field(default=5, ge=0, le=50)
    """At most this many VQA quadruplets per item."""
    images: str = "none"
    """local:DIR, commons, http or none."""
    candidates: int = Field(default=5, ge=1)
    """Pictures to look at per search."""
    encoder: str = "classic"
    """classic, or clip:MODEL/TAG or clip:MODEL/FILE (open-clip)."""
    negatives: float = Field(default=0.0, ge=0.0, le=1.0)
    """Share of items that also get a recognition question answered No."""
    grounding: Literal["drop", "flag", "off"] = "drop"
    """What to do with answers that the item's text does not support."""
    judge: str | None = None
    """A teacher to ask whether the text supports an answer; none: rules only."""
    forest: bool = False
    """Link items that share entities and add questions across two of them."""
    copies: int = Field(default=1, ge=1)
    """Wordings per branch; also the number of samples of a plain augmentation."""
    concurrency: int = Field(default=16, ge=1)
    """Calls in flight."""
    requests_per_minute: int | None = None
    """Token bucket for requests."""
    tokens_per_minute: int | None = None
    """Token bucket for tokens."""
    price_in: float | None = None
    """Money per million input tokens."""
    price_out: float | None = None
    """Money per million output tokens."""
    max_cost: float | None = None
    """Stop cleanly before more is spent on one output folder, whatever the number of runs."""
    timeout: float = 60.0
    """Seconds per call."""
    retries: int = Field(default=6, ge=0)
    """Further tries of a call that failed, was refused or came back unreadable."""
    longest_wait: float = Field(default=120.0, gt=0)
    """Seconds to wait at most before the next try when a server asks for more (Retry-After)."""
    near: float = Field(default=0.99, gt=0, le=1)
    """Pictures more alike than this count as the same one."""
    private_addresses: bool = False
    """Allow downloads from private and loopback addresses."""
    templates: str | None = None
    """A TOML file with your own templates."""
    http: HttpImages = HttpImages()


class CalibrateSection(Section):
    samples: list[str] = ["demo"]
    """Sources: demo[:SUITE], onevision, FILE.jsonl, bench:NAME, each with an optional :COUNT."""
    count: int = Field(default=256, ge=1)
    """Samples per source that names no count (onevision: over its four categories)."""
    with_answers: bool = False
    """Add the answer tokens to the question's."""
    batch: int = Field(default=8, ge=1)
    """Samples per forward pass."""
    memory: str = "8GiB"
    """Budget for covariances and cached hidden states."""
    normalise: Literal["none", "max"] = "none"
    """max divides each sample by its largest activation, as the released code does."""
    layers: str = "all"
    """all, a range such as 0-3, a list, or auto[:SHARE]: the inputs that matter most to the new samples."""
    new: str | None = None
    """New samples (JSONL), which layers = auto looks at; kore inject knows its own."""
    seed: int = 233
    """Which samples of a source are drawn."""
    held_out: int = Field(default=0, ge=0)
    """More samples per source, left out of the sums, to measure how much they would be disturbed."""
    onevision: str | None = None
    """A local copy of LLaVA-OneVision-Data; default: the folder onevision in KORE_DATA."""
    accumulate: Literal["float64", "float32"] = "float64"
    """Type of the running sum; the products are float32."""


class AdapterSection(Section):
    rank: int | Literal["auto"] = 16
    """Rank r, or auto (by the energy that the old covariance leaves)."""
    budget: str | None = None
    """Trainable parameters to spend instead of a rank, e.g. 340M."""
    keep: float | None = Field(default=None, gt=0, le=1)
    """Share of old-input energy to leave untouched, per layer, instead of one rank."""
    basis: Literal["paper", "contrast"] = "paper"
    """Which null directions: the r smallest, or those that carry most of the new samples."""
    contrast: float = Field(default=0.5, ge=0, le=1)
    """0: the paper's directions; 1: only the new samples count."""
    solver: Literal["auto", "exact", "fast"] = "auto"
    """Eigen-solver for the smallest directions; auto: exact, but fast for wide sites on a CPU."""
    layers: str = "all"
    """all that was calibrated, a range or a list."""
    scale: float = Field(default=1.0, gt=0)
    """Multiplies A: 1 is the paper's."""

    @property
    def known_rank(self) -> int | None:
        """The rank, unless a budget sets another; None where only a covariance of old inputs can tell."""
        return None if self.rank == "auto" or self.keep is not None else self.rank


class TrainSection(Section):
    method: str = "kore"
    """kore lora full replay ewc lwf moelora olora sefe cia."""
    lr: float = Field(default=2e-4, gt=0)
    """Learning rate of the adapter."""
    projector: Literal["off"] | Annotated[float, Field(gt=0)] = "off"
    """off, or the projector's own learning rate."""
    epochs: float = Field(default=6, gt=0)
    """Passes over the data."""
    max_steps: int | None = Field(default=None, ge=1)
    """Stop after this many optimiser steps."""
    batch: int = Field(default=16, ge=1)
    """Global batch: samples per optimiser step over all devices."""
    micro_batch: int | None = Field(default=None, ge=1)
    """Samples per device and forward pass; the rest is accumulated."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Learning rate schedule."""
    warmup: float = Field(default=0.03, ge=0, lt=1)
    """Share of the steps that warm up."""
    weight_decay: float = Field(default=0.0, ge=0)
    """0 in the paper; anything else breaks the equivalence with the residual form."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradient clipping."""
    max_length: int = Field(default=2048, ge=16)
    """Tokens per sample; longer ones are an error that names the sample."""
    group_by_length: bool = True
    """Batches of like lengths."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass."""
    zero: Literal[0, 1, 2, 3] = 0
    """DeepSpeed ZeRO stage; 0 is plain data parallel."""
    deepspeed: dict[str, Any] = {}
    """DeepSpeed settings that replace those derived from this section, section by section."""
    save_steps: int = Field(default=100, ge=1)
    """Steps between checkpoints."""
    seed: int = 0
    """Order of data, initialisation, dropout."""
    thaw_a: bool = False
    """Ablation: train A too (residual form)."""
    constraint: bool = True
    """Ablation: false gives kore's data with plain LoRA's random A."""
    probe_steps: int | None = Field(default=None, ge=1)
    """Steps between probes; default: within probe_share of the time."""
    probe_share: float = Field(default=0.02, ge=0, le=1)
    """Share of the training time that probes may take."""
    keep: float | None = Field(default=None, gt=0, le=1)
    """Alarm: below this share of the base's score on the old probes the run stops."""
    on_alarm: Literal["stop", "best"] = "stop"
    """Stop, or go back to the best checkpoint."""
    sinks: list[Literal["tensorboard", "trackio", "wandb"]] = []
    """Besides the event log."""


class EvalSection(Section):
    suites: list[str] = []
    """Suites that kore eval runs when none is named."""
    protocol: Literal["vlmeval", "llava-native"] = "vlmeval"
    """Whose prompts and rules."""
    batch: int = Field(default=16, ge=1)
    """Questions per generation batch."""
    max_new_tokens: int = Field(default=128, ge=1)
    """Longest answer."""
    judge: str = "none"
    """none, openai:MODEL, hf:PATH, replay:FILE."""
    judge_base_url: str | None = None
    """The judge's server."""
    judge_longest_wait: float = Field(default=120.0, gt=0)
    """Seconds to wait at most before the next try when the judge's server asks for more (Retry-After)."""


class Profile(Section):
    """All settings of a run."""

    description: str = ""
    """One line for kore profiles list."""
    model: ModelSection = ModelSection()
    augment: AugmentSection = AugmentSection()
    calibrate: CalibrateSection = CalibrateSection()
    adapter: AdapterSection = AdapterSection()
    train: TrainSection = TrainSection()
    method: dict[str, dict[str, Any]] = {}
    """Settings of single methods: [method.ewc] and so on; checked by the method itself."""
    eval: EvalSection = EvalSection()
