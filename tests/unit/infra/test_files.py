"""The files that describe a server: well formed, whole, and true to the code."""

import ast
import itertools
import re
from pathlib import Path

import pytest
import yaml

from infra import services as local_services
from infra.home import Secrets
from infra.services import RAW_BUCKET, STORE_BUCKET, make_label_studio_spec
from tasks.settings import list_settings_variables

SECRETS = Secrets(*"abcdefghij")
REPOSITORY = Path(__file__).resolve().parents[3]
COMPOSE = REPOSITORY / "infra/compose.yaml"


@pytest.fixture(scope="module")
def compose() -> dict:
    return yaml.safe_load(COMPOSE.read_text())


def test_only_known_settings_are_set(compose):
    known = list_settings_variables()
    for name, service in compose["services"].items():
        used = {key for key in service.get("environment", {}) if key.startswith("SEGVIGEN_")}
        assert used <= set(known), f"{name}: {used - set(known)}"


PIPELINE = ("worker-cpu", "worker-gpu", "refine")
# Who may know what. A service that is not named knows none of them.
KNOWERS = {
    "POSTGRES_PASSWORD": {"postgres"},
    "PIPELINE_DATABASE_PASSWORD": {"postgres", *PIPELINE},
    "PREFECT_DATABASE_PASSWORD": {"postgres", "prefect"},
    "LABEL_STUDIO_DATABASE_PASSWORD": {"postgres", "label-studio"},
    "PREFECT_API_AUTH_STRING": {"prefect", "deploy", "worker-cpu", "worker-gpu"},
    "LABEL_STUDIO_USERNAME": {"label-studio"},
    "LABEL_STUDIO_PASSWORD": {"label-studio"},
    "SEGVIGEN_STORE_S3_ACCESS_KEY": {"s3", "worker-cpu", "worker-gpu"},
    "SEGVIGEN_STORE_S3_SECRET_KEY": {"s3", "worker-cpu", "worker-gpu"},
    "SEGVIGEN_REVIEW_S3_ACCESS_KEY": {"s3-reader", *PIPELINE},
    "SEGVIGEN_REVIEW_S3_SECRET_KEY": {"s3-reader", *PIPELINE},
    "SEGVIGEN_REVIEW_API_KEY": {"label-studio", "worker-cpu", "worker-gpu"},
    "SEGVIGEN_REVIEW_WEBHOOK_TOKEN": set(PIPELINE),
    "SEGVIGEN_REVIEW_LIVE_PASSWORD": set(PIPELINE),
}


def test_each_secret_reaches_the_services_that_need_it_and_no_other(compose):
    found: dict[str, set[str]] = {}
    for name, service in compose["services"].items():
        assert "env_file" not in service, f"{name} would get every secret"
        for secret in re.findall(r"\$\{([A-Z0-9_]+)", str(service)):
            found.setdefault(secret, set()).add(name)
    assert found == KNOWERS
    example = (REPOSITORY / ".env.example").read_text().partition("Only for infra/compose")[2]
    assert set(re.findall(r"^([A-Z0-9_]+)=$", example, re.MULTILINE)) == set(KNOWERS)


def test_services_reach_each_other_only_where_they_must(compose):
    members: dict[str, set[str]] = {}
    for name, service in compose["services"].items():
        assert ("networks" in service) != (service.get("network_mode") == "none"), name
        for network in service.get("networks", []):
            members.setdefault(network, set()).add(name)
    workers = {"worker-cpu", "worker-gpu"}
    assert members == {
        "catalogue-db": {"postgres", "refine", *workers},
        "prefect-db": {"postgres", "prefect"},
        "label-studio-db": {"postgres", "label-studio"},
        "control": {"prefect", "deploy", *workers},
        "storage": {"s3", *workers},
        "storage-read": {"s3-reader", "label-studio", "refine", *workers},
        "review": {"label-studio", "refine", *workers},
        "edge": {"s3", "prefect", "refine", "label-studio"},
    }
    inside = {name for name, about in compose["networks"].items() if about.get("internal")}
    assert inside == set(members) - {"edge"}
    published = {name for name, service in compose["services"].items() if "ports" in service}
    assert published == members["edge"]


