"""`publish` to a real registry: what others then pull, look at and check."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any, Callable, Dict, Iterator

import pytest
from pants.core.goals.package import BuiltPackage
from pants.core.goals.publish import Publish
from pants.engine.addresses import Address
from pants.engine.fs import DigestContents
from pants.engine.internals.scheduler import ExecutionError
from pants.testutil.rule_runner import RuleRunner, mock_console

from oci.goals.package import PackageImageFieldSet
from oci.testutil.image_runner import image_runner
from oci.testutil.registry import PASSWORD, Registry, logged_in, missing
from oci.util_rules.release_tools import ReleaseTools

COMMIT = "0123456789abcdef0123456789abcdef01234567"
RELEASE_LOCK = "3rdparty/debian/trixie.lock"
BUILD = """
debian_layer(name="os", lock="3rdparty/debian/bookworm.lock", set="os", omit=["usr/bin", "usr/share"])
debian_layer(name="tools", lock="3rdparty/debian/bookworm.lock", set="shell", base=["os"], omit=["usr/bin/*", "!usr/bin/busybox"])

oci_image(
    name="image",
    repository="hello",
    layers=[":os", ":tools"],
    entrypoint=["/usr/bin/busybox", "echo", "hello"],
    platforms=["linux/amd64", "linux/arm64"],
)

oci_image(name="debug", repository="debug", layers=[":os"], entrypoint=["/a"], skip_push=True, platforms=["linux/amd64", "linux/arm64"])
"""
# How long a secret is, or how it is encoded, is nobody's business either.
KEY_PASSWORD = "a key's password"

Tool = Callable[..., str]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    if lacks := missing():
        pytest.skip(f"no {', '.join(lacks)} here; Debian's packages have these names")
    with Registry(tmp_path_factory.mktemp("registry")).running() as registry:
        yield registry


@pytest.fixture(scope="module")
def runner() -> RuleRunner:
    runner = image_runner()
    runner.write_files({"BUILD": BUILD, RELEASE_LOCK: Path(RELEASE_LOCK).read_text()})
    runner.write_files({"poetry.lock": "pins\n"})
    return runner


@pytest.fixture(scope="module")
def env(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Dict[str, str]:
    """How somebody who may push reaches the registry."""
    known = logged_in(tmp_path_factory.mktemp("docker"), registry.host)
    return {**known, "SSL_CERT_FILE": str(registry.authority)}


class Published:
    """What somebody at a terminal sees: the goal's last lines, and what programs said."""

    def __init__(
        self,
        runner: RuleRunner,
        registry: str,
        env: Dict[str, str],
        *options: str,
        git_ref: str = COMMIT,
    ) -> None:
        args = (f"--oci-registry={registry}", f"--oci-git-ref={git_ref}", *options)
        with mock_console(runner.options_bootstrapper) as (_, stdio):
            done = runner.run_goal_rule(
                Publish,
                global_args=["--source-root-patterns=/src", "--oci-provenance-inputs=poetry.lock"],
                args=[*args, "//:image", "//:debug"],
                env=env,
                env_inherit={"PATH", "PYENV_ROOT", "HOME", "DEBIAN_MIRROR"},
            )
            self.said = stdio.get_stdout() + stdio.get_stderr() + done.stdout + done.stderr
        self.exit_code = done.exit_code


@pytest.fixture(scope="module")
def key(tool: Tool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("key")
    tool("cosign", "generate-key-pair", cwd=folder, COSIGN_PASSWORD=KEY_PASSWORD)
    return folder / "cosign.key"


@pytest.fixture(scope="module")
def signing(key: Path) -> tuple[str, ...]:
    return (f"--oci-signing-key={key}", "--no-oci-transparency-log")


@pytest.fixture(scope="module")
def tool(runner: RuleRunner, env: Dict[str, str]) -> Tool:
    """Runs skopeo, oras or cosign as anybody would, and returns what it prints."""
    tools = runner.request(ReleaseTools, [])
    runner.write_digest(tools.digest)

    def run(name: str, *args: str, cwd: Path | None = None, **variables: str) -> str:
        argv = [word.replace("{chroot}", runner.build_root) for word in tools.programs[name]]
        done = subprocess.run(
            (*argv, *args), cwd=cwd, env={**env, **variables}, capture_output=True, text=True
        )
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, name, done.stdout, done.stderr)
        return done.stdout

    return run


@pytest.fixture(scope="module")
def published(
    runner: RuleRunner, registry: Registry, env: Dict[str, str], signing: tuple[str, ...]
) -> Published:
    tags = "--oci-publish-tags=['latest', 'stable']"
    secret = {"COSIGN_PASSWORD": KEY_PASSWORD}
    return Published(runner, f"{registry.host}/team", {**env, **secret}, tags, *signing)


