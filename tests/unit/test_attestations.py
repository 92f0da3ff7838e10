"""SBOM and provenance: what they hold, what they never hold, how they get to an image and back."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import oci_images
import plans
import pytest
from commands import trainpack
from cyclonedx.model.bom import Bom
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from golden_files import assert_golden
from google.protobuf import json_format
from hostile_registry import Fault, HostileRegistry, error, hostile_registry
from hypothesis import example, given
from hypothesis import strategies as st
from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
from in_toto_attestation.v1.statement import Statement
from in_toto_attestation.v1.statement_pb2 import Statement as StatementMessage
from packageurl import PackageURL

from builder.attestation.attest import artifacts, attached, base_system
from builder.attestation.documents import attach_documents
from builder.attestation.provenance import PROVENANCE, make_provenance
from builder.attestation.sbom import SBOM, System, make_base_sbom, make_sbom, parse_base_sbom, parse_status
from builder.bases import base_image
from builder.cli.printing import note
from builder.errors import ImageFormatError, ImageNotFoundError, RegistryError, UsageError
from builder.host.tools import CACHE
from builder.oci import tar
from builder.oci.artifact import Artifact
from builder.oci.blobs import Blobs
from builder.oci.cache import Cache
from builder.oci.image import Addendum, Changes, Image, append, empty
from builder.oci.layer import write_layer
from builder.oci.layout import read_layout, write_layout
from builder.oci.remote.pull import RegistryClient
from builder.oci.remote.push import push
from builder.oci.remote.referrers import attach, referrers
from builder.plan import LABEL, BuildPlan, PublishedImage
from builder.plan_data import BASE_DIGEST
from builder.reference import Reference, parse_reference

DIGEST = f"sha256:{'7' * 64}"
STATUS = """Package: bsdutils
Status: install ok installed
Architecture: amd64
Source: util-linux (2.38.1-5+deb12u3)
Version: 1:2.38.1-5+deb12u3
Conffiles:
 /etc/example: 0123456789abcdef0123456789abcdef
Description: basic utilities
 A line: with a colon.

Package: removed
Status: deinstall ok config-files
Architecture: amd64
Version: 1.0

