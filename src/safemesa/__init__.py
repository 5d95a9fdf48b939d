"""Learn a risk measure from logs of many robots, adapt it to a new one, keep that robot safe.

Public names are imported when they are first used, so `import safemesa` is cheap: it imports no
JAX. It registers the domains, so that `gymnasium.make("safemesa/Navigation1-v0")` works.
"""

from typing import TYPE_CHECKING

from safemesa._version import __version__
from safemesa.core.lazy import lazy_names
from safemesa.domains.registration import register_environments

if TYPE_CHECKING:
    from safemesa.core.errors import SafemesaError
    from safemesa.datasets.offline_tasks import OfflineTasks
    from safemesa.experiments.arms import configure
    from safemesa.phases.api import adapt, collect_test, collect_train, deploy, meta_train, run_arm
    from safemesa.phases.config import RunConfig
    from safemesa.phases.storage.artefacts import Prior, RiskModel, load_prior, load_risk_model

__all__ = [
    "OfflineTasks",
    "Prior",
    "RiskModel",
    "RunConfig",
    "SafemesaError",
    "__version__",
    "adapt",
    "collect_test",
    "collect_train",
    "configure",
    "deploy",
    "load_prior",
    "load_risk_model",
    "meta_train",
    "run_arm",
]

_HOME_OF = {
    "OfflineTasks": "safemesa.datasets.offline_tasks",
    "Prior": "safemesa.phases.storage.artefacts",
    "RiskModel": "safemesa.phases.storage.artefacts",
    "RunConfig": "safemesa.phases.config",
    "SafemesaError": "safemesa.core.errors",
    "adapt": "safemesa.phases.api",
    "collect_test": "safemesa.phases.api",
    "collect_train": "safemesa.phases.api",
    "configure": "safemesa.experiments.arms",
    "deploy": "safemesa.phases.api",
    "load_prior": "safemesa.phases.storage.artefacts",
    "load_risk_model": "safemesa.phases.storage.artefacts",
    "meta_train": "safemesa.phases.api",
    "run_arm": "safemesa.phases.api",
}

register_environments()

__getattr__, __dir__ = lazy_names(__name__, _HOME_OF)
