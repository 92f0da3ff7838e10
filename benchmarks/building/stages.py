"""`trainpack build --push` of a folder, stage by stage in one process; prints the seconds of each as JSON."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

START = time.perf_counter()


def main() -> int:
    """Build and push the folder that is named."""
    folder, marks = Path(sys.argv[1]), [START]
    stages = {}

    def mark(stage: str) -> None:
        marks.append(time.perf_counter())
        stages[stage] = marks[-1] - marks[-2]

    import builder.cli.build  # noqa: F401, PLC0415

    mark("imports of the command")
    from builder import project  # noqa: PLC0415
    from builder.builders.oci import OciBuilder, built_image  # noqa: PLC0415
    from builder.oci.cache import open_cache  # noqa: PLC0415
    from builder.publish import publish_kept  # noqa: PLC0415

    mark("imports of builder and registry client")
    project.ensure_lock(folder, os.environ, update=False)
    project.ensure_base(folder, lambda _: None)
    plan = project.read_plan(folder, os.environ)
    mark("spec, lock, code → plan")
    image = OciBuilder(open_cache(), os.environ, lambda _: None).image(plan, folder)
    mark("plan → image, with its code layer")
    publish_kept(image, built_image(plan, image), lambda _: None)
    mark("push: ask, send, tag")
    print(json.dumps(stages))
    return 0


if __name__ == "__main__":
    sys.exit(main())
