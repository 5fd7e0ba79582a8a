from __future__ import annotations

import io
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from rich.console import Console

from pipelines import doctor
from pipelines.doctor import Finding, examine, exit_code, render


def by_subject(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.subject: finding for finding in findings}


def test_this_machine_is_fit_and_everything_is_looked_at(tmp_path: Path) -> None:
    findings = by_subject(examine(tmp_path))
    assert exit_code(findings.values()) == 0, [f for f in findings.values() if f.state == "bad"]
    assert {"python", "torch", "cores", "threads", "memory", "disk"} <= findings.keys()
    assert findings["torch"].value.startswith("2.")


def test_a_missing_core_package_is_bad_and_a_missing_extra_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = ["nosuchthing>=1", 'otherthing>=2; extra == "track"', 'third; extra == "dev"']
    monkeypatch.setattr(doctor, "requires", lambda name: asked)
    found = by_subject(doctor._packages())
    assert found["nosuchthing"].state == "bad"
    assert found["otherthing"].state == "note"
    assert "pip install 'recsys[track]'" in found["otherthing"].remedy
    assert "third" not in found  # the developers' own tools are no user's business
    assert exit_code(found.values()) == 1


def test_a_package_that_is_too_old_is_bad() -> None:
    finding = doctor._package(Requirement("numpy>=999"), None)
    assert finding.state == "bad"
    assert ">=999" in finding.value and "pip install 'numpy>=999'" in finding.remedy


def test_a_requirement_of_another_platform_is_not_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        doctor,
        "requires",
        lambda name: ["winonly>=1; sys_platform == 'nosuchos' and extra == \"serve\""],
    )
    assert "winonly" not in by_subject(doctor._packages())


def test_one_faiss_stands_for_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_installed", lambda name: name == "faiss-cpu")
    finding = doctor._package(Requirement("faiss-gpu>=1"), "gpu")
    assert finding.state == "ok" and "faiss-cpu" in finding.value


def test_a_data_folder_that_is_not_there_is_bad(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RECSYS_DATA_DIR", str(tmp_path / "nowhere"))
    assert exit_code(doctor._variables()) == 1
    monkeypatch.setenv("RECSYS_DATA_DIR", str(tmp_path))
    assert exit_code(doctor._variables()) == 0


def test_little_memory_is_noted_and_does_not_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "MIN_MEMORY_GB", 1e9)
    memory = by_subject(doctor._space(Path.cwd()))["memory"]
    assert memory.state == "note" and memory.remedy


def test_space_is_looked_up_where_results_will_be(tmp_path: Path) -> None:
    disk = by_subject(doctor._space(tmp_path / "not" / "yet" / "made"))["disk"]
    assert str(tmp_path) in disk.value


@pytest.mark.parametrize(
    ("capability", "word"), [("AVX2", "slow"), ("AVX512", "usable"), ("DEFAULT", "slow")]
)
def test_half_precision_depends_on_the_processor(capability: str, word: str) -> None:
    assert word in doctor._half_precision(capability)


def test_a_remedy_with_brackets_can_be_typed_as_it_is_shown() -> None:
    out = io.StringIO()
    remedy = "if you want it: pip install 'recsys[features]'"
    findings = [Finding("feast", "not installed", "note", remedy), Finding("[/x]", "[y]", "ok")]
    render(findings, Console(file=out, width=120))
    assert remedy in out.getvalue()
    assert "[/x]" in out.getvalue() and "[y]" in out.getvalue()


def test_the_table_shows_every_remedy() -> None:
    out = io.StringIO()
    findings = [Finding("a", "1"), Finding("b", "2", "bad", "do this"), Finding("c", "3", "note")]
    render(findings, Console(file=out, width=80))
    text = out.getvalue()
    assert "do this" in text
    assert [line.split()[0] for line in text.splitlines()[1:]] == ["ok", "bad", "note"]
