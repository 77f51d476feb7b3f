"""The file that says how workers run as pods."""

from pathlib import Path

import pytest

from services.common.settings import SettingsError
from services.scheduler.adapters.kubernetes_workers import load_settings

LEAST = "dequeuer_image: d:1\nscheduler_address: dns:///s:1\npublic_url: http://g\n"


def test_three_lines_are_enough(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(LEAST)
    settings = load_settings(tmp_path / "s.yaml")
    assert settings.node_selector == {"workload": "true"}
    assert [each["key"] for each in settings.tolerations] == ["workload", "nvidia.com/gpu", "aws.amazon.com/neuron"]
    assert settings.group_names is None
    assert not settings.privileged


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("nodes: 1", "nodes"),
        ("grace_seconds: 5", "at least 15, not 5"),
        ("image_pull_policy: Sometimes", "Sometimes"),
        ("node_groups: [{name: a, priority: 101}]", "node group a must be 1 to 100, not 101"),
        ("node_groups: [{priority: 1}]", "name"),
        ("a: [", "expected"),
    ],
)
def test_mistakes_are_told_with_file_and_place(tmp_path: Path, more: str, told: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(LEAST + more)
    with pytest.raises(SettingsError, match=told) as error:
        load_settings(path)
    assert str(path) in error.value.message


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        load_settings(tmp_path / "none.yaml")
