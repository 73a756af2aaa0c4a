"""The precision of a backbone: float32, or bfloat16 where the masks stay the same.

bfloat16 is several times as fast on a GPU that has it. Whether masks stay the same depends on the
weights, the device and its libraries, so it is tested: with probes and a few photographs at hand,
in both precisions. The result is remembered by backbone, device and version of torch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime

import numpy as np
import torch
from numpy.typing import NDArray

from annotation_protocol import load_protocol
from fedd.backbone import PRECISIONS, LocalBackbone, Placed, place
from fedd.dataset import DatasetImage
from fedd.errors import DeviceError
from fedd.network.devices import existing_devices
from fedd.probes.pixels import labelled_examples
from fedd.probes.training import train_probes
from fedd.remembered import Remembered
from fedd.segment import Probes, ProbeSettings
from fedd.weights.cache_folder import user_cache

logger = logging.getLogger(__name__)

#: bfloat16 where a GPU has it and the test is passed, else float32.
AUTO = "auto"

CHOICES = (AUTO, *PRECISIONS)

#: Share of the pixels whose class must be the same in both precisions.
GOAL = 0.995

#: Photographs of a test: the fewest, and the most that are worth their time.
FEWEST, MOST = 4, 8

#: Photographs that probes for a test learn from.
LEARNED = 12


@dataclass(frozen=True)
class Trial:
    """What an agreement test predicts: photographs (H, W, 3), with probes of the backbone."""

    probes: Probes
    photographs: Sequence[NDArray[np.uint8]]


#: Returns the trial with a backbone in float32 on the device; None where nothing is at hand for one.
MakeTrial = Callable[[LocalBackbone], Trial | None]


@dataclass(frozen=True)
class Agreement:
    """How far the masks in bfloat16 are those in float32."""

    equal: float  #: share of the pixels of all photographs whose class is the same
    lowest: float  #: the share in the photograph with the lowest
    photographs: int
    tested_at: str  #: UTC

    @property
    def passed(self) -> bool:
        return self.equal >= GOAL

    def __str__(self) -> str:
        return (
            f"{self.equal:.2%} of the pixels equal to float32 on {self.photographs} photographs, "
            f"lowest {self.lowest:.2%}, tested {self.tested_at[:10]}"
        )


def no_trial(_exact: LocalBackbone) -> Trial | None:
    """Return None: there are no probes at hand."""
    return None


def trial_later(_exact: LocalBackbone) -> Trial | None:
    """Return None: the test is left to the run that a plan is made for."""
    return None


def remembered() -> Remembered:
    """Return the results of the tests on this machine."""
    return Remembered(user_cache() / "precision.json")


def trial_of_masks(items: Sequence[DatasetImage], settings: ProbeSettings) -> MakeTrial:
    """Return a trial with probes that learn from a few of the images with masks, and others of them."""
    with_masks = sorted((item for item in items if item.mask is not None), key=lambda i: i.stem)
    learned, tested = with_masks[:LEARNED], with_masks[LEARNED : LEARNED + MOST]

    def make(exact: LocalBackbone) -> Trial | None:
        if len(tested) < FEWEST:
            return None
        logger.info("testing bfloat16 with %s", exact.name)
        classes = load_protocol().class_names
        probes = train_probes(labelled_examples(learned, len(classes)), exact, settings, classes)
        return Trial(probes, [item.photograph() for item in tested])

    return make


def place_in(
    backbone: LocalBackbone,
    device: str = "auto",
    precision: str = AUTO,
    trial: MakeTrial = no_trial,
) -> Placed:
    """Return a backbone on a device ("auto": all GPUs, or the CPU) in a precision; says what AUTO chose.

    Raises DeviceError if there is no such device or precision.
    """
    if precision not in CHOICES:
        raise DeviceError(f"no precision {precision}: there are {', '.join(CHOICES)}")
    targets = existing_devices(device)
    if precision == AUTO:
        precision = "bfloat16" if _all_agree(backbone, targets, trial) else "float32"
    elif precision == "bfloat16":
        for target in targets:
            if not has_bfloat16(target):
                logger.warning("%s has no bfloat16 of its own: float32 is faster", _named(target))
    return place(backbone, device, precision)


def has_bfloat16(device: torch.device) -> bool:
    """Return whether a device computes bfloat16 itself, rather than emulating it."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_device_supported", None)
    return bool(supported()) if supported is not None else True


def compare(exact: LocalBackbone, trial: Trial) -> Agreement:
    """Return how far masks in bfloat16 agree with those of a backbone in float32, on its device."""
    rounded = exact.to(str(exact.device), "bfloat16")
    photographs = list(trial.photographs)[:MOST]
    shares, pixels = [], []
    for photograph in photographs:
        a, b = (trial.probes.predict(net, [photograph])[0].mask for net in (exact, rounded))
        shares.append(float((a == b).mean()))
        pixels.append(a.size)
    return Agreement(
        equal=float(np.average(shares, weights=pixels)),
        lowest=min(shares),
        photographs=len(photographs),
        tested_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _all_agree(backbone: LocalBackbone, targets: Sequence[torch.device], trial: MakeTrial) -> bool:
    """Return whether bfloat16 gives the same masks on all devices; never on a CPU."""
    if any(target.type == "cpu" for target in targets):
        return False
    one_of_each = {_named(target): target for target in targets}
    return all(_agrees(backbone, target, trial) for target in one_of_each.values())


def _agrees(backbone: LocalBackbone, target: torch.device, trial: MakeTrial) -> bool:
    if backbone.precision != "float32":
        return True  # its weights are rounded already
    name = _named(target)
    if not has_bfloat16(target):
        logger.info("precision float32: %s has no bfloat16", name)
        return False
    store, key = remembered(), f"{backbone.hash}, {name}, torch {torch.__version__}"
    found = _stored(store.get(key))
    if found is None and trial is trial_later:
        logger.info("precision: bfloat16 on %s is tested at the start of the run", name)
        return False
    if found is None:
        found = _tested(backbone, target, trial)
        if found is None:
            logger.info(
                "precision float32: bfloat16 is not tested yet with %s on %s, and nothing is at hand to "
                "test it with; a prediction or a refresh with a trained model tests it",
                backbone.name,
                name,
            )
            return False
        store.put(key, asdict(found))
    if found.passed:
        logger.info("precision bfloat16 on %s: %s", name, found)
    else:
        logger.warning(
            "precision float32, because bfloat16 changes masks on %s: %s, and %s are needed",
            *(name, found, f"{GOAL:.1%}"),
        )
    return found.passed


def _tested(backbone: LocalBackbone, target: torch.device, trial: MakeTrial) -> Agreement | None:
    exact = backbone.to(str(target))
    made = trial(exact)
    if made is None or len(made.photographs) < FEWEST:
        return None
    return compare(exact, made)


def _stored(values: dict[str, object] | None) -> Agreement | None:
    """Return a result that was stored; None where it can't be read."""
    kinds = {"equal": float, "lowest": float, "photographs": int, "tested_at": str}
    found = {f.name: (values or {}).get(f.name) for f in fields(Agreement)}
    if not all(isinstance(value, kinds[name]) for name, value in found.items()):
        return None
    return Agreement(**found)  # type: ignore[arg-type]


def _named(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "this CPU"
