"""The meta-learners by name."""

from safemesa.core.registry import Registry
from safemesa.learners.meta.base import AbstractMetaLearner

meta_learners: Registry[type[AbstractMetaLearner]] = Registry("meta-learner")
