"""Run every fault and rewrite docs/faults.md with what was seen: `make faults`."""

from __future__ import annotations

import sys

from picsellia_standin import Standin

from faults.image import fault_image
from faults.scenarios import SCENARIOS, played
from faults.stage import run
from faults.table import DOCUMENT, markdown, row


def main() -> None:
    """Run them one after the other."""
    rows = []
    with fault_image() as image:
        for scenario in SCENARIOS:
            with Standin() as platform, played(scenario, image, platform) as stage:
                ended = run(stage, scenario.act)
                rows.append(row(scenario, stage, ended))
            print(f"{ended.seconds:5.1f} s  {'  '.join(rows[-1])}", file=sys.stderr, flush=True)
    DOCUMENT.write_text(markdown(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