def test_every_published_port_asks_for_a_login(compose):
    services = compose["services"]
    assert "PREFECT_SERVER_API_AUTH_STRING" in services["prefect"]["environment"]
    assert "RCLONE_AUTH_KEY" in services["s3"]["environment"]
    assert services["label-studio"]["environment"]["LABEL_STUDIO_PASSWORD"]
    assert "SEGVIGEN_REVIEW_LIVE_PASSWORD" in services["refine"]["environment"]
    assert "SEGVIGEN_LIVE_IS_OPEN" not in services["refine"]["environment"]


def test_readers_of_the_buckets_cannot_write(compose):
    reader = compose["services"]["s3-reader"]
    assert "--read-only" in reader["command"] and reader["volumes"] == ["s3:/data:ro"]
    refine = compose["services"]["refine"]["environment"]
    assert refine["SEGVIGEN_STORE_S3_ENDPOINT_URL"] == "http://s3-reader:9000"


def test_images_are_named_by_digest(compose):
    named = [s["image"] for s in compose["services"].values() if "build" not in s]
    dockerfiles = {s["build"]["dockerfile"] for s in compose["services"].values() if "build" in s}
    for name in dockerfiles:
        named += re.findall(r"^FROM (\S+)", (REPOSITORY / name).read_text(), re.MULTILINE)
    assert len(named) >= 3
    for image in named:
        assert re.fullmatch(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}", image), image


def test_every_service_named_exists(compose):
    services = compose["services"]
    for name, service in services.items():
        assert set(service.get("depends_on", {})) <= set(services), name
    text = COMPOSE.read_text()
    hosts = set(re.findall(r"(?:http://|@)([a-z][a-z0-9-]*)(?::[0-9]{4}|/)", text))
    assert hosts - {"localhost"} <= set(services)


def test_the_buckets_are_there_before_anybody_requires_them(compose):
    services = compose["services"]
    used = [url for name, url in services["worker-cpu"]["environment"].items() if "_URL" in name]
    buckets = {url.removeprefix("s3://") for url in used if url.startswith("s3://")}
    assert buckets == {RAW_BUCKET, STORE_BUCKET}
    *_, folder = services["s3"]["command"]
    program, *made = services["buckets"]["command"]
    assert program == "mkdir" and {f"{folder}/{bucket}" for bucket in buckets} < set(made)
    assert services["buckets"]["volumes"] == services["s3"]["volumes"]
    done = {"condition": "service_completed_successfully"}
    assert services["s3"]["depends_on"]["buckets"] == done
    assert services["buckets"]["restart"] == "on-failure", "else it would run for ever"
    for name in ("worker-cpu", "worker-gpu", "s3-reader"):
        assert {"s3", "buckets"} & set(services[name]["depends_on"]), name


def test_the_raw_bucket_can_be_filled_from_this_machine(compose):
    s3 = compose["services"]["s3"]
    (port,) = s3["ports"]
    assert port == "127.0.0.1:9000:9000" and "0.0.0.0:9000" in s3["command"]


def test_label_studio_has_the_settings_of_the_local_stack(compose, monkeypatch):
    # Needs no Label Studio here: only its variables are asked for.
    monkeypatch.setattr(local_services, "find_label_studio", lambda: Path("label-studio"))
    label_studio = compose["services"]["label-studio"]
    local = make_label_studio_spec(Path("/home"), SECRETS).env(8080)
    environment = label_studio["environment"]
    module = environment["DJANGO_SETTINGS_MODULE"]
    assert module == local["DJANGO_SETTINGS_MODULE"]
    mounts = [mount.split(":") for mount in label_studio["volumes"] if mount.startswith("./")]
    for source, _, mode in mounts:
        assert (COMPOSE.parent / source).is_file() and mode == "ro", source
    assert f"{environment['PYTHONPATH']}/{module}.py" in [target for _, target, _ in mounts]
    # The image's start script gives everything below /label-studio to another user.
    assert not environment["PYTHONPATH"].startswith("/label-studio")


