"""Rate limits (requests and tokens per minute) and cost tracking."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Bucket:
    """A token bucket: `rate` a minute flow in, at most a tenth of a minute's worth is saved up.

    Args:
        rate: per minute; None is no limit.
    """

    rate: float | None
    now: Callable[[], float] = time.monotonic
    _level: float = 0.0
    _last: float | None = None

    def delay(self, amount: float) -> float:
        """Take `amount` and say how many seconds to wait first: the level may go below zero, in turn."""
        if self.rate is None:
            return 0.0
        moment = self.now()
        size = max(self.rate / 10, 1.0)
        if self._last is None:
            self._level = size
        else:
            self._level = min(size, self._level + (moment - self._last) * self.rate / 60)
        self._last = moment
        self._level -= amount
        return max(0.0, -self._level * 60 / self.rate)

    def settle(self, amount: float) -> None:
        """Correct an estimate: `amount` more (or, negative, less) was used."""
        if self.rate is not None:
            self._level -= amount


@dataclass
class Pace:
    """Waits for both buckets, and for a pause that the server asked of everyone."""

    requests: Bucket
    tokens: Bucket
    _paused_until: float = field(default=0.0)

    async def wait(self, tokens: float) -> None:
        """Return when one more request of `tokens` may be sent."""
        pause = self._paused_until - time.monotonic()
        delay = max(self.requests.delay(1), self.tokens.delay(tokens), pause)
        if delay > 0:
            await asyncio.sleep(delay)

    def pause(self, seconds: float) -> None:
        """Hold every new request back for `seconds` (Retry-After)."""
        self._paused_until = max(self._paused_until, time.monotonic() + seconds)


@dataclass
class Cost:
    """Calls, tokens and money.

    Args:
        price_in: money per million input tokens, None if unknown.
        price_out: money per million output tokens.
        before_in: input tokens that earlier runs into the same folder paid for; before_out: output tokens.
        on_paid: told the tokens in and out of each call as it is paid.
    """

    price_in: float | None = None
    price_out: float | None = None
    calls: int = 0
    cached: int = 0
    retries: int = 0
    repairs: int = 0
    reserved: float = 0.0  # money for calls in flight
    tokens_in: int = 0
    tokens_out: int = 0
    before_in: int = 0
    before_out: int = 0
    on_paid: Callable[[int, int], None] = lambda tokens_in, tokens_out: None

    def add(self, tokens_in: int, tokens_out: int) -> None:
        """Count one paid call."""
        self.calls += 1
        self.tokens_in += tokens_in
        self.tokens_out += tokens_out
        self.on_paid(tokens_in, tokens_out)

    @property
    def money(self) -> float | None:
        """What the paid calls cost, None without prices."""
        return price(self.tokens_in, self.tokens_out, self.price_in, self.price_out)

    @property
    def in_all(self) -> float:
        """Money of this run and of those before it, which one limit holds for."""
        tokens = self.before_in + self.tokens_in, self.before_out + self.tokens_out
        return price(*tokens, self.price_in, self.price_out) or 0.0


def price(
    tokens_in: float, tokens_out: float, price_in: float | None, price_out: float | None
) -> float | None:
    """Money for so many tokens, None without prices."""
    if price_in is None and price_out is None:
        return None
    return (tokens_in * (price_in or 0) + tokens_out * (price_out or 0)) / 1e6
