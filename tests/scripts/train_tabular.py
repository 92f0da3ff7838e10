from argparse import ArgumentParser

import joblib
import pandas as pd
from sklearn.ensemble import RandomForestClassifier

SEED = 42
parser = ArgumentParser()
data = parser.add_argument_group("data")
data.add_argument("table", help="a CSV file")
data.add_argument("--target", default="label")
model = parser.add_argument_group("model")
model.add_argument("--trees", type=int, default=10 * 10)
model.add_argument("--max-depth", type=int)
model.add_argument("--seed", type=int, default=SEED)
model.add_argument("--features", nargs="*", default=["age", "height"])
kind = model.add_mutually_exclusive_group()
kind.add_argument("--folds", type=int, default=5)
kind.add_argument("--holdout", type=float, default=0.2)
args = parser.parse_args()

frame = pd.read_csv(args.table)
forest = RandomForestClassifier(args.trees, max_depth=args.max_depth, random_state=args.seed)
forest.fit(frame[args.features], frame[args.target])
joblib.dump(forest, "forest.joblib")
