"""Every field of an hparams file, as tables: `docs/benchmark.md` holds them between two marks.

`python -m harness.benchmark.fields docs/benchmark.md` puts them there; a test keeps them in step.
"""

import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from harness.benchmark.hparams import Hparams
from harness.benchmark.rules import Calibration, CalibrationVariant

BEGIN: Final = "<!-- fields: python -m harness.benchmark.fields docs/benchmark.md -->"
END: Final = "<!-- end of fields -->"
#: What `validator calibrate` writes is evidence, and nobody edits it.
LEFT_OUT: Final[frozenset[type[BaseModel]]] = frozenset({Calibration, CalibrationVariant})
KINDS: Final = {
    "str": "text",
    "int": "integer",
    "float": "number",
    "bool": "true or false",
    "object": "JSON",
}


def document() -> str:
    """The tables, one for each section of the file, the whole first."""
    lines: list[str] = []
    for path, model in sections(Hparams, ""):
        lines += [f"### {path or 'The file'}", "", _summary(model), ""]
        lines += ["| field | kind | default | meaning |", "|---|---|---|---|"]
        lines += [_row(name, field) for name, field in _in_order(model)]
        lines.append("")
    return "\n".join(lines)


def sections(model: type[BaseModel], path: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """The sections by their names in the file; one that can be of several kinds is there for each."""
    yield path, model
    for name, field in model.model_fields.items():
        inner = [each for each in _models(field.annotation) if each not in LEFT_OUT]
        for each in inner:
            below = f"{path}.{name}".strip(".")
            yield from sections(each, f"{below}, {_kind_of(each)}" if len(inner) > 1 else below)


def in_step(page: str) -> str:
    """The page with its tables as they should be."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{document()}{END}{after}"


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models(argument)]


def _kind_of(model: type[BaseModel]) -> str:
    """What tells the kinds of a section apart: `source` or `name`."""
    name = _discriminator(model)
    if name is None:
        raise TypeError(
            f"{model.__name__} is one of several kinds and has no field that says which"
        )
    [value] = get_args(model.model_fields[name].annotation)
    return f"{name} `{value}`"


def _discriminator(model: type[BaseModel]) -> str | None:
    fields = model.model_fields
    return next(
        (n for n in ("source", "name") if n in fields and get_args(fields[n].annotation)), None
    )


def _in_order(model: type[BaseModel]) -> list[tuple[str, FieldInfo]]:
    """As they are declared, but for what tells the kind: it comes first, before those of a base."""
    kind = _discriminator(model)
    return sorted(model.model_fields.items(), key=lambda each: each[0] != kind)


def _summary(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or "").split("\n\n")[0].split())


def _row(name: str, field: FieldInfo) -> str:
    kind = _kind(field.annotation)
    limits = _limits(field.metadata)
    kind = f"{kind}, {limits}" if limits else kind
    meaning = (field.description or "").replace("|", "\\|")
    return f"| `{name}` | {kind} | {_default(field)} | {meaning} |"


def _kind(annotation: Any) -> str:
    """In words that somebody who writes JSON knows."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        limits = _limits(arguments[1:])
        return f"{_kind(arguments[0])}, {limits}" if limits else _kind(arguments[0])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        kinds = dict.fromkeys(_kind(each) for each in arguments)
        return " or ".join(kinds)
    if _models(annotation) or origin is dict:
        return "section"
    if annotation is types.NoneType:
        return "null"
    return KINDS[getattr(annotation, "__name__", "object")]


def _limits(metadata: Any) -> str:
    """ "over 0", "1 to 100", "at least 1"; empty where there are none."""
    low = high = ""
    for each in metadata:
        if isinstance(each, annotated_types.Ge):
            low = f"{each.ge:,}"
        elif isinstance(each, annotated_types.Gt):
            low = f"over {each.gt:,}"
        elif isinstance(each, annotated_types.Le):
            high = f"{each.le:,}"
        elif isinstance(each, annotated_types.Lt):
            high = f"under {each.lt:,}"
        elif isinstance(each, FieldInfo):
            return _limits(each.metadata)
    if low and high:
        return f"{low} to {high}"
    if low:
        return low if low.startswith("over") else f"at least {low}"
    return high if not high or high.startswith("under") else f"at most {high}"


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "" if field.default_factory is None else "empty"
    if isinstance(field.default, BaseModel):
        return "its defaults"
    if field.default is None:
        return "null"
    if isinstance(field.default, bool):
        return str(field.default).lower()
    return f"{field.default:,}" if isinstance(field.default, int | float) else f"`{field.default}`"


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.write_text(in_step(target.read_text(encoding="utf-8")), encoding="utf-8")
