"""Labels of mappers as a page shows them: the options that tell them apart, in words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

_OPTION = re.compile(r"(\w+)=(\[[^\]]*\]|[^,\]]*)")


def short_labels(labels: Iterable[str]) -> tuple[dict[str, str], str]:
    """Every label in words, without the options that all labels of the same mapper share; and these.

    `offload[weights=[0.5, 0.5, 0],batches=3]` beside `offload[weights=[0, 1, 0],batches=3]` is `offload: weights
    0.5/0.5/0`, and `offload: batches 3` is shared.
    """
    parsed = {label: _options(label) for label in dict.fromkeys(labels)}
    names = dict.fromkeys(label.partition("[")[0] for label in parsed)
    alike = {name: [own for label, own in parsed.items() if label.partition("[")[0] == name] for name in names}
    shared = {name: _shared(own) if len(own) > 1 else {} for name, own in alike.items()}
    short = {}
    for label, own in parsed.items():
        name = label.partition("[")[0]
        short[label] = _words(name, {key: value for key, value in own.items() if key not in shared[name]})
    return short, "; ".join(_words(name, options) for name, options in shared.items() if options)


def _options(label: str) -> dict[str, str]:
    """The options of a label: lists with slashes, the rest as it is written."""
    found = _OPTION.findall(label.partition("[")[2])
    return {name: value.strip("[]").replace(", ", "/") or "none" for name, value in found}


def _shared(several: list[dict[str, str]]) -> dict[str, str]:
    first, *others = several
    return {name: value for name, value in first.items() if all(one.get(name) == value for one in others)}


def _words(name: str, options: Mapping[str, str]) -> str:
    told = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in options.items())
    return f"{name}: {told}" if told else name
