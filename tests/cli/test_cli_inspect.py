"""`mmfree inspect`: what it says about an artifact, to people and to machines."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization as forms
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from invoking import invoke, invoke_json

from mmfree_compiler import compiler
from mmfree_compiler.artifact import binding, read_artifact, sign
from mmfree_compiler.backends.cpu.compile import compiler as cpu_compiler
from mmfree_compiler.backends.cpu.compile import density
from mmfree_compiler.backends.cpu.facts import ABI


def test_inspect(tiny_artifact: Path) -> None:
    found = invoke_json("inspect", tiny_artifact)
    (target,) = found["targets"]
    assert sum(found["bytes"].values()) == found["file_bytes"] == tiny_artifact.stat().st_size
    assert (found["layers"], target["about"]["variants"]) == (2, "portable")
    assert target["target"] == "cpu:portable"
    assert target["about"]["runs here with"].startswith("portable (")
    (build,) = target["builds"]
    assert (build["name"], build["facts"]["layout"]) == ("portable", "tile16_2bit")
    assert found["fingerprint"] == read_artifact(tiny_artifact).manifest.fingerprint
    # A layer: i, f, g, o of 64 x 64, gate and up of 256 x 64, down of 64 x 256; a head of 257 x 64.
    ternary = 2 * (4 * 64 * 64 + 3 * 64 * 256) + 257 * 64
    assert found["ternary_parameters"] == ternary
    # Also the embedding; a layer's norms (8 of 64, one of 256) and lower bounds; two last norms.
    assert found["parameters"] == ternary + 257 * 64 + 2 * (9 * 64 + 256) + 2 * 64
    # Only the head's last tile has rows that are padding.
    assert 8 * found["bytes"]["packed ternary"] / ternary == pytest.approx(2, rel=0.01)
    assert target["about"]["bits per ternary weight"] == "2: portable"
    assert found["passes"][-2:] == ["group_stages", "roll_layers"]
    assert target["passes"] == ["copy_rows", "pack_weights", "plan_memory"]
    assert found["state_bytes_per_sequence"] == 2 * 64 * 4
    assert found["fp32_bytes"] == 4 * found["parameters"]
    assert "notes" not in found


def about(model: Path) -> Any:
    """What the only target says of a model."""
    (target,) = invoke_json("inspect", model)["targets"]
    return target["about"]


def test_inspect_for_people(tiny_artifact: Path) -> None:
    text = invoke("inspect", tiny_artifact)
    assert "portable" in text
    assert "packed ternary" in text
    assert "Notes" not in text
    assert "Notes" in invoke("inspect", tiny_artifact, "--notes")


def test_inspect_shows_who_signed(tiny_artifact: Path, tmp_path: Path) -> None:
    found = invoke_json("inspect", tiny_artifact)
    assert (found["signed_by"], found["signature_verified"]) == (None, False)
    assert re.search("signature +none *\n", invoke("inspect", tiny_artifact))
    signed, key = tmp_path / "signed.mmfree", Ed25519PrivateKey.generate()
    shutil.copy(tiny_artifact, signed)
    pem = forms.Encoding.PEM
    plain = forms.NoEncryption()
    sign(signed, key.private_bytes(pem, forms.PrivateFormat.PKCS8, plain))
    owner = key.public_key().public_bytes_raw().hex()
    found = invoke_json("inspect", signed)
    assert (found["signed_by"], found["signature_verified"]) == (owner, False)
    shown = "".join(invoke("inspect", signed).split())  # the key may be folded
    assert f"by{owner}(notverified:" in shown
    public = tmp_path / "public.pem"
    form = forms.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(key.public_key().public_bytes(pem, form))
    found = invoke_json("inspect", signed, "--require-signature", public)
    assert (found["signed_by"], found["signature_verified"]) == (owner, True)


def test_inspect_has_the_notes_of_every_pass(tiny_artifact: Path) -> None:
    notes = [tuple(note) for note in invoke_json("inspect", tiny_artifact, "--notes")["notes"]]
    assert notes == list(read_artifact(tiny_artifact).manifest.all_notes)
    assert ("roll_layers", "stage 1", "2 iterations of 4 stages") in notes
    ran = {"ternarize", "group_stages", "roll_layers", "copy_rows", "pack_weights", "plan_memory"}
    assert ran <= {name for name, _, _ in notes}
    said = " ".join(invoke("inspect", tiny_artifact, "--notes").split())
    assert "2 iterations of 4 stages" in said


def test_inspect_of_weights_in_two_layouts(
    tiny_checkpoint: Path, tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each variant reads one of them; the weights are counted once."""
    monkeypatch.setattr(density, "CACHE_BYTES", 0)
    none = binding.NOTE + bytes(binding.SIZE)  # code that nothing here runs
    monkeypatch.setattr(cpu_compiler, "libraries", lambda *given: dict.fromkeys(given[2], none))
    output = tmp_path / "both.mmfree"
    invoke("compile", tiny_checkpoint, "-o", output, "--target", "cpu:x86-64-avx512vbmi,portable")
    found, one = invoke_json("inspect", output), invoke_json("inspect", tiny_artifact)
    same = ("parameters", "ternary_parameters", "layers", "fingerprint", "fp32_bytes")
    assert {name: found[name] for name in same} == {name: one[name] for name in same}
    (target,), (alone,) = found["targets"], one["targets"]
    assert target["about"]["bits per ternary weight"] == "1.6: x86-64-avx512vbmi; 2: portable"
    assert found["bytes"]["packed ternary"] > 1.7 * one["bytes"]["packed ternary"]
    assert target["weights_bytes"] < alone["weights_bytes"]
    assert sum(found["bytes"].values()) == found["file_bytes"] == output.stat().st_size


