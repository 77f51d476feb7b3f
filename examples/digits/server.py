"""A web server that recognises handwritten digits, a batch at a time.

It is an ordinary FastAPI application. Each request to `/` carries a batch; a 200 says that its predictions are on disk.
When the job is complete, one request to `/on-job-complete` asks for the summary.
"""

import asyncio
import json
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Header, HTTPException
from pydantic import BaseModel, Field

RESULTS = Path(os.environ["RESULTS_DIR"])
PROCESS = uuid.uuid4().hex  # every process of this server writes a file of its own

model: Any = None  # a trained classifier, once there is one


class Item(BaseModel):
    id: int
    pixels: Annotated[list[int], Field(min_length=64, max_length=64)]  # 8 by 8, from 0 to 16


def train() -> Any:
    """Learn from every other digit of the 1,797; the ones between are there to be classified."""
    from sklearn.datasets import load_digits
    from sklearn.ensemble import RandomForestClassifier

    digits = load_digits()
    return RandomForestClassifier(random_state=0).fit(digits.data[::2], digits.target[::2])


async def become_ready() -> None:
    global model
    model = await asyncio.to_thread(train)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    training = asyncio.create_task(become_ready())  # meanwhile /healthz answers 503
    yield
    training.cancel()


app = FastAPI(title="digits", lifespan=lifespan)
JobId = Annotated[str, Header(alias="X-Cortex-Job-ID")]


@app.get("/healthz")
def healthz() -> str:
    if model is None:
        raise HTTPException(503, "training")
    return "ready"


@app.post("/")
def classify(batch: list[Item], job_id: JobId) -> list[dict[str, int]]:
    digits = model.predict([item.pixels for item in batch])
    predictions = [{"id": item.id, "digit": int(digit)} for item, digit in zip(batch, digits, strict=True)]
    directory = RESULTS / job_id
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / f"{PROCESS}.ndjson", "a") as file:
        for prediction in predictions:
            file.write(json.dumps(prediction) + "\n")
        file.flush()
        os.fsync(file.fileno())  # the answer 200 promises that this batch is done
    return predictions  # a job with `results` keeps them for `cortex results`


@app.post("/on-job-complete")
def summarise(job_id: JobId) -> dict[str, Any]:
    from sklearn.datasets import load_digits

    truth = load_digits().target
    predictions = read_predictions(RESULTS / job_id)
    correct = sum(digit == truth[item] for item, digit in predictions.items())
    summary = {"accuracy": correct / len(predictions), "items": len(predictions), "correct": int(correct)}
    (RESULTS / job_id / "accuracy.json").write_text(json.dumps(summary))
    return summary


def read_predictions(directory: Path) -> dict[int, int]:
    """Every worker's predictions by item: a batch that was delivered twice still counts once."""
    predictions = {}
    for path in directory.glob("*.ndjson"):
        for line in path.read_text().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # a worker ended in the middle of a line; its batch was delivered again
            predictions[entry["id"]] = entry["digit"]
    return predictions
