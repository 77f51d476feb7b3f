"""The Python client of Cortex batch APIs.

    import cortex

    client = cortex.client()                        # the default environment, else this machine
    client.deploy_from_file("cortex.yaml")
    job = client.submit_job("hello-world", items=[1, 2, 3], batch_size=2, workers=1)
    print(client.wait("hello-world", job["job_id"])["job_status"]["status"])

What these need is loaded when they are called, so that importing this package costs next to nothing.
"""

from typing import TYPE_CHECKING, Any

from cortex import exceptions

if TYPE_CHECKING:
    from cortex._client import Client

__all__ = ["Client", "client", "env_delete", "env_list", "exceptions", "new_client"]


def client(env_name: str | None = None) -> "Client":
    """A client of a configured environment; of the default one when no name is given.

    Where nothing is configured at all, that is the deployment which `cortex up` runs on this machine. Raises `NotFound`
    when there is no such environment.
    """
    from cortex import environments
    from cortex._client import Client

    return Client(environments.load().find(env_name))


def new_client(env_name: str, operator_endpoint: str) -> "Client":
    """Configure an environment (replacing one of that name) and give a client of it."""
    from cortex import environments
    from cortex._client import Client

    environment = environments.Environment.of(env_name, operator_endpoint)
    environments.save(environments.load().with_environment(environment))
    return Client(environment)


def env_list() -> dict[str, Any]:
    """The configured environments: `{"default_environment": NAME, "environments": [{"name", "operator_endpoint"}]}`."""
    from cortex import environments

    return environments.load().as_dict()


def env_delete(name: str) -> None:
    """Forget an environment. Raises `NotFound` when it is not configured."""
    from cortex import environments

    environments.save(environments.load().without(name))


def __getattr__(name: str) -> Any:
    if name == "Client":
        from cortex._client import Client

        return Client
    if name == "__version__":
        from cortex.version import version

        return version()
    raise AttributeError(f"module 'cortex' has no attribute {name!r}")
