"""Does a new robot's log mean the same by its signals as the logs that a prior learned from?

Names and bounds are compared elsewhere; here are units, and the size of what was measured.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from safemesa.core.errors import DatasetError
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.networks.normaliser import Normaliser

OTHER_SIZE = 20.0
"""Standard deviations of the prior's logs: degrees are 57 times as large as radians."""
ENOUGH_ROWS = 100
"""Fewer may be of a robot at rest."""


class OtherUnitWarning(UserWarning):
    """A signal is of another size than the prior knows it."""


def units_of(provenance: Mapping[str, Any]) -> dict[str, str]:
    """Units by signal name, where a dataset's provenance tells them."""
    units = provenance.get("units")
    known = units if isinstance(units, Mapping) else {}
    return {name: unit for name, unit in known.items() if isinstance(unit, str) and unit}


def check_same_signals(
    data: OfflineTasks, normaliser: Normaliser, units: Mapping[str, str]
) -> None:
    """Compares the only log of `data` with what a prior learned from.

    Args:
        data: has a test log, or one log.
        normaliser: the prior's.
        units: of the prior's logs, by signal name; those it does not name are unknown.

    Raises:
        DatasetError: both say the unit of a signal, and not the same.
    """
    own = units_of(data.provenance)
    other = {
        name: (own[name], units[name]) for name in own if units.get(name, own[name]) != own[name]
    }
    if other:
        name, (given, wanted) = next(iter(other.items()))
        raise DatasetError(
            f"dataset {data.domain!r}: {name} is in {given!r}, and the prior learned from logs in "
            f"{wanted!r}. Convert it in the import map (scale, offset, unit)."
        )
    log = data.only_log()
    obs = np.asarray(log.columns["obs"], np.float64)
    scaled = (obs - np.asarray(normaliser.mean)) / np.asarray(normaliser.std)
    size, spread = np.quantile(np.abs(scaled), 0.95, axis=0), scaled.std(axis=0)
    for index, name in enumerate(data.spaces.obs_names):
        small = log.transitions >= ENOUGH_ROWS and 0 < spread[index] < 1 / OTHER_SIZE
        if size[index] > OTHER_SIZE:
            what = f"lies {size[index]:.0f} standard deviations from the mean"
        elif small:
            what = f"varies by {spread[index]:.2g} standard deviations"
        else:
            continue
        warnings.warn(
            f"{name} of the new robot {what} of the logs that the prior learned from. Another "
            "unit, or another robot? The risk knows nothing there.",
            OtherUnitWarning,
            stacklevel=2,
        )