def test_ports_are_open_on_this_machine_only(compose):
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert ports and all(port.startswith("127.0.0.1:") for port in ports)


def test_no_secret_has_a_default(compose):
    text = COMPOSE.read_text()
    for name in re.findall(r"\$\{([A-Z_0-9]*(?:PASSWORD|KEY|TOKEN|SECRET)[A-Z_0-9]*)[^}]*\}", text):
        assert f"${{{name}:?}}" in text, name
        assert f"${{{name}:-" not in text, name


def test_dockerfiles_exist_and_copy_what_is_there(compose):
    services = compose["services"].values()
    for name in {s["build"]["dockerfile"] for s in services if "build" in s}:
        text = (REPOSITORY / name).read_text()
        kinds = {s.get("build", {}).get("args", {}).get("LOCK", "cpu") for s in services}
        assert kinds == {"cpu", "gpu"}
        for line in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE):
            for source, kind in itertools.product(line.split(), kinds):
                assert (REPOSITORY / source.replace("${LOCK}", kind)).exists(), f"{name}: {source}"


def test_label_studio_is_the_locked_one(compose):
    lock = (REPOSITORY / "infra/label-studio/requirements.lock").read_text()
    version = re.search(r"^label-studio==(\S+)", lock, re.MULTILINE).group(1)
    assert compose["services"]["label-studio"]["image"].partition("@")[0].endswith(f":{version}")


def test_label_studios_settings_name_a_middleware_that_is_there():
    file = REPOSITORY / "infra/label-studio/partial_content.py"
    tree = ast.parse(file.read_text())
    made = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    named = [
        node.value.rpartition(".")
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and str(node.value).startswith(f"{file.stem}.")
    ]
    assert named and {function for _, _, function in named} <= made


LOCKS = (
    "requirements.lock",
    "infra/docker/requirements-cpu.lock",
    "infra/docker/requirements-gpu.lock",
    "infra/label-studio/requirements.lock",
)


def read_lock(name: str) -> dict[str, list[str]]:
    """Package==version (with its marker) -> hashes."""
    found: dict[str, list[str]] = {}
    text = (REPOSITORY / name).read_text().replace("\\\n", " ")
    for line in filter(None, map(str.strip, text.splitlines())):
        package, *hashes = line.split("--hash=")
        found[package.strip()] = [value.strip() for value in hashes]
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_every_locked_file_has_its_hash(name):
    held = read_lock(name)
    assert len(held) > 100
    for package, hashes in held.items():
        assert re.match(r"^[A-Za-z0-9._-]+==\S+", package), package
        assert hashes and all(re.fullmatch(r"sha256:[0-9a-f]{64}", h) for h in hashes), package


def test_torch_alone_is_locked_without_hash():
    text = (REPOSITORY / "requirements-torch.lock").read_text()
    assert re.fullmatch(r"torch==[0-9.]+\n", text)
    for name in LOCKS[:3]:
        assert not [each for each in read_lock(name) if each.startswith(("torch==", "nvidia-"))]


def test_images_have_the_versions_that_were_tested():
    tested = {package.split(" ")[0] for package in read_lock(LOCKS[0])}
    for name in LOCKS[1:3]:
        other = {package.split(" ")[0] for package in read_lock(name)} - tested
        # What the CUDA extra alone brings cannot be tested here.
        allowed = ("cumm", "spconv", "pccm", "ccimport", "fire", "termcolor", "lark", "ninja")
        assert all(each.startswith(allowed) for each in other), f"{name}: {other}"


def test_what_is_installed_is_checked_by_hash():
    makefile = (REPOSITORY / "Makefile").read_text()
    assert "--require-hashes --no-deps -r $(2)" in makefile
    assert "--require-hashes" in (REPOSITORY / "infra/docker/pipeline.Dockerfile").read_text()
