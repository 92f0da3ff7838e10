"""A BuildPlan as plain data: its hash, and the same plan over other code. Imports next to nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

LABEL = "io.trainpack"
VENV = "/opt/venv"
TOOLS = "/opt/trainpack"
BASE_DIGEST = "org.opencontainers.image.base.digest"
REVISION = "org.opencontainers.image.revision"
# Of a base: where it is, and what only one engine calls it.
_PLACES = ("reference", "image_id", "origin")


def plan_hash(plan: Mapping[str, Any]) -> str:
    """Hex digest of all that decides the content; wheels count by content, not by address."""
    data = {key: value for key, value in plan.items() if key != "reasons"}
    data["base"] = {key: value for key, value in plan["base"].items() if key not in _PLACES}
    data["labels"] = {key: value for key, value in plan["labels"].items() if key != BASE_DIGEST}
    for group in ("heavy", "light", "tools"):
        data[group] = [[wheel["name"], wheel["version"], wheel["sha256"]] for wheel in plan[group]]
    canonical = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def with_code(
    plan: Mapping[str, Any], code: Sequence[Mapping[str, Any]], revision: str | None
) -> dict[str, Any]:
    """The same plan over the same files with another content, as `make_plan` would make it.

    Args:
        revision: Of the files as they are now; None where the plan has none either.
    """
    labels = {**plan["labels"], REVISION: revision} if revision else plan["labels"]
    manifest = {**plan["manifest"], "revision": revision}
    return {**plan, "code": list(code), "labels": labels, "manifest": manifest}
