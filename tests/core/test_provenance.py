"""What tells two machines apart, with and without /proc/cpuinfo and torch."""

import sys
from pathlib import Path

import pytest

from lib.core import provenance

CPUINFO = """processor\t: 0
cpu family\t: 6
model\t\t: 143
model name\t: A processor
flags\t\t: fpu avx2 avx512f avx512_bf16 amx_bf16 other

processor\t: 1
model\t\t: 999
"""


def test_hardware_names_the_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "CPUINFO", tmp_path / "cpuinfo")
    unknown = provenance.hardware()["cpu"]
    assert "torch" in unknown and "avx2" not in unknown
    (tmp_path / "cpuinfo").write_text(CPUINFO)
    cpu = provenance.hardware()["cpu"]
    assert cpu.startswith("A processor (family 6, model 143, avx2, avx512f, avx512_bf16, amx_bf16, torch ")
    monkeypatch.setitem(sys.modules, "torch", None)  # a machine without it
    assert provenance.hardware()["cpu"] == cpu.rsplit(", torch", 1)[0] + ")"
