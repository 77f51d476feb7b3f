"""Worker tokens: JWTs signed by the ledger's secret, for one worker of a job or for all, valid for an hour."""

import time

import jwt

from services.common.errors import Category, CortexError
from services.scheduler.usecases.ports.tokens import Identity

VALID_SECONDS = 3600
AUDIENCE = "cortex-worker"


class JwtTokens:
    """Signs with HS256."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def sign(self, job_id: str, worker_id: str) -> str:
        """A token for one worker of one job; for any worker of it when `worker_id` is empty."""
        claims = {"aud": AUDIENCE, "job": job_id, "sub": worker_id, "exp": int(time.time()) + VALID_SECONDS}
        return jwt.encode(claims, self._secret, algorithm="HS256")

    def verify(self, token: str) -> Identity:
        """Whom the token was made for. Raises `CortexError` (UNAUTHENTICATED) when it is not ours or too old."""
        try:
            claims = jwt.decode(
                token, self._secret, algorithms=["HS256"], audience=AUDIENCE, options={"require": ["exp", "sub", "job"]}
            )
        except jwt.PyJWTError as error:
            raise CortexError(
                "worker.bad_token", f"the worker's token is not valid: {error}", Category.UNAUTHENTICATED
            ) from error
        return Identity(claims["job"], claims["sub"], VALID_SECONDS / 2)
