"""`safemesa doctor`: is this installation sound?"""

import os
import platform
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

from safemesa.cli.arguments import parse, prepare_jax
from safemesa.core.errors import SafemesaError
from safemesa.phases.compilation import compilation_cache


@dataclass(frozen=True, kw_only=True)
class DoctorFlags:
    """Checks versions, devices, compilation, environments and file writing."""


def main(verb: str, arguments: Sequence[str]) -> None:
    """Prints a line per check; exits with an error if one failed."""
    parse(DoctorFlags, verb, arguments)
    checks: tuple[tuple[str, Callable[[], str]], ...] = (
        ("python", lambda: f"{platform.python_version()} on {platform.machine()}"),
        ("packages", _packages),
        ("extras", _extras),
        ("devices", _devices),
        ("compilation", _compilation),
        ("environments", _environments),
        ("files", _files),
    )
    failed = []
    for name, check in checks:
        try:
            print(f"ok      {name}: {check()}")
        except Exception as error:
            failed.append(name)
            print(f"FAILED  {name}: {type(error).__name__}: {error}")
    if failed:
        raise SafemesaError(f"{', '.join(failed)} failed; see above.")
    print("All is well.")


def _packages() -> str:
    names = ("safemesa", "jax", "jaxlib", "equinox", "optax", "safetensors", "gymnasium", "numpy")
    return ", ".join(f"{name} {metadata.version(name)}" for name in names)


def _extras() -> str:
    modules = {
        "plots": ("matplotlib",),
        "tensorboard": ("tensorboardX",),
        "mujoco": ("mujoco", "imageio"),
        "data": ("pyarrow", "h5py"),
        "robots": ("rosbags", "mcap", "mcap_protobuf", "pyulog", "pyarrow"),
        "minari": ("minari", "h5py"),
        "onnx": ("onnx", "onnxruntime"),
        "slurm": ("submitit",),
    }
    return ", ".join(
        f"{extra} {'yes' if all(map(util.find_spec, needed)) else 'no'}"
        for extra, needed in modules.items()
    )


def _devices() -> str:
    import jax

    devices = ", ".join(str(device) for device in jax.devices())
    return f"{devices}; {os.cpu_count()} CPU cores"


def _compilation() -> str:
    prepare_jax()
    import jax
    import jax.numpy as jnp

    value = float(jax.jit(jax.grad(lambda x: jnp.sum(jnp.tanh(x) ** 2)))(jnp.ones(3))[0])
    expected = 0.6397
    if abs(value - expected) > 1e-3:
        raise SafemesaError(f"a gradient is {value:.4f}, expected {expected}.")
    return f"gradients compile; cache {compilation_cache()}"


def _environments() -> str:
    import gymnasium

    from safemesa.domains.registration import ENTRIES, HOST_ENVIRONMENT

    ids = sorted(name for name in gymnasium.registry if name.startswith("safemesa/"))
    entries = [ENTRIES[name] for name in ENTRIES]
    simulated = {one.gym_id for one in entries if one.entry_point == HOST_ENVIRONMENT}
    # MuJoCo is an extra: a plain installation is sound without it.
    skipped = [] if util.find_spec("mujoco") else [name for name in ids if name in simulated]
    made = [name for name in ids if name not in skipped]
    for name in made:
        environment = gymnasium.make(name)
        environment.reset(seed=0)
        _, _, _, _, info = environment.step(environment.action_space.sample())
        if "cost" not in info:
            raise SafemesaError(f"{name} reports no cost.")
        environment.close()
    without = f"; without safemesa[mujoco] not tried: {', '.join(skipped)}" if skipped else ""
    return ", ".join(made) + without


def _files() -> str:
    from safemesa.core.files import sha256, write_atomic

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe"
        write_atomic(path, b"safemesa")
        return f"atomic writes work ({sha256(path)[:8]}, {sys.getfilesystemencoding()})"
