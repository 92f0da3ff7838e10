"""Does what its words say, so that one image serves every fault; it knows nothing of trainpack."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

GO = Path("/workspace/go")


def train(steps):
    for step in range(steps):
        print(f"step {step} of {steps}")
    Path("model.bin").write_bytes(bytes(range(256)) * 64)
    Path("metrics.json").write_text(json.dumps({"accuracy": 0.5}))


def gate(steps):
    train(steps)
    print("half way", flush=True)
    while not GO.exists():
        time.sleep(0.02)
    Path("checkpoints/late").mkdir(parents=True)
    Path("checkpoints/late/last.bin").write_bytes(b"last" * 64)
    print("second half done")


def instant(steps):
    sys.exit(3)


def control(steps):
    train(steps)
    print("--#-- a chapter of the script's own")
    print("-----")
    for percent in range(0, 101, 10):
        print(f"{percent} %")
    print("--*--")
    print("--3--")
    print("three\nlines\nbuffered")
    print("---3---")
    print("--ec-- 0")
    print("after the control lines")
    sys.exit(5)


def fork(steps):
    train(steps)
    for options in ({}, {"start_new_session": True}):
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], **options)


def stubborn(steps):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    train(steps)
    print("waiting", flush=True)
    while True:
        time.sleep(1)


def saver(steps):
    def save(number, frame):
        print("saving", flush=True)
        Path("rescued.bin").write_bytes(b"rescued" * 64)
        print("saved, the last words", flush=True)
        sys.exit(0)

    signal.signal(signal.SIGTERM, save)
    train(steps)
    print("waiting", flush=True)
    while True:
        time.sleep(1)


def crash(steps):
    train(steps)
    raise ValueError("the loss is not a number")


def hungry(steps):
    train(steps)
    print("eating", flush=True)
    eaten = []
    while True:
        eaten.append(bytearray(os.urandom(1) * (16 << 20)))


def full(steps):
    train(steps)
    with Path("checkpoint.bin").open("wb") as file:
        for _ in range(64):
            file.write(os.urandom(1 << 20))


def folder(steps):
    train(steps)
    Path("checkpoints/deep/down").mkdir(parents=True)
    for number in range(5):
        Path(f"checkpoints/deep/down/{number}.bin").write_bytes(os.urandom(1 << 20))


def flood(steps):
    train(steps)
    for line in range(200_000):
        print(f"line {line} of a script that prints as fast as it can")
    status = Path(f"/proc/{os.getppid()}/status").read_text()
    print("entrypoint peak", next(line.split()[1] for line in status.splitlines() if "VmHWM" in line))


parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=3)
parser.add_argument("--do", default="train")
options = parser.parse_args()
globals()[options.do](options.steps)
