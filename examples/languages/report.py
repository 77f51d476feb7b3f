"""Join what jobs found with the reviews: `python report.py JOB [JOB ...]`, the first job and those that retried it."""

import gzip
import json
import sys
from collections import defaultdict
from pathlib import Path

import cortex


def main(jobs: list[str]) -> None:
    client = cortex.client()
    answers = (answer for job in jobs for answer in client.job_results("languages", job))
    language_of = {review["id"]: review["language"] for answer in answers for review in answer["reply"]}

    reviews = defaultdict(list)
    for path in sorted(Path("reviews").iterdir()):
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
            for review in map(json.loads, lines):
                text = review.get("text") or review.get("comment")
                reviews[language_of.get(review["id"], "unknown")].append(text)
    for language, texts in sorted(reviews.items()):
        print(f"{language:7} {len(texts):2}  {texts[0]}")


if __name__ == "__main__":
    main(sys.argv[1:])
