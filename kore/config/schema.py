"""The settings of a run: sections, types, defaults. The line below a setting is its documentation.

`kore.config.resolve` fills them from a file, the environment and flags.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

ONEVISION_SUBSETS = ("Geometry3K(MathV360K)", "iiit5k", "VizWiz(MathV360K)", "FigureQA(MathV360K)")
"""Subsets of LLaVA-OneVision-Data that represent general knowledge."""


class Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=()
    )


class ModelSection(Section):
    id: str = "kore-tiny"
    """Model folder, hub id, or kore-tiny (the built-in base)."""
    architecture: str | None = None
    """Architecture shipped with KORE, to count parameters without weights."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type of the weights; auto: float32 on a CPU, bfloat16 on a GPU."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where the model runs; auto: CUDA, then Apple's MPS (untested), then the CPU."""
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2", "flex_attention"] = "auto"
    """Attention implementation of transformers; auto: its default for the model."""
    quantisation: Literal["none", "8bit", "4bit"] = "none"
    """Quantise the base with bitsandbytes while it is loaded."""
    max_pixels: int | None = None
    """Largest number of pixels per image, for families that resize freely (Qwen-VL)."""
    vision_select_layer: int | None = None
    """Layer of the vision tower that is read (LLaVA: -2)."""


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
    """Path to a result's image address."""
    licence: str | None = None
    """Path to a result's licence, if it has one."""
    page: str | None = None
    """Path to the address of the page that shows the image."""


class AugmentSection(Section):
    strategy: Literal["kore", "none", "text-aware", "text-agnostic", "image-aware", "image-agnostic"] = "kore"
    """kore: the knowledge tree; the others are the baselines of the paper's Table 6."""
    teacher: str | None = None
    """Who writes the tree: openai:MODEL (key in OPENAI_API_KEY), hf:PATH, offline (rules) or replay:FILE."""
    base_url: str | None = None
    """OpenAI-compatible server, e.g. http://localhost:11434/v1; default: OpenAI."""
    temperature: float = 0.7
    """Sampling temperature of the teacher."""
    questions: int = Field(default=10, ge=0, le=50)
    """Most questions in an item's dialogue."""
    answers: Literal["batched", "each"] = "batched"
    """One call for all answers, or one call per answer as in the paper."""
    vqa: int = Field(default=5, ge=0, le=50)
    """Most visual questions per item."""
    images: str = "none"
    """Source of further images: local:DIR, commons, http or none."""
    candidates: int = Field(default=5, ge=1)
    """Images to consider per search."""
    encoder: str = "classic"
    """Image similarity: classic, clip:MODEL/TAG or clip:MODEL/FILE (open-clip)."""
    names: bool | None = None
    """Also ask for each entity's name as a short answer; kore inject does by default."""
    negatives: float = Field(default=0.0, ge=0.0, le=1.0)
    """Share of items with a recognition question whose answer is No."""
    grounding: Literal["drop", "flag", "off"] = "drop"
    """What happens to answers that the item's text does not support."""
    judge: str | None = None
    """Teacher that checks whether the text supports an answer; none: rules only."""
    forest: bool = False
    """Link items that share entities, and add questions about two of them."""
    copies: int = Field(default=1, ge=1)
    """Phrasings per branch, or samples per item of a baseline."""
    concurrency: int = Field(default=16, ge=1)
    """Concurrent calls."""
    requests_per_minute: int | None = None
    """Limit of requests per minute."""
    tokens_per_minute: int | None = None
    """Limit of tokens per minute."""
    price_in: float | None = None
    """Price of a million input tokens."""
    price_out: float | None = None
    """Price of a million output tokens."""
    max_cost: float | None = None
    """Stop (exit code 6) before more is spent on one output folder, over all runs."""
    timeout: float = 60.0
    """Seconds per call."""
    retries: int = Field(default=6, ge=0)
    """Retries of a call that failed or whose reply cannot be read."""
    longest_wait: float = Field(default=120.0, gt=0)
    """Seconds to wait at most before the next try when a server asks for more (Retry-After)."""
    near: float = Field(default=0.99, gt=0, le=1)
    """Images with a higher similarity count as the same."""
    private_addresses: bool = False
    """Allow downloads from private and loopback addresses."""
    templates: str | None = None
    """TOML file with your own phrasings and prompts."""
    http: HttpImages = HttpImages()


