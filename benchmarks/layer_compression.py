"""What compressing and hashing layers costs: zlib, as Python has it, beside zlib-ng, in one run.

Run: .venv/bin/python benchmarks/layer_compression.py [--rounds 5] [--json]
The data is trainpack's own code, and what is installed beside it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zlib_ng import zlib_ng

LEVELS = (1, 2, 3, 6, 9)
LARGE_BYTES = 60_000_000


def compress(library: Any, level: int, data: bytes) -> bytes:
    """One gzip member."""
    compressor = library.compressobj(level, zlib.DEFLATED, 31)
    return bytes(compressor.compress(data) + compressor.flush())


def seconds(work: Callable[[], object], rounds: int) -> float:
    """The median time of some work."""
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def read(folder: Path, pattern: str, limit: int) -> bytes:
    """Files of a folder in one piece."""
    data = bytearray()
    for path in sorted(folder.rglob(pattern)):
        if path.is_file() and len(data) < limit:
            data += path.read_bytes()
    return bytes(data[:limit])


def measure(data: bytes, rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds and bytes of each library and level, and the time of a hash."""
    found = {"sha256": {"ms": seconds(lambda: hashlib.sha256(data).digest(), rounds) * 1000, "bytes": 32.0}}
    for level in LEVELS:
        for name, library in (("zlib", zlib), ("zlib-ng", zlib_ng)):
            size = len(compress(library, level, data))
            taken = seconds(lambda library=library, level=level: compress(library, level, data), rounds)  # type: ignore[misc]
            found[f"{name} {level}"] = {"ms": taken * 1000, "bytes": float(size)}
    return found


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="how often each is run")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    root = Path(__file__).parents[1]
    data = {
        "code": read(root / "builder", "*.py", LARGE_BYTES),
        "site-packages": read(Path(sys.prefix) / "lib", "*", LARGE_BYTES),
    }
    results = {name: measure(content, options.rounds) for name, content in data.items()}
    if options.json:
        print(json.dumps(results, indent=2))
        return 0
    for name, content in data.items():
        print(f"{name}, {len(content):,} bytes")
        for what, result in results[name].items():
            print(f"  {what:<10} {result['ms']:>9.1f} ms {result['bytes']:>12,.0f} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
