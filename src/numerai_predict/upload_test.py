from email import policy
from email.parser import BytesParser
from urllib.parse import urlencode

import pytest

from numerai_predict.conftest import Answer, Received, s3_error

FIELDS = {"key": "user/live_predictions.csv", "policy": "s3cret+/=", "empty": ""}


def good(live_features):
    return live_features["feature_a"].rank(pct=True, method="first").to_frame("prediction")


def parts(received: Received) -> list[tuple[str, object]]:
    """The parts of a multipart form: (name, content), in their order."""
    head = f"Content-Type: {received.headers['Content-Type']}\r\n\r\n".encode()
    form = BytesParser(policy=policy.HTTP).parsebytes(head + received.body)
    return [
        (part["Content-Disposition"].params["name"], part.get_payload(decode=True))
        for part in form.iter_parts()
    ]


@pytest.fixture
def upload(run, pickled, server):
    def upload(*answers):
        url = server.on("/bucket", *answers) + "?s3cret"
        post = [f"--post_url={url}", f"--post_data={urlencode(FIELDS)}"]
        return run(pickled(good), *post, "--debug")

    return upload


@pytest.mark.parametrize("status", [200, 201, 204])
def test_the_predictions_are_posted_after_the_fields(upload, server, status):
    done = upload(Answer(status=status))
    assert done.code == 0, done.log
    (received,) = server.received
    *fields, file = parts(received)
    assert fields == [(name, value.encode()) for name, value in FIELDS.items()]
    assert file == ("file", done.csv.read_bytes())
    assert f"Uploading {done.csv} to {server.url}/bucket\n" in done.log
    assert "s3cret" not in done.log


def test_every_try_sends_the_whole_body(upload, server):
    done = upload(Answer(status=500), Answer(status=503), Answer(status=204))
    assert done.code == 0, done.log
    assert len(server.received) == 3
    for received in server.received:
        assert parts(received)[-1] == ("file", done.csv.read_bytes())


@pytest.mark.parametrize(
    "answer, tries, says",
    [
        (s3_error(403, "AccessDenied", "Policy expired"), 1, "AccessDenied: Policy expired"),
        (s3_error(400, "EntityTooLarge"), 1, "larger than the presigned POST allows"),
        (Answer(status=202), 1, "HTTP 202"),
        (Answer(status=503), 5, "HTTP 503"),
    ],
)
def test_a_refused_upload_exits_8_and_keeps_the_predictions(upload, server, answer, tries, says):
    done = upload(answer)
    assert done.code == 8
    assert says in done.log
    assert f"the predictions are kept in {done.csv}" in done.log
    assert len(server.received) == tries
    assert "s3cret" not in done.log


def test_nobody_there(run, pickled, closed_port):
    done = run(
        pickled(good), f"--post_url={closed_port}/?s3cret", "--post_data=a=s3cret", "--debug"
    )
    assert done.code == 8
    assert "Connection refused" in done.log
    assert f"kept in {done.csv}" in done.log
    assert "s3cret" not in done.log
