"""Files for people and for programs alike."""

import json

from harness.files import in_lines


def test_every_value_has_a_line_but_lists_of_numbers_one_together() -> None:
    document = {
        "runs": [0.1, 2, 3e-05, 0.0],
        "names": ["a [b]", "c\n  d"],
        "none": [],
        "deep": [{"x": [1]}],
    }
    text = in_lines(document)
    assert json.loads(text) == document
    assert '  "runs": [0.1, 2, 3e-05, 0.0],\n' in text
    assert '    "a [b]",\n' in text
    assert '"x": [1]' in text
