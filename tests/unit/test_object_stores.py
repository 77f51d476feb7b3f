"""All stores as one."""

import pytest

from services.common.errors import CortexError
from services.scheduler.adapters.aws.session import AwsSession
from services.scheduler.adapters.object_stores import ObjectStores


@pytest.mark.parametrize("uri", ["gs://bucket/key", "https://host/x", "/etc/passwd", "", "s3:/x", "S3://b/x"])
async def test_other_schemes_are_refused_by_what_is_accepted(uri: str) -> None:
    stores = ObjectStores(AwsSession({}), [])
    with pytest.raises(CortexError, match=r"s3://BUCKET/KEY and file:///PATH are accepted") as caught:
        await anext(aiter(stores.list(uri)))
    assert caught.value.kind == "aws.invalid_s3_path"
    with pytest.raises(CortexError) as caught:
        await stores.check_writable(uri)
    assert caught.value.kind == "aws.invalid_s3_path"
