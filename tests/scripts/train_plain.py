import json
import random
from pathlib import Path

EPOCHS = 3

if __name__ == "__main__":
    random.seed(0)
    Path("metrics.json").write_text(json.dumps({"loss": random.random(), "epochs": EPOCHS}))
