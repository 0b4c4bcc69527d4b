"""Calls to a teacher through the reply cache; equal calls in flight are sent once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from kore.augment.call import Call, Teacher, make_call
from kore.augment.parse import parse
from kore.augment.prompts import load_prompts
from kore.augment.schemas import ReplyForm
from kore.config.schema import AugmentSection
from kore.data.records import KnowledgeItem
from kore.llm.cache import ReplyStore
from kore.llm.rate_limit import Cost
from kore.llm.request import Reply
from kore.llm.retry import Limits, Sender

F = TypeVar("F", bound=ReplyForm)


@dataclass
class Usage:
    """What one item's replies took, whether paid now or earlier."""

    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0

    def add(self, reply: Reply) -> None:
        """Count a reply."""
        self.calls += 1
        self.tokens_in += reply.tokens_in
        self.tokens_out += reply.tokens_out


@dataclass
class Asker:
    """Asks one teacher on behalf of all items.

    Args:
        store: kept replies; None keeps nothing.
        cost: what is counted on; shared with the judge's asker, so that both keep to one limit.
    """

    teacher: Teacher
    settings: AugmentSection
    store: ReplyStore | None
    cost: Cost
    _sender: Sender = field(init=False)
    _open: dict[str, asyncio.Future[Reply]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        s = self.settings
        self.prompts = load_prompts(Path(s.templates) if s.templates else None)
        limits = Limits(**{f.name: getattr(s, f.name) for f in fields(Limits)})
        self._sender = Sender(self.teacher.name, limits, self.cost)
        if not self.teacher.cached:
            self.store = None

    def call(self, task: str, form: type[ReplyForm], item: KnowledgeItem, seed: int, **values: Any) -> Call:
        """`make_call` with the prompts of the settings."""
        return make_call(task, form, item, seed, prompts=self.prompts, **values)

    async def ask(self, call: Call, form: type[F], usage: Usage) -> F:
        """The reply to `call`, from the cache or the teacher.

        Raises:
            Refused, Unusable: after all tries. Lasting: nothing usable came back.
            ProviderError: the teacher failed for good. GateNotMet: the next call might exceed ``max_cost``.
        """
        if self.store is None:
            reply = await self._paid(call)
        else:
            reply = await self._kept(call, self.store)
        usage.add(reply)
        return parse(reply.text, form)

    async def _kept(self, call: Call, store: ReplyStore) -> Reply:
        key = call.key(self.teacher.name, self.teacher.parameters)
        if reply := store.get(key):
            self.cost.cached += 1
            return reply
        if key in self._open:  # the same question is being asked right now
            self.cost.cached += 1
            return await asyncio.shield(self._open[key])
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._open[key] = future
        try:
            reply = await self._paid(call)
            store.put(key, reply, self.teacher.name, call.prompt)
            future.set_result(reply)
            # replies come in bursts: let the calls that wait be sent before this one's reply is worked on, or
            # their slots stand idle for as long as all replies of the burst take
            await asyncio.sleep(0)
            return reply
        except BaseException as error:
            if isinstance(error, Exception):
                future.set_exception(error)
                future.exception()  # seen: others may or may not be waiting for it
            else:
                future.cancel()
            raise
        finally:
            del self._open[key]

    async def _paid(self, call: Call) -> Reply:
        """A reply that parses, after retries."""
        return await self._sender.send(
            lambda repair: self.teacher.reply(call, repair),
            call.expected,
            lambda text: parse(text, call.form),
        )
