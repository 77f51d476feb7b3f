"""Tells how well a classifier does with the parameters that it is given: an item is one choice of them."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, PositiveFloat
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

app = FastAPI(title="tuning")
tumours = load_breast_cancer()  # 569 tumours, 30 measurements each: which are malignant?


class Candidate(BaseModel):
    C: PositiveFloat
    gamma: PositiveFloat


@app.post("/")
def evaluate(batch: list[Candidate]) -> list[dict[str, Any]]:
    return [candidate.model_dump() | {"accuracy": accuracy(candidate)} for candidate in batch]


def accuracy(candidate: Candidate) -> float:
    classifier = make_pipeline(StandardScaler(), SVC(C=candidate.C, gamma=candidate.gamma))
    return float(cross_val_score(classifier, tumours.data, tumours.target, cv=5).mean())
