"""One generation engine for evaluation, chat, probes, the local teacher and the local judge.

Greedy unless a temperature is given; batches of like lengths, padded on the left. One copy of the
weights answers as the base (adapter off) and as the injected model (adapter on).

Runs under ``no_grad`` rather than ``inference_mode``: probes generate during training, and ZeRO-3 keeps small
gathered parameters for the next step, whose backward pass cannot save inference tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, RLock, Thread, main_thread
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import cross_entropy

from kore.data.records import IMAGE_MARK, Message, Sample
from kore.models.adapter_off import adapter_off
from kore.models.collate import collate
from kore.models.processing import IGNORED, Encoder

if TYPE_CHECKING:
    from kore.models.load import Backbone

WINDOW = 16  # batches encoded at a time: bounds memory, still lets like lengths meet

# Model folders bring generation settings that generate() follows unless told otherwise: Qwen2.5-VL's penalty
# on repeated words, Qwen2-VL's single candidate. Greedy and a temperature are to mean the same for all.
PLAIN: dict[str, Any] = {
    "num_beams": 1,
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "exponential_decay_length_penalty": None,
    "min_length": 0,
    "min_new_tokens": None,
    "guidance_scale": None,
}
WIDE: dict[str, Any] = {  # all words, each as likely as the temperature makes it
    "top_k": 0,
    "top_p": 1.0,
    "min_p": None,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
}


def overruled(model: Any) -> dict[str, Any]:
    """The model's own settings that its greedy answers do not follow (see `PLAIN`)."""
    own = getattr(model, "generation_config", None)
    found = {name: getattr(own, name, None) for name in PLAIN}
    return {name: value for name, value in found.items() if value is not None and value != PLAIN[name]}


@dataclass(frozen=True)
class Prompt:
    """What is asked: turns (ending with a human one) and the pictures of their marks, in order."""

    turns: tuple[Message, ...]
    images: tuple[Any, ...] = field(default=())

    @staticmethod
    def ask(text: str, images: Sequence[Any] = ()) -> Prompt:
        """One question about zero or more pictures, which stand before the text unless marked in it."""
        missing = len(images) - text.count(IMAGE_MARK)
        value = f"{IMAGE_MARK}\n" * missing + text
        return Prompt((Message(from_="human", value=value),), tuple(images))


