"""params.yaml may hold what a dataclass reads, and nothing else."""

import pytest

from lib.core.errors import InputError
from lib.core.params import check_params, load_params
from lib.pipeline.schema import further


def test_optional_settings_are_known_and_misspelt_ones_are_not():
    tree = load_params("lib/profiles/quick.yaml")
    tree["photos"] |= {"texture_size": 512, "fit": {"steps": 3}}
    tree["data"]["micc"] |= {"frame_pattern": "%04d.png"}
    tree["siamese"]["runs"]["sv"]["loop"]["precision"] = "32-true"
    check_params(tree, further)
    tree["photos"]["fit"]["stpes"] = 3
    with pytest.raises(InputError, match=r"photos\.fit: unknown stpes.*\n  did you mean steps"):
        check_params(tree, further)
