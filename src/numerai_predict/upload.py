"""Hand in a predictions file by a presigned S3 POST."""

from __future__ import annotations

import logging
from pathlib import Path

import requests

from numerai_predict import web
from numerai_predict.errors import UploadFailed

log = logging.getLogger(__name__)

ACCEPTED = (200, 201, 204)  # what S3 answers, depending on success_action_status


def upload(csv: Path, url: str, fields: list[tuple[str, str]]) -> None:
    """POST a file as the multipart field `file`, after the other fields, as S3 wants it.

    Args:
        csv: the predictions; kept, whatever happens.
        url: the presigned POST's address.
        fields: its form fields; secrets, never logged.

    Raises:
        UploadFailed: refused, or unreachable after retries.
    """
    shown = web.public_part(url)
    kept = f"the predictions are kept in {csv}"
    log.info("Uploading %s to %s", csv, shown)
    try:
        with web.session() as http:
            response = http.post(
                url,
                data=fields,
                files={"file": (csv.name, csv.read_bytes(), "text/csv")},
                timeout=web.TIMEOUT,
            )
            if response.status_code not in ACCEPTED:
                refusal = web.explain_refusal(response)
                raise UploadFailed(f"{shown} refused the upload: {refusal}; {kept}")
    except requests.RequestException as fault:
        raise UploadFailed(
            f"cannot upload to {shown}: {web.explain_fault(fault)}; {kept}"
        ) from None
    log.info("Uploaded")
