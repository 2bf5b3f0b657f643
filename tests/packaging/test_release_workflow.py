"""The release workflow: publishing waits for every check, and nothing else may publish."""

from pathlib import Path

import pytest

WORKFLOW = Path(__file__).parents[2] / ".github" / "workflows" / "release.yml"


def test_publishing_waits_for_every_other_job():
    yaml = pytest.importorskip("yaml")
    jobs = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]
    publish = jobs.pop("publish")
    assert set(publish["needs"]) == set(jobs)
    assert not any("id-token" in job.get("permissions", {}) for job in jobs.values())
