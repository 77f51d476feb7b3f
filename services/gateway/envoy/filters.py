"""What a request passes on its way through the edge: the rate limit, the token, the router."""

from services.gateway.envoy.any_type import Config, extension
from services.gateway.envoy.routes import HEALTH_SERVICE, PROBES, WORKER_SERVICE
from services.gateway.envoy.settings import Jwt, RateLimit, Settings

JWKS = "jwks"
"""The cluster of the issuer's keys."""
TOKEN_METADATA = "envoy.filters.http.jwt_authn"  # noqa: S105  # a name
_ISSUER = "issuer"
_KEYS_FRESH_S = 300
_FETCH_S = 5
_MAX_CLIENTS = 20_000
"""Addresses whose requests are counted; beyond that, those seen least recently begin anew."""
_NEVER_EMPTY = 4_294_967_295


def edge(settings: Settings) -> list[Config]:
    """The filters of the edge. The limit comes first: signatures cost more than counting."""
    limit = [_rate_limit(settings.rate_limit)] if settings.rate_limit else []
    token = [_token(settings.jwt, work_stream=settings.work_stream)] if settings.jwt else []
    return [*limit, *token, router()]


def router() -> Config:
    """Sends a request on. Neither side sees headers of Envoy's own."""
    message = "envoy.extensions.filters.http.router.v3.Router"
    return extension("envoy.filters.http.router", message, suppress_envoy_headers=True)


def _rate_limit(limit: RateLimit) -> Config:
    """A bucket for each address. Envoy makes a descriptor's bucket for each value where it names only the key."""
    bucket = {
        "max_tokens": limit.burst or 2 * limit.per_second,
        "tokens_per_fill": limit.per_second,
        "fill_interval": "1s",
    }
    return extension(
        "envoy.filters.http.local_ratelimit",
        "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        stat_prefix="edge",
        filter_enabled={"default_value": {"numerator": 100}},
        filter_enforced={"default_value": {"numerator": 100}},
        token_bucket={"max_tokens": _NEVER_EMPTY, "tokens_per_fill": _NEVER_EMPTY, "fill_interval": "1s"},
        always_consume_default_token_bucket=False,
        rate_limits=[{"actions": [{"remote_address": {}}]}],
        descriptors=[{"entries": [{"key": "remote_address"}], "token_bucket": bucket}],
        max_dynamic_descriptors=_MAX_CLIENTS,
        rate_limited_as_resource_exhausted=True,
    )


def _token(jwt: Jwt, *, work_stream: bool) -> Config:
    """Everything needs a token but what machines ask without one. The first rule that matches counts."""
    free = [*({"path": path} for path in PROBES), {"prefix": f"/{HEALTH_SERVICE}/"}]
    if work_stream:
        free.append({"prefix": f"/{WORKER_SERVICE}/"})
    return extension(
        "envoy.filters.http.jwt_authn",
        "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
        providers={_ISSUER: _provider(jwt)},
        rules=[
            *({"match": match} for match in free),
            {"match": {"prefix": "/"}, "requires": {"provider_name": _ISSUER}},
        ],
    )


def _provider(jwt: Jwt) -> Config:
    keys: Config = {"local_jwks": {"filename": jwt.jwks}}
    if jwt.remote:
        fetch = {"uri": jwt.jwks, "cluster": JWKS, "timeout": f"{_FETCH_S}s"}
        keys = {
            "remote_jwks": {
                "http_uri": fetch,
                "cache_duration": f"{_KEYS_FRESH_S}s",
                "async_fetch": {"fast_listener": False, "failed_refetch_duration": "1s"},
                "retry_policy": {"num_retries": 2},
            }
        }
    return {
        "issuer": jwt.issuer,
        "audiences": list(jwt.audiences),
        "require_expiration": True,
        "forward": False,  # nobody behind the edge needs it, so nobody gets it
        "payload_in_metadata": "token",
        **keys,
    }
