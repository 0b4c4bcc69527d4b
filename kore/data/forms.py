"""Read the ways in which people's files name images and conversations as KORE's own."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from kore.artifacts.run import cache_home
from kore.io.files import atomic_write, hash_bytes

IMAGE_MARK = "<image>"
IMAGE_KEYS = ("image", "images", "image_path", "image_paths", "image_url", "image_urls")
UNSUPPORTED = ("video", "videos", "audio", "audios", "tools", "tool_calls")
MOST_BYTES = 64 << 20  # of one image inside a record
ROLES = {"user": "human", "assistant": "gpt", "human": "human", "gpt": "gpt", "system": "system"}
_SUFFIXES = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"GIF8": ".gif", b"RIFF": ".webp", b"BM": ".bmp"}


def with_images(value: dict[str, Any], *, web: bool = False) -> dict[str, Any]:
    """The record with all its images under ``image``, inline ones as files.

    Args:
        web: take addresses on the web too, which `kore augment` downloads.

    Raises:
        ValueError: two keys name different images, one is not an image, or the record holds what KORE does
            not read.
    """
    refuse_unsupported(value)
    given = {key: images_of(value[key], key, web=web) for key in IMAGE_KEYS if value.get(key)}
    if not given:
        return {key: kept for key, kept in value.items() if key not in IMAGE_KEYS or key == "image"}
    first, *others = given
    if any(given[key] != given[first] for key in others):
        raise ValueError(f"{' and '.join(given)} name different images; keep one of them")
    rest = {key: kept for key, kept in value.items() if key not in IMAGE_KEYS}
    return {**rest, "image": given[first][0] if len(given[first]) == 1 else given[first]}


def refuse_unsupported(value: Mapping[str, Any]) -> None:
    """Refuse a record or message with content that would be lost.

    Raises:
        ValueError: names the key.
    """
    if bad := [key for key in UNSUPPORTED if value.get(key)]:
        raise ValueError(f"{' and '.join(bad)}: not supported; KORE reads text and images")


def images_of(value: Any, key: str, *, web: bool = False) -> list[str]:
    """The paths of images in any form: a path, a data URI, an object with url, path or bytes, or a list.

    Raises:
        ValueError: none of these, or (without `web`) an address on the web.
    """
    if isinstance(value, str):
        if value.startswith("data:"):
            return [_from_uri(value)]
        if value.startswith("file://"):
            return [unquote(urlsplit(value).path)]
        if "://" in value[:12] and not (web and value.startswith(("http://", "https://"))):
            raise ValueError(f"{key}: {value[:80]} is on the web; download it and give its path")
        if value.strip() and "\0" not in value:
            return [value]
    elif isinstance(value, Mapping):
        if isinstance(value.get("bytes"), bytes):
            return [_stored(value["bytes"])]
        inner = next((value[k] for k in ("image_url", "image", "url", "path") if value.get(k)), None)
        if inner is not None:
            return images_of(inner, key, web=web)
    elif isinstance(value, bytes):
        return [_stored(value)]
    elif isinstance(value, Sequence):
        return [path for inner in value for path in images_of(inner, key, web=web)]
    raise ValueError(f"{key}: not an image; give a path, a data URI, or a list of them")


def _from_uri(uri: str) -> str:
    head, comma, data = uri.partition(",")
    if not comma or not head.endswith(";base64") or not head.startswith("data:image/"):
        raise ValueError(f"{head[:60]}: expected data:image/TYPE;base64,DATA")
    if len(data) > MOST_BYTES * 4 // 3:
        raise ValueError(f"an image of more than {MOST_BYTES >> 20} MiB inside the record")
    try:
        return _stored(base64.b64decode("".join(data.split()), validate=True))
    except binascii.Error as error:
        raise ValueError(f"{head}: not base64: {error}") from error


def _stored(data: bytes) -> str:
    """An inline image as a file of the cache, named by its content."""
    suffix = next((end for start, end in _SUFFIXES.items() if data.startswith(start)), ".img")
    path = cache_home().absolute() / "inline" / f"{hash_bytes(data)}{suffix}"
    if not path.is_file():
        with atomic_write(path, "wb") as stream:
            stream.write(data)
    return str(path)


def is_conversation(value: dict[str, Any]) -> bool:
    """Whether an object is a sample: a conversation in either form."""
    return "conversations" in value or "messages" in value


def read_conversation(value: dict[str, Any]) -> dict[str, Any]:
    """A sample's object with LLaVA's turns, all images under ``image``, and a mark for each image.

    Images inside the messages are taken in their order.

    Raises:
        ValueError: as `conversation` and `with_images`; or there are two conversations or sets of images.
    """
    given = [key for key in ("conversations", "messages") if value.get(key) is not None]
    if len(given) > 1:
        raise ValueError("both messages and conversations; keep one of them")
    rest = with_images({k: v for k, v in value.items() if k != "messages"})
    if not given:
        return rest
    inside: list[str] = []
    turns = conversation(value[given[0]], inside, given[0])
    beside = images_of(rest["image"], "image") if rest.get("image") else []
    if inside and beside and inside != beside:
        raise ValueError("images inside the messages and others beside them; keep one of them")
    if inside:
        rest["image"] = inside[0] if len(inside) == 1 else inside
    return {**rest, "conversations": with_marks(turns, len(inside or beside))}


def conversation(messages: Any, images: list[str], key: str) -> list[Any]:
    """Turns in LLaVA's form from LLaVA's (``from``, ``value``) or OpenAI's (``role``, ``content``).

    Args:
        images: images inside the messages are appended.
        key: where the messages stood, for errors.

    Raises:
        ValueError: not a list of messages, or a part that is neither text nor an image.
    """
    if not isinstance(messages, list):
        raise ValueError(f"{key} must be a valid list")
    return [_turn(message, images) for message in messages]


def _turn(message: Any, images: list[str]) -> Any:
    if not isinstance(message, dict):
        return message
    refuse_unsupported(message)
    role = message.get("from", message.get("role"))
    content = message.get("value", message.get("content"))
    if isinstance(content, list):
        content = "\n".join(_part(part, images) for part in content)
    own = [path for key in IMAGE_KEYS if message.get(key) for path in images_of(message[key], key)]
    if own and isinstance(content, str):
        content = f"{IMAGE_MARK}\n" * (len(own) - content.count(IMAGE_MARK)) + content
    images += own
    used = ("from", "role", "value", "content", *IMAGE_KEYS)
    rest = {k: v for k, v in message.items() if k not in used and v is not None}
    value = {} if content is None else {"value": content}
    return {**rest, "from": ROLES.get(str(role), role), **value}


def _part(part: Any, images: list[str]) -> str:
    """The text of one content part; an image leaves its mark."""
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        raise ValueError("a message's content is text or a list of objects with a type")
    kind = str(part.get("type", "text" if "text" in part else ""))
    if kind.endswith("text"):
        return str(part.get("text", ""))
    if not kind.startswith(("image", "input_image")):
        raise ValueError(f"a content part of type {kind!r} is not supported; KORE reads text and images")
    if any(part.get(key) for key in ("image_url", "image", "url", "path")):
        images += images_of(part, kind)
    return IMAGE_MARK


def with_marks(turns: list[Any], images: int) -> list[Any]:
    """The turns with missing image marks placed before the first human turn's text."""
    values = [turn.get("value") for turn in turns if isinstance(turn, dict)]
    missing = images - sum(value.count(IMAGE_MARK) for value in values if isinstance(value, str))
    first = next((i for i, t in enumerate(turns) if isinstance(t, dict) and t.get("from") == "human"), None)
    if missing <= 0 or first is None or not isinstance(turns[first].get("value"), str):
        return turns
    marked = {**turns[first], "value": f"{IMAGE_MARK}\n" * missing + turns[first]["value"]}
    return [*turns[:first], marked, *turns[first + 1 :]]
