"""Asking a teacher, with everything around it: cache, limits, retries, one repair, cost and its ceiling."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from kore.augment.call import Busy, Call, Refused, Reply, Teacher, Unusable, make_call
from kore.augment.limits import EXPECTED_OUT, Bucket, Cost, Pace, estimate_tokens, price
from kore.augment.parse import parse
from kore.augment.prompts import load_prompts
from kore.augment.replies import ReplyStore
from kore.augment.schemas import ReplyForm
from kore.errors import Interrupted, ProviderError
from kore.records import KnowledgeItem
from kore.settings import AugmentSection

F = TypeVar("F", bound=ReplyForm)
LONGEST_WAIT = 60.0  # seconds between tries of our own; a server may ask for more


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
    _pace: Pace = field(init=False)
    _gate: asyncio.Semaphore = field(init=False)
    _open: dict[str, asyncio.Future[Reply]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        s = self.settings
        self.prompts = load_prompts(Path(s.templates) if s.templates else None)
        self._pace = Pace(Bucket(s.requests_per_minute), Bucket(s.tokens_per_minute))
        self._gate = asyncio.Semaphore(s.concurrency)
        if not self.teacher.cached:
            self.store = None

    def call(self, task: str, form: type[ReplyForm], item: KnowledgeItem, seed: int, **values: Any) -> Call:
        """`make_call` with the prompts of the settings."""
        return make_call(task, form, item, seed, prompts=self.prompts, **values)

    async def ask(self, call: Call, form: type[F], usage: Usage) -> F:
        """The reply to `call`, from the cache or the teacher.

        Raises:
            Refused, Unusable: after all tries. ProviderError: the teacher failed for good.
            Interrupted: the next call might go past ``max_cost``.
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
        """A reply that parses: tries again when the teacher is busy, refuses or sends something
        unreadable."""
        expected = estimate_tokens(call.system + call.user), EXPECTED_OUT.get(call.task, 200)
        async with self._gate:
            spent_in = spent_out = 0
            repair: tuple[str, str] | None = None
            trouble: Exception = Unusable("no reply")
            for attempt in range(self.settings.retries + 1):
                if attempt:
                    self.cost.retries += 1
                try:
                    reply = await self._once(call, repair, expected)
                except Busy as busy:
                    trouble, repair = busy, None
                    await self._rest(busy.wait, attempt)
                    continue
                except Refused as refused:
                    trouble, repair = refused, None
                    if attempt >= 2:  # a model that declines thrice means it
                        break
                    continue
                spent_in, spent_out = spent_in + reply.tokens_in, spent_out + reply.tokens_out
                try:
                    parse(reply.text, call.form)
                except Unusable as error:
                    # one repair of each bad reply, then the question afresh
                    self.cost.repairs += repair is None
                    repair = (reply.text, str(error)) if repair is None else None
                    trouble = error
                    continue
                return Reply(reply.text, reply.tokens_in, reply.tokens_out)
        if isinstance(trouble, Busy):
            raise ProviderError(
                f"{self.teacher.name} failed {self.settings.retries + 1} times: {trouble}",
                hint="the finished part is kept; the same command goes on from there",
            ) from trouble
        raise trouble

    async def _once(self, call: Call, repair: tuple[str, str] | None, expected: tuple[int, int]) -> Reply:
        estimate = price(*expected, self.settings.price_in, self.settings.price_out) or 0.0
        self._reserve(estimate)
        try:
            await self._pace.wait(sum(expected))
            reply = await self.teacher.reply(call, repair)
        finally:
            self.cost.reserved -= estimate
        self.cost.add(reply.tokens_in, reply.tokens_out)
        self._pace.tokens.settle(reply.tokens_in + reply.tokens_out - sum(expected))
        return reply

    def _reserve(self, estimate: float) -> None:
        limit = self.settings.max_cost
        if limit is not None and (self.cost.money or 0.0) + self.cost.reserved + estimate > limit:
            raise Interrupted(
                f"the next call might pass the limit of {limit:g} ({self.cost.money or 0:.4g} spent)",
                hint="what is finished is kept; a higher --max-cost goes on from there",
            )
        self.cost.reserved += estimate

    async def _rest(self, wait: float | None, attempt: int) -> None:
        if wait is not None:
            self._pace.pause(wait)
            await asyncio.sleep(wait)
            return
        # full jitter: many clients that failed together must not come back together
        await asyncio.sleep(random.uniform(0, min(LONGEST_WAIT, 0.5 * 2**attempt)))
