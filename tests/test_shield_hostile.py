"""Hostile and damaged model folders are refused quickly, with a typed error, and nothing in them
runs.
"""

import hashlib
import io
import json
import os
import pickle
import shutil
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from shields import edit_manifest, make_shield_folder

from safemesa.shield.runtime import ModelError, Shield, check_folder, read_manifest

EXECUTED = "SAFEMESA_HOSTILE_FILE_WAS_EXECUTED"


class Bomb:
    """Unpickling it leaves a trace."""

    def __reduce__(self) -> Any:
        return os.putenv, (EXECUTED, "1")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shield_folder(tmp_path_factory.mktemp("shields") / "sound")


def set_weights(folder: Path, data: bytes) -> None:
    """Writes weights and vouches for them, as a forger would."""
    (folder / "weights.safetensors").write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    edit_manifest(folder, lambda m: m["files"].update({"weights.safetensors": digest}))


def change_tensor(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable:
    def apply(folder: Path) -> None:
        tensors = safetensors.numpy.load_file(folder / "weights.safetensors")
        tensors[name] = np.ascontiguousarray(change(tensors[name]))
        set_weights(folder, safetensors.numpy.save(tensors))

    return apply


def header(change: Callable[[dict[str, Any]], Any]) -> Callable:
    """Changes the header of the weights and leaves their bytes."""

    def apply(folder: Path) -> None:
        data = (folder / "weights.safetensors").read_bytes()
        length = struct.unpack("<Q", data[:8])[0]
        entries = json.loads(data[8 : 8 + length])
        entries = change(entries) or entries
        text = json.dumps(entries).encode()
        set_weights(folder, struct.pack("<Q", len(text)) + text + data[8 + length :])

    return apply


def manifest(change: Callable[[dict[str, Any]], Any]) -> Callable:
    return lambda folder: edit_manifest(folder, change)


def text(change: Callable[[str], str]) -> Callable:
    def apply(folder: Path) -> None:
        path = folder / "manifest.json"
        path.write_text(change(path.read_text()))

    return apply


def archive_with_slip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("../../outside", "slipped")
        archive.writestr("archive/data.pkl", pickle.dumps(Bomb()))
    return buffer.getvalue()


def npz_of_objects() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=True, weights=np.array([Bomb()], dtype=object))
    return buffer.getvalue()


def replace_by_pipe(folder: Path) -> None:
    (folder / "weights.safetensors").unlink()
    os.mkfifo(folder / "weights.safetensors")


def replace_by_device(folder: Path) -> None:
    (folder / "weights.safetensors").unlink()
    (folder / "weights.safetensors").symlink_to("/dev/zero")


def sparse_manifest(folder: Path) -> None:
    with open(folder / "manifest.json", "r+b") as file:
        file.truncate(2**40)


def flip_a_bit(folder: Path) -> None:
    path = folder / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def first(entries: dict[str, Any]) -> dict[str, Any]:
    return entries["critic.weights.0"]


