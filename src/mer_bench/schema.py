"""What files may say: types and ranges for fields of dataclasses, and the one way in which JSON and TOML become them.

A dataclass whose fields are annotated with the types below is its own schema. :func:`decode` builds it from what a file
holds, or says in one sentence which key is wrong.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, NoReturn, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from mer_bench.errors import CONTROL, Misuse, unknown

T = TypeVar("T")

NAME = r"\A[A-Za-z0-9][A-Za-z0-9._+:-]{0,99}\Z"
LABEL = r"\A\w[\w.+:-]{0,99}\Z"
TEXT = rf"\A[^{CONTROL}]*\Z"
HASH = r"\A[0-9a-f]{64}\Z"
DIGITS = r"\A[0-9A-Za-z]*\Z"
URL = r"\Ahttps?://[!-;=?-Z_a-z~]{3,300}\Z"
CLASS_WEIGHTS = r"\A(none|balanced|sqrt)\Z"
BALANCE = r"\A(none|ogm_ge|agm|modality_dropout|mmpareto)\Z"
LARGEST = 2**53  #: whole number: what double precision holds without a gap

#: Names of corpora, methods, label sets, protocols, feature sets, options and strategies. They become parts of paths.
Name = Annotated[str, Meta(pattern=NAME)]
Label = Annotated[str, Meta(pattern=LABEL)]  #: name of a class: letters of any language
Text = Annotated[str, Meta(pattern=TEXT, max_length=1000)]  #: one line for readers, such as the name of a device
Hash = Annotated[str, Meta(pattern=HASH)]  #: sha256 in hexadecimal
Url = Annotated[str, Meta(pattern=URL)]
Digits = Annotated[str, Meta(pattern=DIGITS)]  #: numbers from 0 to 61, one character each
ClassWeights = Annotated[str, Meta(pattern=CLASS_WEIGHTS)]  #: how the training loss weighs the classes
Balance = Annotated[str, Meta(pattern=BALANCE)]  #: how training keeps one modality from dominating
Count = Annotated[int, Meta(ge=0, le=LARGEST)]
Positive = Annotated[int, Meta(ge=1, le=LARGEST)]
Machines = Annotated[int, Meta(ge=1, le=1000)]  #: number of machines, or of devices of one machine
Seed = Annotated[int, Meta(ge=0, lt=2**32)]  #: what numpy and torch take
Real = Annotated[float, Meta(ge=-1e300, le=1e300)]  #: finite; neither NaN nor infinite
NotNegative = Annotated[float, Meta(ge=0, le=1e30)]  #: what single precision can hold
AboveZero = Annotated[float, Meta(gt=0, le=1e30)]
Whole = Annotated[int, Meta(ge=-LARGEST, le=LARGEST)]
Share = Annotated[float, Meta(ge=0, le=1)]
ShareBelowOne = Annotated[float, Meta(ge=0, lt=1)]
ShareAboveZero = Annotated[float, Meta(gt=0, le=1)]

#: The value of a method's option.
Option = bool | Whole | Real | Text | list[Whole | Real | Text] | Mapping[Name, Text] | None

#: How messages describe a pattern.
PATTERNS = {
    NAME: "a name of at most 100 letters, digits and ._+:-, which begins with a letter or a digit",
    LABEL: "a name of at most 100 letters, digits and ._+:-",
    TEXT: "one line of text without control characters",
    HASH: "a sha256 of 64 hexadecimal digits",
    DIGITS: "digits and letters",
    URL: "an address that begins with http:// or https://",
    CLASS_WEIGHTS: "none, balanced or sqrt",
    BALANCE: "none, ogm_ge, agm, modality_dropout or mmpareto",
}
KINDS = {"int": "a whole number", "float": "a number", "str": "a text", "bool": "true or false", "array": "a list",
         "object": "a mapping", "null": "null"}  # fmt: skip


def decode(content: Any, kind: type[T], where: str) -> T:
    """An instance of a dataclass from what JSON or TOML holds; nothing is converted but whole numbers to floats.

    Args:
        content: Mappings, lists, texts and numbers.
        kind: A dataclass.
        where: The file, for messages.

    Raises:
        Misuse: a key is unknown, lacking, of the wrong type or out of its range.
    """
    try:
        _refuse_unknown_keys(content, kind, "", where)
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        sentence = _sentence(str(error), content, kind)
        raise Misuse(f"{where}{': ' if not sentence.startswith('lacks') else ' '}{sentence}") from error
    except RecursionError as error:
        raise Misuse(f"{where}: its content is nested too deeply") from error
    except UnicodeEncodeError as error:
        raise Misuse(f"{where}: a text holds half of a surrogate pair") from error


def _refuse_unknown_keys(content: Any, kind: Any, path: str, where: str) -> None:
    """Raise Misuse for a key that the dataclass, or one within it, does not have: msgspec would pass over it."""
    if is_dataclass(kind):
        if isinstance(content, Mapping):
            known, nested = _fields(cast(type, kind)), _nested(cast(type, kind))
            for key, value in content.items():
                if key not in known:
                    raise unknown(f"key in {where}{f', {path}'.rstrip('.') * bool(path)}", str(key), known)
                if key in nested:
                    _refuse_unknown_keys(value, nested[key], f"{path}{key}.", where)
    elif isinstance(content, list) and get_origin(kind) in (list, tuple):
        for number, each in enumerate(content):
            _refuse_unknown_keys(each, get_args(kind)[0], f"{path.rstrip('.')}[{number}].", where)
    elif isinstance(content, Mapping) and get_origin(kind) is Mapping:
        for key, value in content.items():
            _refuse_unknown_keys(value, get_args(kind)[1], f"{path}{key}.", where)
    elif get_origin(kind) in (Union, UnionType) and content is not None:
        for each in get_args(kind):
            _refuse_unknown_keys(content, each, path, where)


@cache
def _fields(kind: type) -> dict[str, Any]:
    """Name -> type of the fields of a dataclass."""
    hints = get_type_hints(kind)
    return {item.name: hints[item.name] for item in fields(kind)}


@cache
def _nested(kind: type) -> dict[str, Any]:
    """Those of :func:`_fields` whose type is, or holds, a dataclass."""
    return {name: each for name, each in _fields(kind).items() if _holds_dataclass(each)}


@cache
def _holds_dataclass(kind: Any) -> bool:
    return is_dataclass(kind) or any(map(_holds_dataclass, get_args(kind)))


def _choices(kind: Any, path: str) -> list[str]:
    """The values that a key may have, if its type lists them."""
    for name in re.findall(r"\.([^.[]+)", path):
        found = next((each for each in (kind, *get_args(kind)) if is_dataclass(each)), None)
        if found is None:
            return []
        kind = _fields(cast(type, found)).get(name)
    return [repr(one) for each in (kind, *get_args(kind)) if get_origin(each) is Literal for one in get_args(each)]


def _sentence(message: str, content: Any, kind: Any) -> str:
    """A message of msgspec in plain words, with the key in front and the value that it has."""
    said, _, place = message.partition(" - at ")
    path = place.rstrip("`").rpartition("`")[2].removeprefix("$")
    key = f"a key of {path.lstrip('.')}" if place.startswith("`key`") else path
    if lacking := re.fullmatch(r"Object missing required field `(.*)`", said):
        return f"{path.lstrip('.')} lacks the key {lacking[1]!r}".lstrip()
    wanted, _, given = said.removeprefix("Expected ").partition(", got ")
    if said.startswith("Invalid enum value"):
        wanted = " or ".join(_choices(kind, path)) or "a value that it may have"
    for pattern, described in PATTERNS.items():
        wanted = wanted.replace(f"`str` matching regex {pattern!r}", described)
    wanted, given = (re.sub(r"`([a-z |]+)`", _in_words, text) for text in (wanted, given))
    try:
        value = content
        for name, number in re.findall(r"\.([^.[]+)|\[(.*?)\]", path):
            value = value[int(number) if number else name]
        found = f"{value!r:.80}" if key == path else given
    except (LookupError, TypeError, ValueError):  # msgspec writes [...] for any key of a mapping
        found = given
    return f"{key.lstrip('.') or 'its content'} must be {wanted}{f', not {found}' * bool(found)}"


def _in_words(types: re.Match[str]) -> str:
    return " or ".join(KINDS.get(name, name) for name in types[1].split(" | "))


def read_json(path: Path, what: str) -> Any:
    """The content of a JSON file, which messages call ``what``, such as "a record".

    Raises:
        Misuse: it is no regular file or cannot be read, or it is not strict JSON in UTF-8: with a key that occurs
            twice, NaN, or a number or a nesting beyond all measure.
    """
    return parse_json(read_regular(path, what), path, what)


def read_regular(path: Path, what: str) -> bytes:
    """The bytes of a regular file; raises Misuse where it is none, or cannot be read."""
    try:
        if not path.is_file():
            raise Misuse(f"{path} is not {what}: it is {'no regular file' if path.exists() else 'absent'}")
        return path.read_bytes()
    except OSError as error:
        raise Misuse(f"cannot read {path}: {error.strerror}") from error


def parse_json(text: bytes, path: Path, what: str) -> Any:
    """What :func:`read_json` returns and raises, of bytes that were read already."""
    try:
        return json.loads(text.decode(), object_pairs_hook=_each_key_once, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise Misuse(f"{path} is not {what}: it is nested too deeply") from error
    except ValueError as error:
        raise Misuse(f"{path} is not {what}: {error}") from error


def canonical_json(content: Any) -> str:
    """The one text for a content of mappings, lists, texts and numbers."""
    return json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def parse_canonical(text: bytes) -> Any:
    """The content of a :func:`canonical_json`, much faster than :func:`parse_json`; None if the text may be another.

    What was read is written again and compared, so that a text with a key that occurs twice is another. So is one with
    a number like 1e-05, which msgspec writes as 0.00001.
    """
    try:
        content = msgspec.json.decode(text)
        written = msgspec.json.encode(content, order="deterministic")
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return None
    return content if EXPONENT.sub(rb"e-0\1", written) == text else None


EXPONENT = re.compile(rb"e-(\d)(?=[,\]}])")  #: which Python writes with two digits, and msgspec with one


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} occurs twice")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON")


def check_name(name: str, kind: str) -> str:
    """The name; raises Misuse, which calls it ``kind``, unless it can stand in a path and on a page as it is."""
    if not re.search(NAME, name):
        raise Misuse(f"the {kind} {name!r} must be {PATTERNS[NAME]}")
    return name