@pytest.fixture(scope="module")
def files(runner: RuleRunner, published: Published) -> Dict[str, bytes]:
    """What `package` makes of the same source."""
    target = runner.get_target(Address("", target_name="image"))
    package = runner.request(BuiltPackage, [PackageImageFieldSet.create(target)])
    contents = runner.request(DigestContents, [package.digest])
    return {Path(file.path).name: file.content for file in contents}


@pytest.fixture(scope="module")
def image(files: Dict[str, bytes]) -> Dict[str, Any]:
    return json.loads(files["image.json"])


@pytest.fixture(scope="module")
def name(registry: Registry) -> str:
    return f"{registry.host}/team/hello"


def test_every_tag_is_the_digest_that_was_built(published, image, tool, name):
    assert published.exit_code == 0, published.said
    for tag in (COMMIT, "latest", "stable"):
        raw = tool("skopeo", "inspect", "--raw", f"docker://{name}:{tag}")
        assert f"sha256:{hashlib.sha256(raw.encode()).hexdigest()}" == image["digest"]
    manifests = {each["digest"] for each in json.loads(raw)["manifests"]}
    assert manifests == {platform["digest"] for platform in image["platforms"].values()}
    assert sorted(image["platforms"]) == ["linux/amd64", "linux/arm64"]


def test_docker_pulls_and_runs_it(published, image, env, name):
    if shutil.which("docker") is None or subprocess.run(("docker", "info")).returncode:
        pytest.skip("no Docker engine answers")

    def docker(*args: str) -> str:
        argv = ("docker", "--config", env["DOCKER_CONFIG"], *args)
        return subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout

    try:
        assert image["digest"] in docker("pull", f"{name}:latest")
        assert docker("run", "--rm", f"{name}:latest") == "hello\n"
    finally:
        docker("rmi", "--force", f"{name}:latest")


def test_images_for_debugging_stay_here(published, registry):
    assert "debug skipped" in published.said
    assert registry.tags("team/debug") == []


def test_what_is_there_is_not_sent_again(published, runner, registry, env):
    before = registry.uploads()
    assert before > 0
    again = Published(runner, f"{registry.host}/team", env)
    assert again.exit_code == 0, again.said
    assert registry.uploads() == before


def test_documents_are_referrers(published, files, image, tool, name, tmp_path):
    for platform, built in image["platforms"].items():
        found = json.loads(tool("oras", "discover", "--format=json", f"{name}@{built['digest']}"))
        kinds = {each["artifactType"]: each["digest"] for each in found["manifests"]}
        for ending, kind in (
            (".cdx.json", "application/vnd.cyclonedx+json"),
            (".spdx.json", "application/spdx+json"),
        ):
            file = platform.replace("/", "-") + ending
            tool("oras", "pull", f"{name}@{kinds[kind]}", cwd=tmp_path)
            assert (tmp_path / file).read_bytes() == files[file]


def test_the_provenance_names_what_went_in(published, image, tool, name, tmp_path):
    found = json.loads(tool("oras", "discover", "--format=json", f"{name}:{COMMIT}"))
    (statement,) = (
        each["digest"]
        for each in found["manifests"]
        if each["artifactType"] == "application/vnd.in-toto+json"
    )
    tool("oras", "pull", f"{name}@{statement}", cwd=tmp_path)
    said = json.loads((tmp_path / "provenance.intoto.json").read_text())
    (subject,) = said["subject"]
    assert subject == {"name": name, "digest": {"sha256": image["digest"][len("sha256:") :]}}
    definition = said["predicate"]["buildDefinition"]
    assert definition["externalParameters"]["git_ref"] == COMMIT
    digests = {each["name"]: each["digest"] for each in definition["resolvedDependencies"]}
    assert digests["source"] == {"gitCommit": COMMIT}
    assert digests["poetry.lock"] == {"sha256": hashlib.sha256(b"pins\n").hexdigest()}
    lock = Path("3rdparty/debian/bookworm.lock")
    assert digests[str(lock)] == {"sha256": hashlib.sha256(lock.read_bytes()).hexdigest()}


def test_its_signature_is_verified(published, key, image, tool, name):
    verify = ("--key", str(key.with_name("cosign.pub")), "--insecure-ignore-tlog")
    said = json.loads(tool("cosign", "verify", *verify, f"{name}:latest"))
    assert said[0]["critical"]["image"]["docker-manifest-digest"] == image["digest"]
    for built in image["platforms"].values():
        tool("cosign", "verify", *verify, f"{name}@{built['digest']}")
    attested = tool(
        "cosign", "verify-attestation", *verify, "--type=slsaprovenance1", f"{name}:latest"
    )
    assert attested