class Engine:
    """Answers prompts with a backbone.

    Args:
        batch: prompts per generation batch.
        max_new_tokens: longest answer.
    """

    def __init__(self, backbone: Backbone, *, batch: int = 16, max_new_tokens: int = 128) -> None:
        self.backbone = backbone
        self.batch = batch
        self.max_new_tokens = max_new_tokens
        self.encoder = Encoder(backbone.processor)
        self._busy = RLock()  # one generation at a time: turning the adapter off changes the whole model

    @property
    def without_retrieval(self) -> Engine:
        """The engine that passes prompts to the model unchanged."""
        return self

    def answer(
        self,
        prompts: Sequence[Prompt],
        *,
        adapter: bool = True,
        temperature: float = 0.0,
        on_done: Callable[[int, str], None] | None = None,
    ) -> list[str]:
        """One answer per prompt, in order.

        Args:
            adapter: False answers with the untouched base.
            on_done: told ``(index, answer)`` as soon as a batch is through.
        """
        answers = [""] * len(prompts)
        with self._with(adapter):  # once, and not for each batch: it may copy every weight
            for first in range(0, len(prompts), self.batch * WINDOW):
                window = range(first, min(first + self.batch * WINDOW, len(prompts)))
                encoded = {i: self.encoder.prompt(prompts[i].turns, prompts[i].images) for i in window}
                order = sorted(window, key=lambda i: len(encoded[i]["input_ids"]))
                for start in range(0, len(order), self.batch):
                    chosen = order[start : start + self.batch]
                    texts = self._generate([encoded.pop(i) for i in chosen], temperature)
                    for index, text in zip(chosen, texts, strict=True):
                        answers[index] = text
                        if on_done:
                            on_done(index, text)
        return answers

    @contextmanager
    def _with(self, adapter: bool) -> Iterator[None]:
        """The model as it is, or as its untouched base, for this thread alone."""
        with self._busy:
            if adapter:
                yield
            else:
                with adapter_off(self.backbone.model):
                    yield

    def stream(
        self,
        prompt: Prompt,
        *,
        adapter: bool = True,
        temperature: float = 0.0,
        stop: Callable[[], bool] | None = None,
    ) -> Iterator[str]:
        """Pieces of one answer as they come; `stop` is called between tokens.

        Closing the generator ends the generation and waits for it, so that the next answer finds the
        adapter as it was.
        """
        from transformers import TextIteratorStreamer

        streamer: Any = TextIteratorStreamer(
            self.encoder.tokenizer, skip_prompt=True, skip_special_tokens=True, timeout=600.0
        )
        failure: list[BaseException] = []
        closed = Event()

        def ended() -> bool:
            # a generator that is still open when the program ends is never closed
            return closed.is_set() or not main_thread().is_alive() or (stop is not None and stop())

        def work() -> None:
            try:
                with self._with(adapter):
                    row = self.encoder.prompt(prompt.turns, prompt.images)
                    self._generate([row], temperature, streamer, ended)
            except BaseException as error:
                failure.append(error)
                streamer.end()

        # no daemon: the interpreter would end it inside torch, which aborts the process
        thread = Thread(target=work)
        thread.start()
        try:
            yield from (piece for piece in streamer if piece)
        finally:
            closed.set()
            thread.join()
        if failure:
            raise failure[0]

    def losses(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[float]:
        """How unexpected each known answer is after its prompt: mean cross-entropy, in nats a token.

        One prompt at a time, so that only the answer's logits are held in float32.
        """
        model = self.backbone.model
        training = model.training
        model.eval()
        found = []
        try:
            for prompt, answer in zip(prompts, answers, strict=True):
                turns = [*prompt.turns, Message(from_="gpt", value=answer)]
                sample = Sample(id="asked", image=list(map(str, prompt.images)), conversations=turns)
                inputs = collate([self.encoder.training(sample)], self.encoder.pad_id)
                labels = inputs.pop("labels")[0, 1:].to(self.backbone.device)  # (T-1,)
                with torch.no_grad():
                    logits = model(**{k: self._place(v) for k, v in inputs.items()}).logits[
                        0, :-1
                    ]  # (T-1, V)
                said = labels != IGNORED
                found.append(cross_entropy(logits[said].float(), labels[said]).item())
        finally:
            model.train(training)
        return found

    def _generate(
        self,
        rows: list[dict[str, Any]],
        temperature: float,
        streamer: Any = None,
        stop: Callable[[], bool] | None = None,
    ) -> list[str]:
        model = self.backbone.model
        inputs = collate(rows, self.encoder.pad_id, side="left")
        inputs = {k: self._place(v) for k, v in inputs.items() if k != "labels"}
        options = {**PLAIN, "do_sample": temperature > 0, "max_new_tokens": self.max_new_tokens}
        if temperature > 0:
            options |= {**WIDE, "temperature": temperature}
        if stop is not None:
            options["stopping_criteria"] = [
                lambda ids, scores, **_: torch.full((len(ids),), stop(), device=ids.device)
            ]
        training = model.training
        model.eval()
        try:
            with torch.no_grad():
                ids = model.generate(**inputs, **options, pad_token_id=self.encoder.pad_id, streamer=streamer)
        finally:
            model.train(training)
        new = ids[:, inputs["input_ids"].shape[1] :]
        return [t.strip() for t in self.encoder.tokenizer.batch_decode(new, skip_special_tokens=True)]

    def _place(self, value: torch.Tensor) -> torch.Tensor:
        dtype = self.backbone.model.dtype if value.is_floating_point() else value.dtype
        return value.to(self.backbone.device, dtype)