Package: libstdc++6
Status: install ok installed
Architecture: amd64
Multi-Arch: same
Source: gcc-12
Version: 12.2.0-14+deb12u1
"""
RELEASE = 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12"\n'


def system() -> System:
    packages = tuple(parse_status(STATUS))
    return System(distribution="debian", release="12", packages=packages, python=None)


def data(plan: BuildPlan) -> dict[str, Any]:
    return plan.model_dump(mode="json")


def sbom(plan: BuildPlan | None = None) -> dict[str, Any]:
    document = json.loads(make_sbom(data(plan or plans.plan()), system()))
    assert isinstance(document, dict)
    return document


def provenance(plan: BuildPlan | None = None) -> dict[str, Any]:
    document = json.loads(make_provenance(data(plan or plans.plan()), DIGEST))
    assert isinstance(document, dict)
    return document


@pytest.mark.parametrize("cuda", [False, True], ids=["cpu", "cuda"])
def test_the_documents_are_golden(cuda: bool) -> None:
    plan, name = plans.plan(cuda=cuda), "cuda" if cuda else "cpu"
    assert_golden(f"sbom/{name}.cdx.json", json.dumps(sbom(plan), indent=2) + "\n")
    assert_golden(f"provenance/{name}.json", json.dumps(provenance(plan), indent=2) + "\n")


def test_the_sbom_is_valid_cyclonedx_and_its_library_reads_it() -> None:
    content = make_sbom(data(plans.plan()), system())
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(content.decode()) is None
    read = Bom.from_json(json.loads(content))  # type: ignore[attr-defined]
    assert len(read.components) == len(sbom()["components"])


def test_package_urls_are_canonical() -> None:
    local = plans.distribution("torch", "2.8.0+cpu", 900)
    plan = plans.plan().model_copy(update={"light": (local,)})
    urls = [each["purl"] for each in sbom(plan)["components"] if "purl" in each]
    assert "pkg:pypi/torch@2.8.0%2Bcpu" in urls
    assert urls == [PackageURL.from_string(url).to_string() for url in urls]


def test_the_provenance_is_a_statement_that_in_totos_library_takes() -> None:
    content = make_provenance(data(plans.plan()), DIGEST)
    Statement.copy_from_pb(json_format.Parse(content, StatementMessage())).validate()
    json_format.ParseDict(provenance()["predicate"], Provenance())


def test_every_locked_wheel_is_in_both_with_its_hash() -> None:
    plan = plans.plan(cuda=True)
    wheels = {(wheel.name, wheel.version, wheel.sha256) for wheel in (*plan.heavy, *plan.light, *plan.tools)}
    listed = {
        (each["name"], each["version"], each["hashes"][0]["content"])
        for each in sbom(plan)["components"]
        if each.get("purl", "").startswith("pkg:pypi/") and "hashes" in each
    }
    assert listed == wheels
    used = provenance(plan)["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert {each["digest"].get("sha256") for each in used} >= {sha256 for *_, sha256 in wheels}


def test_a_wheel_of_both_environments_is_one_component_found_in_two_places() -> None:
    shared = plans.distribution("six", "1.17.0", 11)
    plan = plans.plan()
    plan = plan.model_copy(update={"light": (*plan.light, shared), "tools": (*plan.tools, shared)})
    (six,) = [each for each in sbom(plan)["components"] if each["name"] == "six"]
    places = [each["location"] for each in six["evidence"]["occurrences"]]
    assert places == ["/opt/venv", "/opt/trainpack"]


def test_installed_debian_packages_are_listed_with_the_source_that_advisories_name() -> None:
    urls = [each["purl"] for each in sbom()["components"] if each.get("purl", "").startswith("pkg:deb/")]
    assert urls == [
        "pkg:deb/debian/bsdutils@1:2.38.1-5%2Bdeb12u3?arch=amd64&distro=debian-12"
        "&upstream=util-linux%402.38.1-5%2Bdeb12u3",
        "pkg:deb/debian/libstdc%2B%2B6@12.2.0-14%2Bdeb12u1?arch=amd64&distro=debian-12&upstream=gcc-12",
    ]


@pytest.mark.parametrize("python", [None, "3.11.7"])
def test_a_bases_own_sbom_is_valid_and_says_all_that_the_base_has_installed(python: str | None) -> None:
    whole = dataclasses.replace(system(), python=python)
    document = make_base_sbom(plans.plan().base.model_dump(), whole, "1.0")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(document.decode()) is None
    assert parse_base_sbom(document, "here") == whole


SYSTEM_COMPONENT = {"type": "operating-system", "name": "x", "version": "1"}
BARE_PACKAGE = {"type": "library", "name": "a", "version": "1", "purl": "pkg:deb/debian/a@1"}
KEYS = st.sampled_from(["components", "type", "name", "version", "purl", "cpe"])


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner)
    )
)
@example({"components": []})
@example({"components": [SYSTEM_COMPONENT, SYSTEM_COMPONENT]})
@example({"components": [SYSTEM_COMPONENT, BARE_PACKAGE]})
def test_what_is_no_sbom_of_a_base_is_an_error_of_ours(document: object) -> None:
    with pytest.raises(ImageFormatError):
        parse_base_sbom(json.dumps(document).encode(), "here")


def test_nothing_of_an_address_a_secret_or_a_machine_is_in_them() -> None:
    private = plans.distribution("numpy", "2.4.6", 4, where="https://user:s3cret@pypi.internal.example")
    plan = plans.plan(plans.SPEC.replace('"resnet18"', '"s3cret"'))
    plan = plan.model_copy(update={"light": (private,)})
    text = make_sbom(data(plan), system()) + make_provenance(data(plan), DIGEST)
    for word in (b"s3cret", b"internal.example", b"registry.example", str(Path.cwd()).encode(), b"https://u"):
        assert word not in text


def test_the_address_that_a_wheel_comes_from_changes_neither() -> None:
    elsewhere = plans.plan().model_copy(
        update={
            "light": tuple(
                each.model_copy(update={"url": f"file:///wheels/{each.filename}"})
                for each in plans.plan().light
            )
        }
    )
    assert make_sbom(data(elsewhere), system()) == make_sbom(data(plans.plan()), system())
    assert make_provenance(data(elsewhere), DIGEST) == make_provenance(data(plans.plan()), DIGEST)


def test_other_content_has_another_serial_number_and_an_edit_of_the_code_leaves_the_sbom_as_it_is() -> None:
    edited = plans.plan().model_copy(
        update={"code": (plans.plan().code[0].model_copy(update={"sha256": "1" * 64}),)}
    )
    assert sbom(edited) == sbom()
    assert provenance(edited) != provenance()
    other = plans.plan().model_copy(update={"light": ()})
    assert sbom(other)["serialNumber"] != sbom()["serialNumber"]


def test_uncommitted_code_is_said_to_be_so() -> None:
    def code(revision: str | None) -> list[Any]:
        plan = plans.plan()
        plan = plan.model_copy(update={"manifest": plan.manifest | {"revision": revision}})
        used = provenance(plan)["predicate"]["buildDefinition"]["resolvedDependencies"]
        return [each for each in used if each.get("name") == "code"]

    commit = {"name": "code", "digest": {"gitCommit": "f" * 40}}
    assert code("f" * 40) == [commit]
    assert code(f"{'f' * 40}-dirty") == [commit | {"annotations": {"uncommitted": True}}]
    assert code(None) == []


def base_of(cache: Path, status: str = STATUS) -> Image:
    """A base as it is kept: what is installed is said by its lower layer, the upper one is about Python."""
    blobs = Blobs(cache / "bases")
    lower = [
        tar.file("var/lib/dpkg/status", status.encode()),
        tar.file("usr/lib/os-release", RELEASE.encode()),
    ]
    header = b'#define PY_VERSION\t\t"3.11.9"\n'
    upper = [tar.file("usr/local/include/python3.11/patchlevel.h", header)]
    additions = [Addendum(write_layer(entries, blobs), "test") for entries in (lower, upper)]
    base = append(empty("linux/amd64"), additions, Changes(), tar.EPOCH)
    write_layout(blobs.folder, base, "cpu-py3.11-0123456789ab")
    return base


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BuildPlan:
    """A plan whose base is kept on this machine."""
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    base = plans.inputs().base.model_copy(update={"image_id": base_of(tmp_path / "cache").id})
    plan = plans.plan()
    return plan.model_copy(update={"base": base, "labels": plan.labels | {BASE_DIGEST: base.image_id}})


def test_what_a_base_has_installed_is_read_from_its_layers_once(plan: BuildPlan, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "layers")
    found = base_system(data(plan), cache)
    assert found == replace(system(), python="3.11.9")
    for layer in base_image(plan.base).layers:
        (tmp_path / "cache" / "bases" / "blobs" / "sha256" / layer.digest[7:]).unlink()
    assert base_system(data(plan), cache) == found


def test_a_base_that_was_built_anew_is_not_described_as_the_old_one(plan: BuildPlan, tmp_path: Path) -> None:
    base_of(tmp_path / "cache", STATUS.replace("bsdutils", "other"))
    with pytest.raises(ImageFormatError, match="the base is sha256:"):
        artifacts(data(plan), DIGEST)


def test_a_layout_holds_the_documents_of_the_images_that_it_has(plan: BuildPlan, tmp_path: Path) -> None:
    blobs, layout = Blobs(tmp_path / "blobs"), tmp_path / "layout"
    old, new = oci_images.image(blobs, b"old"), oci_images.image(blobs, b"new")
    for image in (old, new, new):
        write_layout(layout, image, "1", {image.digest: artifacts(data(plan), image.digest)})
    entries = json.loads((layout / "index.json").read_bytes())["manifests"]
    assert [each.get("artifactType") for each in entries] == [None, SBOM, PROVENANCE]
    assert read_layout(layout, "linux/amd64").digest == new.digest
    manifest = json.loads((layout / "blobs" / "sha256" / entries[2]["digest"][7:]).read_bytes())
    assert manifest["subject"]["digest"] == new.digest


def test_attaching_imports_little_since_pushes_are_short() -> None:
    heavy = "{'pydantic', 'typer', 'docker'}"
    code = f"import sys, builder.attestation.attest; sys.exit(bool({heavy} & {{*sys.modules}}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture
def registry() -> Iterator[HostileRegistry]:
    with hostile_registry() as running:
        yield running


def pushed(registry: HostileRegistry, plan: BuildPlan, folder: Path) -> PublishedImage:
    reference = parse_reference(f"{registry.address}/team/app:1")
    labels = plan.labels | {f"{LABEL}.plan": plan.hash}
    image = oci_images.image(Blobs(folder / "blobs"), b"code", labels=labels)
    push(image, reference)
    return PublishedImage(reference=str(reference), image_id=image.id, digest=image.digest, new=True)


def documents(image: PublishedImage) -> list[str | None]:
    found = referrers(parse_reference(image.reference), image.digest)
    return [each.artifact_type for each in found]


def test_what_is_new_gets_its_documents_and_they_are_read_back(
    registry: HostileRegistry, tmp_path: Path, plan: BuildPlan
) -> None:
    image = pushed(registry, plan, tmp_path)
    reference = parse_reference(image.reference)
    with pytest.raises(ImageNotFoundError, match="no SBOM attached"):
        attached(reference, SBOM)
    for _ in range(2):
        attach_documents(plan, image, None, note)
        assert documents(image) == [SBOM, PROVENANCE]
    made = artifacts(data(plan), image.digest)
    assert (attached(reference, SBOM), attached(reference, PROVENANCE)) == tuple(
        each.content for each in made
    )
    read = json.loads(attached(Reference(reference.repository, digest=image.digest), PROVENANCE))
    assert read["subject"][0]["digest"] == {"sha256": image.digest.removeprefix("sha256:")}


@pytest.mark.parametrize(
    ("content", "told"),
    [(b'{"components": [1]}', "not of the form that trainpack writes"), (b"{", "what is not JSON")],
)
def test_a_document_of_another_tool_that_cannot_be_shown_is_told(
    registry: HostileRegistry, tmp_path: Path, plan: BuildPlan, content: bytes, told: str
) -> None:
    image = pushed(registry, plan, tmp_path)
    attach(parse_reference(image.reference), image.digest, [Artifact(SBOM, content)])
    ended = trainpack(tmp_path, "sbom", image.reference)
    assert ended.code == 1
    assert told in ended.stderr


def test_of_what_is_there_already_nothing_is_asked_unless_told(
    registry: HostileRegistry, tmp_path: Path, plan: BuildPlan
) -> None:
    image = pushed(registry, plan, tmp_path)
    there = image.model_copy(update={"new": False})
    asked: list[str] = []
    registry.judge = lambda method, path, number: asked.append(path)
    attach_documents(plan, there, None, note)
    attach_documents(plan, image, False, note)
    assert asked == []
    attach_documents(plan, there, True, note)
    assert asked
    assert documents(image) == [SBOM, PROVENANCE]


def test_what_no_commit_holds_is_attested_only_when_told(
    registry: HostileRegistry, tmp_path: Path, plan: BuildPlan, capsys: pytest.CaptureFixture[str]
) -> None:
    image = pushed(registry, plan, tmp_path)
    dirty = plan.model_copy(update={"manifest": plan.manifest | {"revision": f"{'f' * 40}-dirty"}})
    attach_documents(dirty, image, None, note)
    assert documents(image) == []
    assert "not committed" in capsys.readouterr().err
    attach_documents(dirty, image, True, note)
    assert documents(image) == [SBOM, PROVENANCE]


def test_a_registry_that_refuses_them_is_a_warning_and_an_error_when_they_were_asked_for(
    registry: HostileRegistry, tmp_path: Path, plan: BuildPlan, capsys: pytest.CaptureFixture[str]
) -> None:
    image = pushed(registry, plan, tmp_path)

    def judge(method: str, path: str, number: int) -> Fault | None:
        refused = method == "PUT" and "/manifests/" in path
        return Fault(status=400, body=error("MANIFEST_INVALID")) if refused else None

    registry.judge = judge
    attach_documents(plan, image, None, note)
    told = capsys.readouterr().err
    assert "warning: pushed without SBOM and provenance" in told
    assert "MANIFEST_INVALID" in told
    assert "trainpack push --attest" in told
    with pytest.raises(RegistryError, match="MANIFEST_INVALID"):
        attach_documents(plan, image, True, note)
    assert RegistryClient(parse_reference(image.reference)).digest() == image.digest


def test_of_another_plans_image_nothing_is_said(
    registry: HostileRegistry, tmp_path: Path, plan: BuildPlan
) -> None:
    image = pushed(registry, plan, tmp_path).model_copy(update={"new": False})
    other = plan.model_copy(update={"version": "9"})
    with pytest.raises(UsageError, match="not built here from the last plan"):
        attach_documents(other, image, True, note)
    assert documents(image) == []
