"""What surrounds the code: licence, metadata, workflows, scripts of CI."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def _yaml(path):
    return yaml.safe_load(path.read_text())


def _steps(path):
    return [step for job in _yaml(path)["jobs"].values() for step in job["steps"]]


def test_there_are_workflows_for_changes_nights_and_releases():
    assert [path.stem for path in WORKFLOWS] == ["checks", "nightly", "release"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_action_is_pinned_to_a_commit_with_its_version_beside(path):
    used = re.findall(r"uses: (.*)", path.read_text())
    assert used
    for line in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line


def test_one_action_has_one_pin():
    pins = {}
    for path in WORKFLOWS:
        for name, pin in re.findall(r"uses: (\S+)@(.*)", path.read_text()):
            assert pins.setdefault(name, pin) == pin


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_only_read_and_leaves_no_token_in_the_checkout(path):
    workflow = _yaml(path)
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        granted = job.get("permissions", {})
        assert not granted or path.stem == "release"
        assert {"contents", "actions", "packages"} & {
            name for name, level in granted.items() if level == "write"
        } == set()
    for step in _steps(path):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_no_text_from_outside_becomes_shell(path):
    """`${{ github… }}` inside `run` would be pasted into the script before a shell reads it."""
    assert [step["run"] for step in _steps(path) if "${{" in step.get("run", "")] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_the_scripts_that_a_workflow_runs_are_there(path):
    for script in re.findall(r"(?<![\w/])(\.ci/\w+)(?![\w.])", path.read_text()):
        assert os.access(ROOT / script, os.X_OK), script


def test_the_surroundings_of_the_night_are_those_of_the_script():
    kinds = _yaml(ROOT / ".github/workflows/nightly.yml")["jobs"]["surroundings"]["strategy"]["matrix"]["surroundings"]
    script = (ROOT / ".ci/surroundings").read_text()
    assert set(re.findall(r"(?m)^  ([a-z0-9-]+)\)", script)) == set(kinds)


@pytest.mark.parametrize("form", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.stem)
def test_an_issue_form_asks_named_questions(form):
    asked = [part for part in _yaml(form)["body"] if part["type"] != "markdown"]
    assert len({part["id"] for part in asked}) == len(asked) > 1
    assert any(part.get("validations", {}).get("required") for part in asked)


def test_metadata_names_the_licence_and_what_ci_tries():
    assert PROJECT["license"] == "Apache-2.0"
    assert set(PROJECT["license-files"]) == {"LICENSE", "NOTICE"}
    assert "Version 2.0, January 2004" in (ROOT / "LICENSE").read_text()
    assert "END OF TERMS AND CONDITIONS" in (ROOT / "LICENSE").read_text()
    tried = set(_yaml(ROOT / ".github/workflows/checks.yml")["jobs"]["tests"]["strategy"]["matrix"]["python"])
    named = {line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)}
    assert named <= tried


def test_citation_names_this_version_and_licence():
    citation = _yaml(ROOT / "CITATION.cff")
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])


def test_the_version_script_asks_for_a_dated_heading(tmp_path):
    for name in ("pyproject.toml", "CITATION.cff"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci/version").write_text((ROOT / ".ci/version").read_text())
    for text, version, code in (
        (f"## [{PROJECT['version']}]\n", PROJECT["version"], 1),
        (f"## [{PROJECT['version']}] - 2026-12-01\n", PROJECT["version"], 0),
        (f"## [{PROJECT['version']}] - 2026-12-01\n", "99.0.0", 1),
    ):
        (tmp_path / "CHANGELOG.md").write_text(text)
        done = subprocess.run(["bash", ".ci/version", version], cwd=tmp_path, capture_output=True, check=False)
        assert done.returncode == code, done.stderr
