"""Search at random for the parameters that do best.

`python search.py COUNT` streams so many candidates into a job and shows each that is the best until then, as the
results come. `python search.py COUNT --print` only prints the candidates, one JSON object a line.
"""

import json
import random
import sys
from collections.abc import Iterator

import cortex


def main(count: int, only_print: bool) -> None:
    if only_print:
        for candidate in candidates(count):
            print(json.dumps(candidate))
        return
    client = cortex.client()
    job = client.submit_stream("tuning", candidates(count), batch_size=2, workers=2, results=True)
    print(f"job {job['job_id']} tries {count} candidates")
    best = 0.0
    for answer in client.job_results("tuning", job["job_id"], follow=True):
        for tried in answer["reply"]:
            if tried["accuracy"] > best:
                best = tried["accuracy"]
                print(f"batch {answer['batch']:3}: {best:.1%} with C={tried['C']:.3g} gamma={tried['gamma']:.3g}")
    print(client.wait("tuning", job["job_id"])["job_status"]["status"])


def candidates(count: int) -> Iterator[dict[str, float]]:
    """Each is made when it is sent: there may be any number of them."""
    chance = random.Random(7)
    for _ in range(count):
        yield {"C": 10 ** chance.uniform(-2, 3), "gamma": 10 ** chance.uniform(-5, 0)}


if __name__ == "__main__":
    main(int(sys.argv[1]), "--print" in sys.argv)
