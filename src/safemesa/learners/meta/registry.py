"""The meta-learners by name. Free of JAX: their classes are imported when they are asked for."""

from typing import TYPE_CHECKING

from safemesa.core.registry import PluginRegistry
from safemesa.learners.meta.settings import (
    MAMLSettings,
    MetaSettings,
    MetaSGDSettings,
    NoPhase1Settings,
)

if TYPE_CHECKING:
    from safemesa.learners.meta.base import AbstractMetaLearner

meta_learners: "PluginRegistry[type[AbstractMetaLearner]]" = PluginRegistry(
    "meta-learner", MAMLSettings
)

_HERE = "safemesa.learners.meta"
meta_learners.declare("maml", f"{_HERE}.maml:MAML", "MAML", MAMLSettings)
meta_learners.declare("meta_sgd", f"{_HERE}.meta_sgd:MetaSGD", "Meta-SGD", MetaSGDSettings)
meta_learners.declare("multitask", f"{_HERE}.multitask:MultiTask", "Multi-Task", MetaSettings)
meta_learners.declare("scratch", f"{_HERE}.scratch:Scratch", "Scratch", NoPhase1Settings)