def test_inspect_of_a_target_that_keeps_its_constants_itself(
    tiny_checkpoint: Path, tiny_artifact: Path, tmp_path: Path
) -> None:
    """What is unknown is null; another target in the file makes it known, wherever it stands."""
    same = ("parameters", "ternary_parameters", "fp16_bytes", "fp32_bytes")
    alone, both = tmp_path / "model.onnx", tmp_path / "both.mmfree"
    compiler.compile(tiny_checkpoint, "onnx", check=False).save(alone)
    compiler.compile(tiny_checkpoint, ("onnx", "fpga"), check=False).save(both)
    found, known = invoke_json("inspect", alone), invoke_json("inspect", tiny_artifact)
    assert [found[name] for name in same] == 4 * [None]
    found = invoke_json("inspect", both)
    assert [found[name] for name in same] == [known[name] for name in same]
    assert "weights in fp16" in invoke("inspect", both)
    assert "weights in fp16" not in invoke("inspect", alone)


def test_inspect_where_no_variant_runs(
    tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMFREE_VARIANT", "other")
    found = about(tiny_artifact)["runs here with"]
    assert found == "none of them: variant other: is not in the artifact"
    assert "none of them" in invoke("inspect", tiny_artifact)


@pytest.mark.parametrize("target", ["unheard", "unheard:of"])
def test_inspect_without_the_backend(tiny_artifact: Path, tmp_path: Path, target: str) -> None:
    """All that does not depend on it is shown, and what is missing is said."""
    read_artifact(tiny_artifact).rebuilt({}, {"target": target}).save(tmp_path / "other")
    found, usual = invoke_json("inspect", tmp_path / "other"), invoke_json("inspect", tiny_artifact)
    (said,) = (target["about"] for target in found["targets"])
    assert said["builds"] == "portable"
    assert "target 'unheard': is unknown" in said["runs here with"]
    for name in ("parameters", "bytes", "layers", "state_bytes_per_sequence"):
        if name != "bytes":
            assert found[name] == usual[name]
    assert "unheard" in invoke("inspect", tmp_path / "other")


@pytest.mark.parametrize("sizes", [{}, {"vocab_size": None, "hidden_size": "x"}], ids=str)
def test_inspect_of_a_model_without_sizes(
    tiny_artifact: Path, tmp_path: Path, sizes: dict[str, object]
) -> None:
    model = {"tie_word_embeddings": True, **sizes}
    read_artifact(tiny_artifact).rebuilt({}, model=model).save(tmp_path / "other")
    assert invoke_json("inspect", tmp_path / "other")["parameters"] > 0


def test_inspect_sends_no_control_characters(tiny_artifact: Path, tmp_path: Path) -> None:
    evil = "a\x1b[2J\x1b]0;title\x07\u202e\x9b31m"
    model = {"num_hidden_layers": evil}
    said = {"notes": ((evil, evil, evil),), "passes": (evil,)}
    changed = read_artifact(tiny_artifact).rebuilt({}, {"target": evil} | said, model=model, **said)
    changed.save(tmp_path / "evil")
    text = invoke("inspect", tmp_path / "evil", "--notes")
    assert "\\x1b[2J" in text
    assert text.replace("\n", "").isprintable()
    assert invoke("inspect", tmp_path / "evil", "--json").replace("\n", "").isprintable()


def test_inspect_of_another_calling_convention(
    tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmfree_compiler.backends.cpu.choose.ABI", ABI + 1)
    found = about(tiny_artifact)["runs here with"]
    assert found.startswith("none of them: build portable: uses calling convention")
    assert f"this runtime supports {ABI + 1}" in " ".join(invoke("inspect", tiny_artifact).split())
