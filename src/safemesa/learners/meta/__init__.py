"""Meta-learners: each makes the prior of Phase 1. Names are imported when they are used."""

from typing import TYPE_CHECKING

from safemesa.core.lazy import lazy_names

if TYPE_CHECKING:
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
    from safemesa.learners.meta.settings import (
        MAMLSettings as MAMLSettings,
        MetaSettings as MetaSettings,
    )

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        **dict.fromkeys(
            (
                "AbstractMetaLearner",
                "BatchPlan",
                "MetaState",
                "constant_step_sizes",
                "inner_loop",
                "outer_optimiser",
            ),
            f"{__name__}.base",
        ),
        **dict.fromkeys(("MAMLSettings", "MetaSettings"), f"{__name__}.settings"),
        "MAML": f"{__name__}.maml",
        "MetaSGD": f"{__name__}.meta_sgd",
        "MultiTask": f"{__name__}.multitask",
        "Scratch": f"{__name__}.scratch",
        "meta_learners": f"{__name__}.registry",
    },
)
