"""What a safety critic bootstraps with. Importing this package registers all of them."""

from safemesa.learners.targets.base import AbstractTarget as AbstractTarget
from safemesa.learners.targets.least import LeastRisk as LeastRisk
from safemesa.learners.targets.mixture import Mixture as Mixture
from safemesa.learners.targets.registry import make_target as make_target, targets as targets
from safemesa.learners.targets.sampled import Sampled as Sampled
