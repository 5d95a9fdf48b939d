"""The runtime runs on Python 3.10, which robots with ROS 2 Humble have."""

import ast
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from shields import make_shield_folder

from safemesa.shield import runtime

SOURCE = Path(runtime.__file__).read_text()
NEWER = {
    "asyncio": ("Barrier", "Runner", "TaskGroup", "timeout"),
    "contextlib": ("chdir",),
    "datetime": ("UTC",),
    "enum": (
        *("CONTINUOUS", "EJECT", "EnumCheck", "FlagBoundary", "KEEP", "NAMED_FLAGS", "ReprEnum"),
        *("STRICT", "CONFORM", "StrEnum", "UNIQUE", "global_enum", "member", "nonmember"),
        *("property", "verify"),
    ),
    "hashlib": ("file_digest",),
    "itertools": ("batched",),
    "math": ("cbrt", "exp2", "fma", "sumprod"),
    "operator": ("call", "is_none"),
    "os": ("process_cpu_count", "listdrives"),
    "typing": (
        *("LiteralString", "Never", "NotRequired", "Required", "Self", "TypeAliasType", "Unpack"),
        *("TypeVarTuple", "assert_never", "assert_type", "clear_overloads", "dataclass_transform"),
        *("get_overloads", "override", "reveal_type", "get_protocol_members"),
    ),
}
"""Names that Python 3.11 and later added to modules that the runtime imports or may import."""
NEWER_BUILTINS = {"BaseExceptionGroup", "ExceptionGroup", "PythonFinalizationError"}
NEWER_MODULES = {"tomllib", "wsgiref.types"}


def newer_names(source: str) -> list[str]:
    """Uses of what Python 3.10 lacks."""
    found = []
    for node in ast.walk(ast.parse(source, feature_version=(3, 10))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.attr in NEWER.get(node.value.id, ()):
                found.append(f"{node.value.id}.{node.attr}")
        elif isinstance(node, ast.ImportFrom):
            found += [
                f"{node.module}.{one.name}"
                for one in node.names
                if one.name in NEWER.get(node.module or "", ())
            ]
        elif isinstance(node, ast.Name) and node.id in NEWER_BUILTINS:
            found.append(node.id)
        if isinstance(node, ast.Import):
            found += [one.name for one in node.names if one.name in NEWER_MODULES]
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            # BaseException.add_note is of 3.11, Path.walk of 3.12.
            found += [node.func.attr] * (node.func.attr in ("add_note", "walk"))
    return found


def test_the_source_has_nothing_newer() -> None:
    assert newer_names(SOURCE) == []
    ast.parse(SOURCE, feature_version=(3, 10))


@pytest.mark.parametrize(
    "code",
    [
        "import enum\nclass A(enum.StrEnum): pass",
        "from enum import StrEnum",
        "from typing import Self",
        "import datetime\ndatetime.UTC",
        "import tomllib",
        "try: pass\nexcept ExceptionGroup: pass",
        "error.add_note('x')",
    ],
)
def test_the_check_finds_what_is_newer(code: str) -> None:
    assert newer_names(code) != []


def test_the_check_refuses_newer_syntax() -> None:
    for code in ("try: pass\nexcept* ValueError: pass", "class A[T]: pass", "type X = int"):
        with pytest.raises(SyntaxError):
            ast.parse(code, feature_version=(3, 10))


def python(version: str) -> str | None:
    """A Python of this version, if there is one at hand."""
    return os.environ.get(f"SAFEMESA_PYTHON_{version.replace('.', '')}") or shutil.which(
        f"python{version}"
    )


def runs(interpreter: str | None, code: str) -> bool:
    if interpreter is None:
        return False
    result = subprocess.run([interpreter, "-c", code], capture_output=True, timeout=100)
    return result.returncode == 0


def test_it_runs_on_python_310(tmp_path: Path) -> None:
    """With a Python 3.10 that has NumPy and safetensors: `SAFEMESA_PYTHON_310=.../python`."""
    interpreter = python("3.10")
    is_it = "import sys, numpy, safetensors; assert sys.version_info[:2] == (3, 10)"
    if interpreter is None or not runs(interpreter, is_it):
        pytest.skip("no Python 3.10 with NumPy and safetensors: set SAFEMESA_PYTHON_310")
    folder = make_shield_folder(tmp_path / "shield")
    code = """
import pickle, sys
import numpy as np
sys.path.insert(0, sys.argv[1])
from safemesa_shield import Reason, Shield, read_black_box
box = sys.argv[1] + ".jsonl"
shield = Shield.load(sys.argv[1], mode="enforce", black_box=box)
decision = shield.guarded_step(lambda obs: [0.0, 0.5], np.zeros(3))
shield.decide(None, None, now="noon")
pickle.loads(pickle.dumps(shield)).decide([np.nan] * 3, None)
print(f"{decision.risk:.6f} {Reason.OK} {Reason.OK:>4}", len(read_black_box(box)) >= 2)
"""
    environment = {**os.environ, "PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1"}
    run = [interpreter, "-W", "error", "-c", code, str(folder)]
    result = subprocess.run(run, capture_output=True, text=True, timeout=100, env=environment)
    risk = runtime.Shield.load(folder).risks(np.zeros((1, 3)), np.array([[0.0, 0.5]]))[0]
    assert result.stdout.split() == [f"{risk:.6f}", "ok", "ok", "True"], result.stderr
    for verb in ("check", "seal"):
        run = [interpreter, str(folder / "safemesa_shield.py"), verb]
        result = subprocess.run(run, capture_output=True, text=True, timeout=100, env=environment)
        assert result.returncode == 0, result.stderr


def test_an_older_python_is_told_which_it_needs() -> None:
    lines = SOURCE.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("if sys.version_info"))
    assert "import sys" in lines[:first]
    others = [line for line in lines[:first] if line.startswith(("import ", "from "))]
    assert others == ["import sys"], "nothing is imported before the check"
    ast.parse(SOURCE, feature_version=(3, 8))
    old = python("3.8")
    if runs(old, "import sys; assert sys.version_info < (3, 10)"):
        run = [str(old), runtime.__file__, "check"]
        result = subprocess.run(run, capture_output=True, text=True, timeout=100)
        assert "needs Python 3.10 or later" in result.stderr
