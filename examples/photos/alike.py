"""Show which photos look alike, the largest first: `cortex results photos JOB | python alike.py`."""

import json
import sys
from typing import Any

DIFFERENT_BITS = 6  # of 64; two photos that have nothing in common differ in about 32


def main() -> None:
    photos = [photo for line in sys.stdin for photo in json.loads(line)["reply"]]
    groups: list[list[dict[str, Any]]] = []
    for photo in sorted((photo for photo in photos if "hash" in photo), key=lambda photo: -photo["pixels"]):
        group = next((group for group in groups if alike(group[0], photo)), None)
        groups.append([photo]) if group is None else group.append(photo)
    for group in sorted(groups, key=lambda group: str(group[0]["path"])):
        if len(group) > 1:
            print("  =  ".join("/".join(photo["path"].split("/")[-2:]) for photo in group))
    copies = sum(len(group) - 1 for group in groups)
    print(f"{len(photos)} files: {len(groups)} different photos, {copies} copies of them")
    for photo in photos:
        if "error" in photo:
            print(f"not readable: {photo['path']} ({photo['error']})")


def alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return (int(one["hash"], 16) ^ int(other["hash"], 16)).bit_count() <= DIFFERENT_BITS


if __name__ == "__main__":
    main()
