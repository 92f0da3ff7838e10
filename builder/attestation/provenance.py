"""The provenance of an image: an in-toto statement that says what it was made from, by which trainpack.

Like the SBOM, it holds what decides the content and nothing of the machine, so that it is the same wherever
the same plan is built. It is not signed.

Sources: https://github.com/in-toto/attestation/blob/v1.1.0/spec/v1/statement.md,
https://slsa.dev/spec/v1.0/provenance.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from builder.attestation.sbom import pypi_url
from builder.oci.manifest import canonical_json
from builder.plan_data import LABEL, plan_hash

PROVENANCE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
# Raised when the meaning of its parameters changes: docs/decisions/0010-sbom-and-provenance.md.
BUILD_TYPE = "urn:trainpack:image:1"
SPEC = "trainpack.toml"


def make_provenance(plan: Mapping[str, Any], digest: str) -> bytes:
    """The statement about the image of that manifest digest, as canonical JSON. Pure.

    Args:
        plan: A BuildPlan as plain data.
    """
    version = str(plan["manifest"]["trainpack"])
    return canonical_json(
        {
            "_type": STATEMENT,
            "subject": [{"name": str(plan["name"]).rpartition("/")[2], "digest": _digest(digest)}],
            "predicateType": PREDICATE,
            "predicate": {
                "buildDefinition": {
                    "buildType": BUILD_TYPE,
                    "externalParameters": {
                        "version": plan["version"],
                        "platform": plan["platform"],
                        "python": plan["python"],
                        "bytecode": plan["bytecode"],
                    },
                    "internalParameters": {
                        "contract": plan["labels"][f"{LABEL}.contract"],
                        "plan": plan_hash(plan),
                        "lock": plan["lock_hash"],
                        "entrypoint": plan["entrypoint_hash"],
                    },
                    "resolvedDependencies": list(_dependencies(plan)),
                },
                "runDetails": {
                    "builder": {"id": pypi_url("trainpack", version), "version": {"trainpack": version}}
                },
            },
        }
    )


def _dependencies(plan: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if plan["base"]["image_id"]:
        yield {"name": f"base {plan['base']['name']}", "digest": _digest(plan["base"]["image_id"])}
    if revision := plan["manifest"].get("revision"):
        commit, _, dirty = revision.partition("-")
        # Of files that are not in that commit, the commit says little: who reads this must know.
        yield {"name": "code", "digest": {"gitCommit": commit}} | (
            {"annotations": {"uncommitted": True}} if dirty else {}
        )
    yield from (
        {"name": SPEC, "digest": {"sha256": file["sha256"]}} for file in plan["code"] if file["path"] == SPEC
    )
    wheels = {
        (pypi_url(wheel["name"], wheel["version"]), wheel["sha256"])
        for wheel in (*plan["heavy"], *plan["light"], *plan["tools"])
    }
    yield from ({"uri": uri, "digest": {"sha256": sha256}} for uri, sha256 in sorted(wheels))


def _digest(text: str) -> dict[str, str]:
    algorithm, _, value = text.partition(":")
    return {algorithm: value}
