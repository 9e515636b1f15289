"""Any field of a config is set by its name, and nothing else is."""

from __future__ import annotations

import pytest

from evhands.paper_recipes import semi_recipe
from evhands.recipes import small_recipe
from evhands.settings import changed
from evhands.types import InputError


def test_fields_are_set_by_name_whatever_they_hold():
    config = changed(
        semi_recipe(),
        {
            "learning_rate": "1e-3",
            "model.pose.hidden": "64",
            "model.pose.encoder.channels": [8, 16],
            "split": {"validation": ["2"]},
            "split.test": '["9"]',
            "weights.contrast": -1,
            "augment": None,
            "hours": "0.5",
        },
    )
    assert config.learning_rate == 1e-3 and config.model.pose.hidden == 64 and config.hours == 0.5
    assert config.model.pose.encoder.channels == (8, 16) and config.augment is None
    assert config.split.validation == ("2",) and config.split.test == ("9",)
    assert config.weights == {**semi_recipe().weights, "contrast": -1}
    assert config.windows == semi_recipe().windows and changed(semi_recipe(), {}) == semi_recipe()
    assert changed(small_recipe(), {"images": 8}).images == 8


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"lerning_rate": 1.0}, "lerning_rate"),
        ({"model.pose.hiden": 1}, "model.pose.hiden"),
        ({"weights.kontrast": 1}, "weights.kontrast"),
        ({"batch": "many"}, "batch"),
        ({"split": {"validation": 7}}, "split.validation"),
        ({"stage": "fourth"}, "stage"),
        ({"model": 3}, "model"),
    ],
)
def test_unknown_keys_and_wrong_values_are_named(change, word):
    with pytest.raises(InputError, match=word):
        changed(semi_recipe(), change)