class CalibrateSection(Section):
    samples: list[str] = ["demo"]
    """Old samples to protect: demo[:SUITE], onevision, FILE.jsonl, bench:NAME, self (the model writes them)
    or, in kore inject, neighbours (the items' questions about known things); each may end in :COUNT."""
    count: int = Field(default=256, ge=1)
    """Samples per source without a :COUNT."""
    with_answers: bool = False
    """Include answer tokens, not only prompts."""
    batch: int = Field(default=8, ge=1)
    """Samples per forward pass."""
    memory: str = "8GiB"
    """Memory for covariances and cached hidden states."""
    normalise: Literal["none", "max"] = "none"
    """max: divide each sample by its largest activation, as the released code does."""
    layers: str = "all"
    """Layers to calibrate: all, a range (0-3), a list, or auto[:SHARE] (those that new samples use most)."""
    new: str | None = None
    """New samples (JSONL) for layers = auto; kore inject passes its own."""
    neighbours: str | None = None
    """Names (one a line) for the samples neighbours[:COUNT] of kore inject; default: the base names some."""
    seed: int = 233
    """Seed of the draw of samples."""
    held_out: int = Field(default=0, ge=0)
    """Further samples per source, kept out of the covariance to measure interference."""
    onevision: str | None = None
    """Local copy of LLaVA-OneVision-Data; default: the folder onevision in KORE_DATA."""
    accumulate: Literal["float64", "float32"] = "float64"
    """Type of the running sums; products are float32."""


class AdapterSection(Section):
    rank: int | Literal["auto"] = 16
    """Rank of the adapter, or auto (by the energy that old inputs leave free)."""
    budget: str | None = None
    """Number of trainable parameters instead of a rank, e.g. 340M."""
    keep: float | None = Field(default=None, gt=0, le=1)
    """Share of old-input energy to leave untouched in each layer, instead of one rank, e.g. 0.95."""
    basis: Literal["paper", "contrast"] = "paper"
    """Null directions: the paper's (smallest eigenvalues), or those that new samples use most."""
    contrast: float = Field(default=0.5, ge=0, le=1)
    """Lean towards directions that new samples use: 0 is the paper's choice, 1 ignores old samples."""
    solver: Literal["auto", "exact", "fast"] = "auto"
    """Eigen-solver: exact, fast, or auto (fast for wide layers on a CPU)."""
    layers: str = "all"
    """Layers to adapt: all that were calibrated, a range or a list."""
    scale: float = Field(default=1.0, gt=0)
    """Factor on A; the paper uses 1."""

    @property
    def known_rank(self) -> int | None:
        """The rank, unless a budget sets another; None where only a covariance of old inputs can tell."""
        return None if self.rank == "auto" or self.keep is not None else self.rank