def test_another_image_is_not_verified(published, image, files, key, tool, name, tmp_path):
    """Neither without a signature, nor with that of the image whose place it takes."""
    archive = tmp_path / "image.tar"
    archive.write_bytes(files["image.tar"])
    copy = ("--insecure-policy", "copy", "--format=v2s2")
    tool("skopeo", *copy, f"oci-archive:{archive}", f"docker://{name}:rogue")
    raw = tool("skopeo", "inspect", "--raw", f"docker://{name}:rogue").encode()
    rogue = f"sha256-{hashlib.sha256(raw).hexdigest()}"

    verify = ("--key", str(key.with_name("cosign.pub")), "--insecure-ignore-tlog")
    with pytest.raises(subprocess.CalledProcessError) as refused:
        tool("cosign", "verify", *verify, f"{name}:rogue")
    assert "no signatures found" in refused.value.stderr

    signature = f"{image['digest'].replace(':', '-')}.sig"
    tool("oras", "copy", f"{name}:{signature}", f"{name}:{rogue}.sig")
    with pytest.raises(subprocess.CalledProcessError) as refused:
        tool("cosign", "verify", *verify, f"{name}:rogue")
    assert "digest" in refused.value.stderr


def test_secrets_are_not_said(published, key):
    for secret in (PASSWORD, KEY_PASSWORD, key.read_text()):
        assert secret not in published.said


def test_a_wrong_password_is_told(runner, registry, env, tmp_path):
    known = logged_in(tmp_path / "docker", registry.host, password="wrong staple")
    done = Published(runner, f"{registry.host}/team", {**env, **known})
    assert done.exit_code == 1
    assert f"Log in with `docker login {registry.host}`" in done.said
    assert "wrong staple" not in done.said


def test_without_tls_or_its_authority_nothing_is_sent(runner, registry, env):
    before = registry.uploads()
    done = Published(runner, f"{registry.host}/team", {**env, "SSL_CERT_FILE": "/dev/null"})
    assert done.exit_code == 1
    assert "certificate" in done.said
    assert registry.uploads() == before


def test_a_push_that_was_cut_off_names_nothing(published, runner, registry, env, tmp_path):
    options = ("--oci-publish-tags=next",)
    with line_that_is_cut(registry.port, after=1_000_000) as port:
        known = logged_in(tmp_path / "docker", f"127.0.0.1:{port}")
        # Another repository, into which nothing was pushed yet.
        done = Published(runner, f"127.0.0.1:{port}/cut", {**env, **known}, *options)
    assert done.exit_code == 1
    assert "publish again, which sends only what the registry lacks" in done.said
    assert registry.tags("cut/hello") == []

    again = Published(runner, f"{registry.host}/cut", env, *options)
    assert again.exit_code == 0, again.said
    assert registry.tags("cut/hello") == [COMMIT, "next"]


@contextlib.contextmanager
def line_that_is_cut(port: int, after: int) -> Iterator[int]:
    """A port from which `after` bytes reach another one, and then none any more."""
    left = [after]
    listening = socket.create_server(("127.0.0.1", 0))

    def carry(source: socket.socket, drain: socket.socket, counts: bool) -> None:
        with contextlib.suppress(OSError):
            while (data := source.recv(65536)) and left[0] > 0:
                left[0] -= len(data) * counts
                drain.sendall(data)
        for end in (source, drain):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listening.accept()
                if left[0] <= 0:
                    client.close()
                    continue
                server = socket.create_connection(("127.0.0.1", port))
                for way in ((client, server, True), (server, client, False)):
                    threading.Thread(target=carry, args=way, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listening.getsockname()[1]
    finally:
        listening.close()
    assert left[0] <= 0, "it was not cut"


@pytest.mark.parametrize(
    "registry, git_ref, option, says",
    [
        ("", COMMIT, "--platform=linux/amd64", "publish needs --oci-registry"),
        ("registry.example", "", "--platform=linux/amd64", "publish needs --oci-git-ref"),
        ("registry.example", "main", "--platform=linux/amd64", "is a full commit id"),
        ("registry.example", COMMIT, "--platform=linux/arm64", "lacks linux/amd64; nothing is"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_pushed(runner, registry, git_ref, option, says):
    with pytest.raises(ExecutionError, match=says):
        Published(runner, registry, {}, option.replace("--", "--oci-"), git_ref=git_ref)
