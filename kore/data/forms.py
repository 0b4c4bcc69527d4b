"""The forms in which data sets write images and conversations, read as KORE's own.

Images: ``image``, ``images``, ``image_path`` and ``image_url``, as paths, addresses, data URIs, bytes or
objects with one of these, beside the text or inside a message's content. Conversations: LLaVA's and OpenAI's.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from kore.artifacts.run import cache_home
from kore.io.files import atomic_write, hash_bytes

IMAGE_MARK = "<image>"
IMAGE_KEYS = ("image", "images", "image_path", "image_paths", "image_url", "image_urls")
TURN_KEYS = ("from", "from_", "value", "role", "content")
_REFUSED = {
    **dict.fromkeys(("video", "videos", "video_path", "video_url"), "KORE reads no video"),
    **dict.fromkeys(("audio", "audios", "audio_path", "audio_url", "input_audio"), "KORE reads no audio"),
    **dict.fromkeys(("tools", "tool_calls", "functions", "function_call"), "KORE trains no tool calls"),
}
_ROLES = {"user": "human", "assistant": "gpt"}
_DATA_URI = re.compile(r"^data:(?P<type>[^;,]*)(?:;[^;,]*)*?(?P<coded>;base64)?,", re.IGNORECASE)
_SUFFIX = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"GIF8": ".gif", b"RIFF": ".webp", b"BM": ".bmp"}


def is_conversation(value: dict[str, Any]) -> bool:
    """Whether an object is a sample: a conversation in either form."""
    return "conversations" in value or "messages" in value


def refuse_media(value: dict[str, Any]) -> None:
    """Refuse a record with contents that would be lost.

    Raises:
        ValueError: it has a video, audio or tools.
    """
    for key, reason in _REFUSED.items():
        if value.get(key):
            raise ValueError(f"{key}: {reason}")


def gather_images(value: dict[str, Any]) -> dict[str, Any]:
    """A copy of a record's object in which all its images are under ``image``.

    Raises:
        ValueError: contents that KORE does not read, two different sets of images, or no image at all.
    """
    refuse_media(value)
    given = {key: references(value[key], key) for key in IMAGE_KEYS if value.get(key)}
    rest = {key: inner for key, inner in value.items() if key not in IMAGE_KEYS}
    sets = list(given.values())
    if any(other != sets[0] for other in sets[1:]):
        raise ValueError(f"{' and '.join(given)} name different images")
    if not given:
        return {**rest, "image": value["image"]} if "image" in value else rest
    as_given = value.get("image")
    listed = isinstance(as_given, list) and len(given) == 1
    return {**rest, "image": sets[0][0] if len(sets[0]) == 1 and not listed else sets[0]}


def references(value: Any, key: str) -> list[str]:
    """Paths and addresses of the images that a value names.

    Raises:
        ValueError: it names none.
    """
    if isinstance(value, list):
        return [reference for inner in value for reference in references(inner, key)]
    if isinstance(value, dict):
        inner = next((value[k] for k in ("bytes", "url", "path", *IMAGE_KEYS) if value.get(k)), None)
        if inner is not None:
            return references(inner, key)
    if isinstance(value, bytes):
        return [_stored(value)]
    if isinstance(value, str) and value.strip():
        return [_reference(value.strip(), key)]
    raise ValueError(f"{key}: expected a path, an address, or an object with one, found {str(value)[:60]!r}")


def _reference(text: str, key: str) -> str:
    if text[:5].lower() == "file:":
        return unquote(urlsplit(text).path)
    if text[:5].lower() != "data:":
        return text
    matched = _DATA_URI.match(text[:500])
    if matched is None:
        raise ValueError(f"{key}: a data URI without its comma")
    body = text[matched.end() :]
    try:
        data = base64.b64decode(unquote(body), validate=True) if matched["coded"] else unquote_to_bytes(body)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{key}: a data URI that is not base64: {error}") from error
    if not data:
        raise ValueError(f"{key}: an empty data URI")
    return _stored(data)


def _stored(data: bytes) -> str:
    """An image that lies inside the data as a file of the cache, named by its bytes."""
    suffix = next((suffix for head, suffix in _SUFFIX.items() if data.startswith(head)), ".img")
    path = cache_home().absolute() / "inline" / (hash_bytes(data) + suffix)
    if not path.exists():
        with atomic_write(path, "wb") as stream:
            stream.write(data)
    return str(path)


def read_conversation(value: dict[str, Any]) -> dict[str, Any]:
    """A copy of a sample's object with LLaVA's turns and one mark for each image.

    Images inside messages are taken in their order; marks that are missing are placed before the first human
    turn.

    Raises:
        ValueError: contents that KORE does not read, or images named both inside and beside the messages.
    """
    messages = value.get("messages")
    if messages is not None and value.get("conversations") is not None:
        raise ValueError("both messages and conversations")
    if messages is not None and not isinstance(messages, list):
        raise ValueError("messages must be a list")
    rest = {k: v for k, v in value.items() if k != "messages"}
    turns = messages if messages is not None else value.get("conversations")
    rest = gather_images(rest)
    if not isinstance(turns, list):
        return rest
    inside: list[str] = []
    rest["conversations"] = turns = [_turn(turn, inside) for turn in turns]
    beside = references(rest["image"], "image") if rest.get("image") else []
    if inside and beside and inside != beside:
        raise ValueError("images both inside the messages and beside them")
    if inside and not beside:
        rest["image"] = inside[0] if len(inside) == 1 else inside
    _place_marks(turns, len(inside or beside))
    return rest


def _turn(turn: Any, inside: list[str]) -> Any:
    """A message of either form as LLaVA's; the images in it are added to `inside`."""
    if not isinstance(turn, dict):
        return turn
    refuse_media(turn)
    if not {"role", "content", *IMAGE_KEYS} & turn.keys() and not isinstance(turn.get("value"), list):
        return {**turn, "from": _role(turn["from"])} if "from" in turn else turn
    role = turn.get("from", turn.get("from_", turn.get("role")))
    content = turn.get("value", turn.get("content", ""))
    rest = {k: v for k, v in turn.items() if k not in (*TURN_KEYS, *IMAGE_KEYS)}
    own = [ref for key in IMAGE_KEYS if turn.get(key) for ref in references(turn[key], key)]
    if isinstance(content, list):
        content = "\n".join(_part(part, inside) for part in content)
    elif own:
        marks = content.count(IMAGE_MARK) if isinstance(content, str) else 0
        content = f"{IMAGE_MARK}\n" * max(0, len(own) - marks) + str(content)
    inside += own
    return {**rest, "from": _role(role), "value": content}


