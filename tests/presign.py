"""Calls boto3's S3 client, in an environment that has it.

    python presign.py ENDPOINT ACCESS_KEY SECRET_KEY < CALLS

CALLS is a JSON list of [method, arguments]; a JSON list of what they return is printed. The body of
an object comes as text, and of other answers nothing.
"""

import json
import sys

import boto3  # pants: no-infer-dep
from botocore.config import Config  # pants: no-infer-dep


def main(endpoint: str, access_key: str, secret_key: str) -> None:
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
    )

    def call(method: str, arguments: dict) -> object:
        result = getattr(client, method)(**arguments)
        if isinstance(result, dict) and "ResponseMetadata" in result:
            return result["Body"].read().decode() if "Body" in result else None
        return result

    json.dump([call(*one) for one in json.load(sys.stdin)], sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
