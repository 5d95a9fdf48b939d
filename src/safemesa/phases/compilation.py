"""The persistent compilation cache, which all processes of a person share."""

import os
from pathlib import Path


def use_compilation_cache() -> None:
    """Turns the cache on; call before the first compilation."""
    import jax

    if compilation_cache() is None:
        default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        jax.config.update("jax_compilation_cache_dir", str(default / "safemesa" / "jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def compilation_cache() -> str | None:
    """Folder of JAX's persistent compilation cache."""
    import jax

    return jax.config.values["jax_compilation_cache_dir"]
