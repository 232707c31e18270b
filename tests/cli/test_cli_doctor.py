"""`mmfree doctor`: what it finds on this machine and on others."""

from __future__ import annotations

import dataclasses
import shutil

import pytest
from invoking import invoke, invoke_json

from mmfree_compiler import doctor
from mmfree_compiler.backends.cpu import checks, features
from mmfree_compiler.backends.cpu.compile import toolchains
from mmfree_compiler.backends.packages import Package


def test_doctor() -> None:
    found = invoke_json("doctor")
    checks = {check["name"]: check for check in found["checks"]}
    assert found["healthy"] is True
    assert checks["numpy"]["status"] == "ok"
    assert checks.keys() >= {"platformdirs", "linker"}
    others = [c["found"] for c in found["checks"] if c["status"] == "elsewhere"]
    assert any("this machine is" in reason for reason in others)  # variants of another architecture


def test_doctor_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = Package("no-such-package", "nothing", "cpu")
    needed = Package("no-such-base", "run", "")
    monkeypatch.setattr(doctor, "PACKAGES", (absent,))
    found = {check["name"]: check for check in invoke_json("doctor")["checks"]}
    assert found["no-such-package"]["status"] == "missing"
    assert found["no-such-package"]["hint"] == "pip install 'mmfree-compiler[cpu]'"
    monkeypatch.setattr(doctor, "PACKAGES", (needed,))
    assert invoke_json("doctor", code=1)["healthy"] is False
    assert "failed" in invoke("doctor", code=1)


def test_doctor_looks_for_the_linker_that_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    def status(wanted: str) -> str:
        monkeypatch.setenv("MMFREE_LINKER", wanted)
        return checks._linker().status

    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert [status(wanted) for wanted in ("", "system", "nonsense")] == ["ok", "failed", "failed"]
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/cc")
    assert status("system") == "ok"
    absent = dataclasses.replace(toolchains.TOOLCHAINS["zig"], find=lambda: None)
    monkeypatch.setitem(toolchains.TOOLCHAINS, "zig", absent)
    assert [status(wanted) for wanted in ("", "zig")] == ["ok", "failed"]


def test_doctor_on_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "machine_arch", lambda: "riscv64")
    found = invoke_json("doctor", code=1)
    assert {"cpu target"} == {c["name"] for c in found["checks"] if c["status"] == "failed"}
