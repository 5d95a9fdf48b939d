"""Flags of XLA with which tests spend less time in the compiler. Free of JAX, which reads them."""

import importlib.util
import mmap
from pathlib import Path


def jaxlib_knows(flag: str) -> bool:
    """Whether a flag's name is in this jaxlib; XLA ends a process that gives it an unknown one."""
    found = importlib.util.find_spec("jaxlib")
    if found is None or found.origin is None:
        return False
    for library in Path(found.origin).parent.glob("*.so"):
        with (
            library.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            if content.find(flag.encode()) >= 0:
                return True
    return False


OLDER_EMITTERS = "xla_cpu_use_fusion_emitters"

# Compiling takes most of the tests' time: a third less without optimisations, and half of the rest
# with the older emitters of loops. The numbers are the same to rounding, which also shows what
# hangs on rounding.
QUICK_TO_COMPILE = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true" + (
    f" --{OLDER_EMITTERS}=false" if jaxlib_knows(OLDER_EMITTERS) else ""
)
