"""Meta-learners: each makes the prior of Phase 1. Importing this package registers all of them."""

from safemesa.learners.meta.base import (
    AbstractMetaLearner as AbstractMetaLearner,
    BatchPlan as BatchPlan,
    MetaState as MetaState,
    constant_step_sizes as constant_step_sizes,
    inner_loop as inner_loop,
    outer_optimiser as outer_optimiser,
)
from safemesa.learners.meta.maml import MAML as MAML
from safemesa.learners.meta.meta_sgd import MetaSGD as MetaSGD
from safemesa.learners.meta.multitask import MultiTask as MultiTask
from safemesa.learners.meta.registry import meta_learners as meta_learners
from safemesa.learners.meta.scratch import Scratch as Scratch