class TrainSection(Section):
    method: str = "kore"
    """Training method: kore, lora, full, replay, ewc, lwf, moelora, olora, sefe or cia."""
    lr: float = Field(default=2e-4, gt=0)
    """Learning rate of the adapter."""
    projector: Literal["off"] | Annotated[float, Field(gt=0)] = "off"
    """off, or the learning rate of the projector."""
    epochs: float = Field(default=6, gt=0)
    """Number of passes over the data."""
    max_steps: int | None = Field(default=None, ge=1)
    """Stop after N optimiser steps."""
    batch: int = Field(default=16, ge=1)
    """Samples per optimiser step, over all devices."""
    micro_batch: Literal["auto"] | Annotated[int, Field(ge=1)] | None = None
    """Samples per device and forward pass, accumulated up to the batch; auto: as many as fit."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Learning rate schedule."""
    warmup: float = Field(default=0.03, ge=0, lt=1)
    """Share of the steps used for warm-up."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Weight decay; the paper uses 0."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradient clipping."""
    max_length: int = Field(default=2048, ge=16)
    """Tokens per sample: template, text and pictures."""
    on_long: Literal["error", "drop", "truncate"] = "error"
    """Samples that are longer: an error that lists them, left out, or cut at the end of their last answer."""
    workers: Literal["auto"] | Annotated[int, Field(ge=0)] = "auto"
    """Processes that read and process images; auto: none for small runs, else by cores."""
    cache_gib: float = Field(default=2.0, ge=0)
    """GiB of memory for processed samples; where all fit, each is processed once."""
    disk_cache_gib: float = Field(default=0.0, ge=0)
    """GiB of disk in the run folder for processed samples that exceed the memory; removed at the end."""
    group_by_length: bool = True
    """Batch samples of similar length."""
    gradient_checkpointing: Literal["auto"] | bool = "auto"
    """Recompute activations in the backward pass; auto: where the memory estimate needs it."""
    tf32: Literal["auto"] | bool = "auto"
    """Let float32 products use TF32 while training; auto: on GPUs that have it."""
    fused: Literal["auto"] | bool = "auto"
    """AdamW as one fused kernel; auto: on CUDA without ZeRO."""
    zero: Literal[0, 1, 2, 3] = 0
    """DeepSpeed ZeRO stage; 0: data parallel without DeepSpeed."""
    deepspeed: dict[str, Any] = {}
    """DeepSpeed settings that replace the derived ones, section by section."""
    save_steps: int = Field(default=100, ge=1)
    """Steps between checkpoints."""
    seed: int = 0
    """Seed of data order, initialisation and dropout."""
    thaw_a: bool = False
    """Ablation: train A as well (residual form)."""
    constraint: bool = True
    """Constrain A to the null space; off is the ablation with a random A."""
    probe_steps: int | None = Field(default=None, ge=1)
    """Steps between probes; default: as probe_share allows."""
    probe_share: float = Field(default=0.02, ge=0, le=1)
    """Share of training time for probes; 0: none, unless probe_steps is set."""
    keep: float | None = Field(default=None, gt=0, le=1)
    """Alarm when old probes fall below this share of the base's score, e.g. 0.95."""
    on_alarm: Literal["stop", "best"] = "stop"
    """What an alarm does: stop, or return to the best checkpoint."""
    sinks: list[Literal["tensorboard", "trackio", "wandb"]] = []
    """Loggers besides the event log."""


class EvalSection(Section):
    suites: list[str] = []
    """Suites to evaluate when none is named."""
    protocol: Literal["vlmeval", "llava-native"] = "vlmeval"
    """Prompts and rules: vlmeval, or llava-native (four benchmarks)."""
    batch: int = Field(default=16, ge=1)
    """Prompts per generation batch."""
    max_new_tokens: int = Field(default=128, ge=1)
    """Longest answer in tokens."""
    judge: str = "none"
    """Judge for free answers: none, openai:MODEL, hf:PATH or replay:FILE."""
    judge_base_url: str | None = None
    """OpenAI-compatible server of the judge."""
    judge_longest_wait: float = Field(default=120.0, gt=0)
    """Seconds to wait at most before the next try when the judge's server asks for more (Retry-After)."""


class Profile(Section):
    """All settings of a run."""

    description: str = ""
    """One line for `kore profiles list`."""
    model: ModelSection = ModelSection()
    augment: AugmentSection = AugmentSection()
    calibrate: CalibrateSection = CalibrateSection()
    adapter: AdapterSection = AdapterSection()
    train: TrainSection = TrainSection()
    method: dict[str, dict[str, Any]] = {}
    """Settings of single methods, e.g. [method.ewc]; checked by the method."""
    eval: EvalSection = EvalSection()
