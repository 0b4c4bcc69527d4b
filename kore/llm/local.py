"""A local chat model of transformers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kore.errors import DataError, MissingArtefact
from kore.io.files import hash_file
from kore.llm.request import NoReply, Reply, Request


class LocalModel:
    """Generates replies with a causal language model that has a chat template, several at a time.

    Args:
        path: a folder, or a hub id in the local cache (nothing is downloaded, no remote code is run).
        batch: requests generated together, at most.
    """

    def __init__(self, path: str, *, temperature: float = 0.0, batch: int = 16) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.path = path
        self.temperature = temperature
        self._most = batch
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(path, local_files_only=True)
            self._model: Any = AutoModelForCausalLM.from_pretrained(path, local_files_only=True, dtype="auto")
        except (OSError, ValueError) as error:
            raise MissingArtefact(
                f"no chat model at {path}: {str(error).splitlines()[0]}",
                hint="hf: takes a folder or a hub id in the local cache",
            ) from error
        if not getattr(self._tokenizer, "chat_template", None):
            raise DataError("the model has no chat template", where=path)
        self._tokenizer.padding_side = "left"
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._place()
        self._waiting: list[tuple[list[dict[str, str]], int, asyncio.Future[Reply]]] = []
        self._working: asyncio.Task[None] | None = None

    def _place(self) -> None:
        import torch

        self._model.eval()
        if torch.cuda.is_available():
            self._model.to("cuda")

    @property
    def name(self) -> str:
        """``hf:`` and the model's own name: a moved folder is the same teacher."""
        return f"hf:{Path(self.path).name}"

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The hash of a local model's weights index or first weights file."""
        values: dict[str, Any] = {}
        folder = Path(self.path)
        if folder.is_dir():
            files = sorted([*folder.glob("*.index.json"), *folder.glob("*.safetensors")])
            values["weights"] = hash_file(files[0]) if files else None
        return values

    async def reply(self, request: Request) -> Reply:
        """Queue a request; whatever waits is generated together.

        The temperature is the model's: requests of one batch cannot differ in it.

        Raises:
            NoReply: the model wrote nothing.
        """
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        most = request.max_tokens or 3 * request.expected[1]
        self._waiting.append((request.with_schema_in_words(), most, future))
        if self._working is None or self._working.done():
            self._working = asyncio.create_task(self._work())
        reply = await future
        if not reply.text:
            raise NoReply("the reply is empty")
        return reply

    async def _work(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            try:
                replies = await asyncio.to_thread(
                    self._generate, [m for m, _, _ in batch], max(n for _, n, _ in batch)
                )
            except Exception as error:
                for _, _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, _, future), reply in zip(batch, replies, strict=True):
                if not future.done():
                    future.set_result(reply)

    def _generate(self, chats: list[list[dict[str, str]]], most: int) -> list[Reply]:
        import torch

        texts = [self._render(chat) for chat in chats]
        inputs = self._tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        inputs = {
            k: v.to(self._model.device) for k, v in inputs.items() if k in ("input_ids", "attention_mask")
        }
        options: dict[str, Any] = {"do_sample": self.temperature > 0}
        if self.temperature > 0:
            options["temperature"] = self.temperature
        with torch.inference_mode():
            ids = self._model.generate(
                **inputs, max_new_tokens=most, pad_token_id=self._tokenizer.pad_token_id, **options
            )
        new = ids[:, inputs["input_ids"].shape[1] :]
        taken = inputs["attention_mask"].sum(dim=1).tolist()
        made = (new != self._tokenizer.pad_token_id).sum(dim=1).tolist()
        ends = {self._tokenizer.eos_token_id, self._tokenizer.pad_token_id, *self._ends}
        answers = self._tokenizer.batch_decode(new, skip_special_tokens=True)
        return [
            Reply(text.strip(), int(a), int(b), "stop" if last in ends else "length")
            for text, a, b, last in zip(answers, taken, made, new[:, -1].tolist(), strict=True)
        ]

    @property
    def _ends(self) -> list[int]:
        ends = self._model.generation_config.eos_token_id
        return ends if isinstance(ends, list) else [ends]

    def _render(self, chat: list[dict[str, str]]) -> str:
        """The chat as text; a template that knows no system role gets it before the user's words."""
        from jinja2.exceptions import TemplateError

        try:
            text = self._tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        except TemplateError:
            joined = [{"role": "user", "content": f"{chat[0]['content']}\n\n{chat[1]['content']}"}, *chat[2:]]
            text = self._tokenizer.apply_chat_template(joined, tokenize=False, add_generation_prompt=True)
        return str(text)

    async def close(self) -> None:
        """Wait for the batch in work."""
        if self._working is not None:
            await self._working