HOSTILE: dict[str, Callable[[Path], Any]] = {
    "pickle_as_weights": lambda f: set_weights(f, pickle.dumps(Bomb())),
    "pickle_as_manifest": lambda f: (f / "manifest.json").write_bytes(pickle.dumps(Bomb())),
    "zip_slip_as_weights": lambda f: set_weights(f, archive_with_slip()),
    "object_npz_as_weights": lambda f: set_weights(f, npz_of_objects()),
    "truncated_weights": lambda f: set_weights(f, (f / "weights.safetensors").read_bytes()[:-100]),
    "empty_weights": lambda f: set_weights(f, b""),
    "longer_weights": lambda f: set_weights(
        f, (f / "weights.safetensors").read_bytes() + bytes(100)
    ),
    "hash_mismatch": flip_a_bit,
    "no_weights": lambda f: (f / "weights.safetensors").unlink(),
    "weights_are_a_pipe": replace_by_pipe,
    "weights_are_a_device": replace_by_device,
    "weights_are_a_folder": lambda f: (
        (f / "weights.safetensors").unlink(),
        (f / "weights.safetensors").mkdir(),
    ),
    "header_length_absurd": lambda f: set_weights(f, struct.pack("<Q", 2**63) + bytes(1000)),
    "header_shape_absurd": header(lambda h: first(h).update(shape=[2**60, 2**60])),
    "header_shape_negative": header(lambda h: first(h).update(shape=[-1, 5, 8])),
    "header_offsets_overlap": header(lambda h: first(h).update(data_offsets=[0, 4])),
    "header_offsets_outside": header(lambda h: first(h).update(data_offsets=[0, 2**50])),
    "header_dtype_unknown": header(lambda h: first(h).update(dtype="OBJECT")),
    "header_is_a_list": header(lambda h: [1, 2, 3]),
    "nan_weights": change_tensor("critic.weights.0", lambda w: w * np.float32(np.nan)),
    "infinite_weights": change_tensor("recovery.biases.1", lambda b: b + np.float32(np.inf)),
    "wrong_rank": change_tensor("critic.weights.0", lambda w: w.reshape(-1)),
    "wrong_shape": change_tensor("recovery.weights.0", lambda w: w.T),
    "half_precision": change_tensor(
        "critic.weights.1", lambda w: np.concatenate([w, w], axis=1).astype(np.float16)
    ),
    "renamed_tensor": header(lambda h: h.update({"evil": h.pop("critic.biases.0")})),
    "no_manifest": lambda f: (f / "manifest.json").unlink(),
    "huge_manifest": sparse_manifest,
    "deep_json": lambda f: (f / "manifest.json").write_text("[" * 400_000 + "]" * 400_000),
    "deep_object": text(lambda t: t[:-1] + ', "x": ' + '{"a":' * 100_000 + "1" + "}" * 100_001),
    "huge_number": text(lambda t: t.replace('"dt": 0.05', '"dt": ' + "9" * 100_000)),
    "nan_in_json": text(lambda t: t.replace('"dt": 0.05', '"dt": NaN')),
    "infinite_limit": text(lambda t: t.replace('"limit": 0.5', '"limit": 1e999')),
    "name_given_twice": text(lambda t: t.replace('"dt": 0.05', '"dt": 0.05, "dt": 50.0')),
    "not_utf8": lambda f: (f / "manifest.json").write_bytes(b'{"kind": "\xff\xfe"}'),
    "manifest_is_a_list": lambda f: (f / "manifest.json").write_text("[]"),
    "another_kind": manifest(lambda m: m.update(kind="prior")),
    "future_format": manifest(lambda m: m.update(format=99)),
    "layers_absurd": manifest(
        lambda m: m["shield"]["networks"].update(critic=[5, 8192, 8192, 8192, 1])
    ),
    "layers_not_numbers": manifest(lambda m: m["shield"]["networks"].update(critic=[5, "8", 1])),
    "layers_do_not_fit": manifest(lambda m: m["shield"]["networks"].update(recovery=[4, 8, 2])),
    "members_absurd": manifest(lambda m: m["shield"]["networks"].update(members=2**40)),
    "signals_absurd": manifest(
        lambda m: m["shield"].update(observations=m["shield"]["observations"] * 2000)
    ),
    "signal_named_twice": manifest(lambda m: m["shield"]["observations"][0].update(name="angle")),
    "zero_std": manifest(lambda m: m["shield"]["observations"][0].update(std=0)),
    "limits_swapped": manifest(lambda m: m["shield"]["actions"][0].update(low=3.0)),
    "limit_is_text": manifest(lambda m: m["shield"]["actions"][0].update(high="2.0")),
    "limit_is_true": manifest(lambda m: m["shield"]["actions"][0].update(high=True)),
    "unsafe_safe_action": manifest(lambda m: m["shield"]["actions"][0].update(safe=2.5)),
    "unknown_setting": manifest(lambda m: m["shield"]["actions"][0].update(hihg=1.0)),
    "missing_setting": manifest(lambda m: m["shield"].pop("timing")),
    "risk_limit_above_one": manifest(lambda m: m["shield"]["risk"].update(limit=1.5)),
    "release_above_limit": manifest(lambda m: m["shield"]["risk"].update(release_limit=0.6)),
    "answers_differ": manifest(lambda m: m["known_answers"]["risks"].__setitem__(0, 0.123)),
    "answers_absurd": manifest(lambda m: m.update(known_answers={"risks": [[[]]]})),
    "another_normaliser": manifest(lambda m: m["shield"]["observations"][0].update(mean=7.0)),
}


def assert_refused(load: Callable[[], Any]) -> None:
    start = time.perf_counter()
    with pytest.raises(ModelError) as caught:
        load()
    assert time.perf_counter() - start < 2.0
    assert len(str(caught.value)) < 2_000
    assert os.getenv(EXECUTED) is None


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_folders_are_refused(sound: Path, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "shield"
    shutil.copytree(sound, folder)
    HOSTILE[kind](folder)
    before = sorted(tmp_path.rglob("*"))
    assert_refused(lambda: Shield.load(folder))
    assert_refused(lambda: check_folder(folder))
    assert sorted(tmp_path.rglob("*")) == before
    emergency = Shield.load(folder, mode="enforce", emergency_action=[0.0, 0.5])
    assert emergency.decide([0.0] * 3, [1.0, 1.0]).action.tolist() == [0.0, 0.5]


def test_files_that_are_no_folder(tmp_path: Path) -> None:
    (tmp_path / "shield.zip").write_bytes(archive_with_slip())
    for path in (tmp_path / "shield.zip", tmp_path / "nowhere", tmp_path):
        assert_refused(lambda path=path: Shield.load(path))


def test_a_list_of_files_that_leads_outside(sound: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shield"
    shutil.copytree(sound, folder)
    secret = tmp_path / "secret"
    secret.write_text("secret")
    digest = hashlib.sha256(b"secret").hexdigest()
    for name in ("../secret", str(secret), "a/../../secret", ".."):
        edit_manifest(folder, lambda m, name=name: m["files"].update({name: digest}))
        assert_refused(lambda: check_folder(folder))
        edit_manifest(folder, lambda m, name=name: m["files"].pop(name))
    assert check_folder(folder)["risk_limit"] == 0.5


def test_a_changed_runtime_or_card_is_found_by_check(sound: Path, tmp_path: Path) -> None:
    for name in ("safemesa_shield.py", "MODEL_CARD.md"):
        folder = tmp_path / name
        shutil.copytree(sound, folder)
        with open(folder / name, "a") as file:
            file.write("# changed\n")
        assert_refused(lambda folder=folder: check_folder(folder))


def test_a_pinned_manifest_admits_no_other(sound: Path) -> None:
    pin = check_folder(sound)["manifest_sha256"]
    assert Shield.load(sound, sha256=pin).mode == "monitor"
    assert_refused(lambda: Shield.load(sound, sha256="0" * 64))


def test_the_sound_folder_loads(sound: Path) -> None:
    """What the hostile ones are made from is refused for its changes alone."""
    assert read_manifest(sound)["kind"] == "shield"
    assert Shield.load(sound, mode="enforce").mode == "enforce"
