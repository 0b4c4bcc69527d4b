"""What a valid profile must fulfil beyond its types: the method knows its settings, the parts agree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kore.config.resolve import Resolved
from kore.errors import MissingArtefact, ProfileError

if TYPE_CHECKING:
    from kore.config.resolve import Profile


def check(resolved: Resolved) -> dict[str, Any]:
    """Check a resolved profile; says what it comes to.

    Raises:
        ProfileError: an unknown method or method setting, a batch that cannot be split, a rank that
            needs a covariance where there is none to be.
        UsageError: a method under a ZeRO stage that it does not run under.
    """
    from kore.methods.param_count import TOTAL, table
    from kore.training.hf_args import split

    profile = resolved.profile
    section = profile.train
    check_training(profile)
    found: dict[str, Any] = {
        "profile": resolved.name,
        "fingerprint": resolved.fingerprint,
        "model": profile.model.id,
        "method": section.method,
        "batch": section.batch,
        "one_device": str(split(section, 1)),
    }
    if profile.adapter.known_rank is not None and profile.model.quantisation == "none":
        try:
            rows = table(profile)
        except MissingArtefact as error:
            found["trainable"] = f"unknown here: {error}"
        else:
            found["trainable"] = next(row["trainable"] for row in rows if row["part"] == TOTAL)
    return found


def check_training(profile: Profile) -> None:
    """Refuse what training would, as far as the settings alone tell; covariance and old samples are taken as
    given.

    Raises:
        ProfileError: an unknown method or method setting, or a dtype that nothing is trained in.
        UsageError: settings that do not go together, or a ZeRO stage that the method does not run under.
    """
    from kore.methods.base import require
    from kore.methods.registry import METHODS, make_method
    from kore.training.hf_args import check_settings

    section = profile.train
    if profile.model.dtype == "float16":
        raise ProfileError(
            "training in float16 is not supported: small gradients underflow to zero",
            where="model.dtype",
            hint="--set model.dtype=bfloat16, or float32",
        )
    for name, values in profile.method.items():
        if name not in METHODS:
            raise ProfileError(f"no such method: {name}", where=f"method.{name}", hint=", ".join(METHODS))
        make_method(name, values)
    method = make_method(
        section.method,
        profile.method.get(section.method),
        thaw_a=section.thaw_a,
        constraint=section.constraint,
    )
    quantised = profile.model.quantisation != "none"
    require(method, zero=section.zero, factors=True, old=True, quantised=quantised)
    check_settings(section.model_copy(update={"keep": None}), None)
