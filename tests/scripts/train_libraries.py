"""Uses libraries that want a home, a user name, a temporary folder or a cache."""

import getpass
import tempfile
from pathlib import Path

import joblib
import matplotlib
import numpy

matplotlib.use("Agg")

from datasets import load_dataset
from matplotlib import font_manager, pyplot

print("user", getpass.getuser(), "home", Path.home(), "temporary", tempfile.gettempdir())

pyplot.plot([1, 2, 3])
pyplot.title("fonts come from a cache in HOME")
pyplot.savefig("curve.png")
print("fonts", len(font_manager.fontManager.ttflist), "in", matplotlib.get_cachedir())

Path("rows.csv").write_text("value\n1\n2\n3\n")
rows = load_dataset("csv", data_files="rows.csv", split="train").map(lambda row: {"twice": 2 * row["value"]})
print("dataset", list(rows["twice"]), "in", Path(rows.cache_files[0]["filename"]).parts[:4])

memory = joblib.Memory("joblib-cache", verbose=0)
squares = joblib.Parallel(n_jobs=2)(joblib.delayed(memory.cache(pow))(number, 2) for number in range(8))
shared = joblib.Parallel(n_jobs=2, max_nbytes=1000)(
    joblib.delayed(numpy.sum)(numpy.ones(200_000)) for _ in range(2)
)
print("parallel", squares, shared)
