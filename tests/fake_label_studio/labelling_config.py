"""The labelling configuration: what it paints, what a task's data must hold, what may change."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

#: What the data under an object tag may be; a string under any other.
_DATA_TYPES: dict[str, tuple[type, ...]] = {
    "Image": (str, list),
    "Text": (str, int, float, list),
}


class ConfigError(Exception):
    """The server refuses this configuration, in these words."""


class NotXmlError(ConfigError):
    """It is not even XML."""


@dataclass(frozen=True)
class Config:
    """A configuration, read."""

    controls: dict[str, dict[str, Any]]  #: name: type, to_name, inputs, labels, labels_attrs
    data_types: dict[str, str]  #: key of the task's data: tag that shows it

    @property
    def weights(self) -> dict[str, Any]:
        return {
            name: {
                "overall": 1.0,
                "type": control["type"],
                "labels": dict.fromkeys(control["labels"], 1.0),
            }
            for name, control in self.controls.items()
        }


def parse(config: str) -> Config:
    """Read a configuration; raises ConfigError where a toName is no tag's name."""
    try:
        root = ElementTree.fromstring(config)
    except ElementTree.ParseError as error:
        raise NotXmlError(str(error)) from error
    named = {tag.get("name", ""): tag for tag in root.iter() if tag.get("name")}
    controls = {name: tag for name, tag in named.items() if tag.get("toName")}
    for tag in controls.values():
        for target in tag.get("toName", "").split(","):
            if target not in named:
                raise ConfigError(f'toName="{target}" not found in names: {sorted(named)}')
    return Config(
        {name: _control(tag, named) for name, tag in controls.items()},
        {
            match[1]: tag.tag
            for tag in named.values()
            if (match := re.search(r"\$(\w+)", tag.get("value", "")))
        },
    )


def changes_essentially(new: str, old: str) -> bool:
    """Whether a control is new, or shows other data, or loses labels."""
    before = parse(old).controls
    return any(
        name not in before
        or before[name]["type"] != control["type"]
        or before[name]["inputs"] != control["inputs"]
        or not set(before[name]["labels"]) <= set(control["labels"])
        for name, control in parse(new).controls.items()
    )


def data_fault(config: Config, data: Any) -> str | None:
    """What an import says of this data; None where it is fine."""
    for key, tag in config.data_types.items():
        if key not in data:
            return f'"{key}" key is expected in task data'
        types = _DATA_TYPES.get(tag, (str,))
        if not isinstance(data[key], types):
            return (
                f"data['{key}']={data[key]} is of type '{type(data[key]).__name__}', but the object "
                f"tag {tag} expects the following types: {[t.__name__ for t in types]}"
            )
    return None


def check_change(config: str, results: Iterable[dict[str, Any]], *, strict: bool) -> None:
    """Whether a project whose annotations hold `results` may get this configuration.

    Only a control that is in use may not go (a text area may, and so may all of them at once);
    `strict`, which is `/validate/` and not PATCH, also wants every label in use.
    """
    controls = parse(config).controls
    results = [r for r in results if {"from_name", "to_name", "type"} <= r.keys()]
    if not controls or not results:
        return
    used = Counter((r["from_name"], r["to_name"], r["type"]) for r in results)
    lost = [
        f"{number} with from_name={name}, to_name={target}, type={kind}"
        for (name, target, kind), number in used.items()
        if kind.lower() != "textarea" and not _has(controls, name, target, kind)
    ]
    if lost:
        raise ConfigError(
            "Created annotations are incompatible with provided labeling schema, we found:\n"
            + "\n".join(lost)
        )
    for name, control in controls.items():
        labels = Counter(
            label
            for r in results
            if r["from_name"] == name
            for label in _labels(r)
            if label not in control["labels"]
        )
        if strict and labels:
            listed = "".join(
                f"{label} ({number} annotation{'s' if number > 1 else ''})\n"
                for label, number in labels.items()
            )
            raise ConfigError(
                f"These labels still exist in annotations or drafts:\n{listed}"
                f'Please add labels to tag with name="{name}".'
            )


def _control(tag: ElementTree.Element, named: dict[str, ElementTree.Element]) -> dict[str, Any]:
    targets = tag.get("toName", "").split(",")
    choices = {
        child.get("alias") or child.attrib["value"]: dict(child.attrib)
        for child in tag.iter()
        if child.tag in ("Label", "Choice") and child.get("value")
    }
    return {
        "type": tag.tag,
        "to_name": targets,
        "inputs": [
            {
                "type": named[target].tag,
                "valueType": named[target].get("valueType"),
                "value": named[target].get("value", "").lstrip("$"),
            }
            for target in targets
        ],
        "labels": list(choices),
        "labels_attrs": choices,
    }


def _has(controls: dict[str, dict[str, Any]], name: str, target: str, kind: str) -> bool:
    control = controls.get(name)
    return (
        control is not None
        and target in control["to_name"]
        and control["type"].lower() == kind.lower()
    )


def _labels(result: dict[str, Any]) -> list[str]:
    labels = result.get("value", {}).get(result["type"], [])
    return labels if isinstance(labels, list) else []