def _role(role: Any) -> Any:
    return _ROLES.get(role, role) if isinstance(role, str) else role


def _part(part: Any, inside: list[str]) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        raise ValueError("a message's content is text or a list of objects with a type")
    refuse_media(part)
    kind = str(part.get("type", "image" if any(part.get(key) for key in IMAGE_KEYS) else "text"))
    if kind in ("text", "input_text", "output_text"):
        return str(part.get("text") or "")
    if kind not in ("image", "image_url", "input_image"):
        raise ValueError(f"a message's content has a part of type {kind}: KORE reads text and images")
    named = {k: v for k, v in part.items() if k in (*IMAGE_KEYS, "url", "path", "bytes") and v}
    if named:
        inside += references(named, "image")
    return IMAGE_MARK


def _place_marks(turns: list[Any], images: int) -> None:
    """Put the marks that are missing before the first human turn's text."""
    texts = [turn.get("value") for turn in turns if isinstance(turn, dict)]
    marks = sum(text.count(IMAGE_MARK) for text in texts if isinstance(text, str))
    first = next((n for n, t in enumerate(turns) if isinstance(t, dict) and t.get("from") == "human"), None)
    if first is None or marks >= images or not isinstance(turns[first].get("value"), str):
        return
    turns[first] = {**turns[first], "value": f"{IMAGE_MARK}\n" * (images - marks) + turns[first]["value"]}
