"""Print the digits that are to be classified, one JSON object a line: `python items.py`."""

import json
from collections.abc import Iterator
from typing import Any


def items() -> Iterator[dict[str, Any]]:
    """The half of scikit-learn's 1,797 digits from which the server does not learn."""
    from sklearn.datasets import load_digits

    data = load_digits().data
    for number in range(1, len(data), 2):
        yield {"id": number, "pixels": [int(pixel) for pixel in data[number]]}


if __name__ == "__main__":
    for item in items():
        print(json.dumps(item))
