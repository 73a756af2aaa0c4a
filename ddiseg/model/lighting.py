"""Lighting changes: a photograph as in slightly different light, or from a different camera.

Light adds up in linear sRGB (IEC 61966-2-1), so that is where exposure and colour are changed; each
channel of an 8-bit photograph then goes through one curve of 256 values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ddiseg.errors import InputError

#: Correlated colour temperature of sRGB's white, CIE illuminant D65, in kelvin.
D65 = 6504.0

#: Largest change of exposure, in stops; beyond it pictures turn black or white.
LARGEST_EXPOSURE = 4.0

#: CIE defines daylight from 4000 to 25000 K; cameras correct up to about 10000 K.
_DAYLIGHT = (4000.0, 10000.0)

#: Linear sRGB from CIE XYZ, D65 (IEC 61966-2-1).
_RGB_OF_XYZ = np.array(
    [
        [3.2404542, -1.5371385, -0.4985314],
        [-0.9692660, 1.8760108, 0.0415560],
        [0.0556434, -0.2040259, 1.0572252],
    ]
)


@dataclass(frozen=True)
class LightChange:
    """A named change of light, as one curve a channel, (3, 256) uint8."""

    name: str
    curves: NDArray[np.uint8]

    def apply(self, photograph: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the photograph (H, W, 3) uint8 in that light; what gets too bright is clipped."""
        return np.stack([curve[photograph[..., c]] for c, curve in enumerate(self.curves)], -1)


def exposure(stops: float) -> LightChange:
    """Return a change of exposure by `stops` EV: every channel times 2 ** stops in linear light.

    Raises:
        InputError: more than LARGEST_EXPOSURE stops, or none.
    """
    if not 0 < abs(stops) <= LARGEST_EXPOSURE:
        raise InputError(
            f"a change of exposure by {stops:g} EV can't be measured: give up to "
            f"{LARGEST_EXPOSURE:g} EV more or less, such as -0.3 or 0.3"
        )
    return LightChange(f"{stops:+g} EV", _curves(np.full(3, 2.0**stops)))


def colour_temperature(kelvin: float) -> LightChange:
    """Return a white balance off by `kelvin`: a D65 scene in daylight of a temperature higher by it.

    Negative is redder. Grey keeps its luminance.

    Raises:
        InputError: the light would not be daylight, or would be the same.
    """
    low, high = (end - D65 for end in _DAYLIGHT)
    if not low <= kelvin <= high or not kelvin:
        raise InputError(
            f"a change of colour temperature by {kelvin:g} K can't be measured: give {low:.0f} to "
            f"{high:.0f}, such as -500 or 500"
        )
    return LightChange(f"{kelvin:+g} K", _curves(daylight_gains(D65 + kelvin)))


def one_grey_level() -> LightChange:
    """Return the control: every channel one level of 255 brighter, which no eye sees."""
    levels = np.minimum(np.arange(256) + 1, 255).astype(np.uint8)
    return LightChange("one grey level", np.stack([levels] * 3))


def daylight_gains(temperature: float) -> NDArray[np.float64]:
    """Return linear sRGB of daylight of a correlated colour temperature (K) at luminance 1, (3,).

    The daylight locus of CIE 15:2004 (Wyszecki and Stiles, Color Science, 2nd ed. 1982, section 3.3.4).
    About (1, 1, 1) at D65.
    """
    powers = np.array([1.0, 1e3 / temperature, 1e6 / temperature**2, 1e9 / temperature**3])
    if temperature <= 7000:
        x = powers @ (0.244063, 0.09911, 2.9678, -4.6070)
    else:
        x = powers @ (0.237040, 0.24748, 1.9018, -2.0064)
    y = -3.000 * x**2 + 2.870 * x - 0.275
    return np.asarray(_RGB_OF_XYZ @ (x / y, 1.0, (1 - x - y) / y))


def _curves(gains: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return curves from sRGB to sRGB, (3, 256), that multiply linear light by one gain a channel."""
    values = np.arange(256) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    brighter = np.clip(gains[:, None] * linear, 0, 1)
    encoded = np.where(
        brighter <= 0.0031308, brighter * 12.92, 1.055 * brighter ** (1 / 2.4) - 0.055
    )
    return np.asarray(np.round(encoded * 255), np.uint8)
