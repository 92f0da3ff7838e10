"""Train a classifier on a table of numbers.

Every CSV file in the data folder is read; the target column holds the index of the class, the other columns are the
features. Without a data folder it trains on scikit-learn's bundled wine data, so that it runs before there is any data.
Writes model.joblib, metrics.json and metrics.jsonl into the working directory.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import joblib
import pandas as pd
from sklearn.datasets import load_wine
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import accuracy_score, classification_report, f1_score
from sklearn.model_selection import train_test_split


def parse_arguments(arguments=None):
    """The command line; trainpack.toml declares the same parameters."""
    parser = argparse.ArgumentParser(description="Train a classifier on a table of numbers.")
    parser.add_argument("--data-dir", type=Path, default=Path("data/train"), help="folder of CSV files")
    parser.add_argument("--target", default="target", help="column that holds the index of the class")
    parser.add_argument("--max-iter", type=int, default=100, help="number of boosting rounds")
    parser.add_argument("--learning-rate", type=float, default=0.1, help="step of each round")
    parser.add_argument("--max-leaf-nodes", type=int, default=15, help="leaves of each tree")
    parser.add_argument("--balanced", action="store_true", help="weigh rare classes up")
    parser.add_argument("--test-size", type=float, default=0.25, help="share of the rows kept for testing")
    parser.add_argument("--seed", type=int, default=0, help="seed of the split and the model")
    return parser.parse_args(arguments)


def read_table(folder):
    """All rows of the folder's CSV files, or the bundled data when there is no such folder."""
    if not folder.exists():
        print(f"no folder {folder}: training on scikit-learn's bundled wine data")
        return load_wine(as_frame=True).frame
    files = sorted(folder.glob("*.csv"))
    if not files:
        sys.exit(f"there is no CSV file in {folder}")
    print(f"reading {', '.join(map(str, files))}")
    return pd.concat([pd.read_csv(file) for file in files], ignore_index=True)


def split_target(table, target):
    """Features and classes; what cannot be trained on is told by its column's name."""
    if target not in table.columns:
        sys.exit(f"there is no column {target!r}; the columns are {', '.join(table.columns)}")
    features = table.drop(columns=target)
    text = features.columns.difference(features.select_dtypes("number").columns)
    if len(text):
        sys.exit(f"not columns of numbers: {', '.join(text)}")
    return features, table[target]


def read_labelmap():
    """Class names by index, `{"0": "barolo"}`: in the container from the file that TRAINPACK_LABELMAP names."""
    path = Path(os.environ.get("TRAINPACK_LABELMAP", "labelmap.json"))
    return json.loads(path.read_text()) if path.is_file() else {}


def evaluate(model, features, classes, names):
    """Metrics on the test rows; prints the report per class."""
    predicted = model.predict(features)
    labels = list(model.classes_)
    shown = [names.get(str(label), str(label)) for label in labels]
    print(classification_report(classes, predicted, labels=labels, target_names=shown, zero_division=0))
    return {
        "accuracy": float(accuracy_score(classes, predicted)),
        "f1_macro": float(f1_score(classes, predicted, average="macro")),
    }


def main(arguments=None):
    """Train, test, save."""
    options = parse_arguments(arguments)
    features, classes = split_target(read_table(options.data_dir), options.target)
    train_x, test_x, train_y, test_y = train_test_split(
        features, classes, test_size=options.test_size, random_state=options.seed, stratify=classes
    )
    model = HistGradientBoostingClassifier(
        max_iter=options.max_iter,
        learning_rate=options.learning_rate,
        max_leaf_nodes=options.max_leaf_nodes,
        class_weight="balanced" if options.balanced else None,
        random_state=options.seed,
    )
    print(f"training on {len(train_x)} rows of {features.shape[1]} features, {options.max_iter} rounds")
    model.fit(train_x, train_y)
    names = read_labelmap()
    metrics = evaluate(model, test_x, test_y, names)
    print(f"accuracy {metrics['accuracy']:.3f}, macro F1 {metrics['f1_macro']:.3f}")

    joblib.dump({"model": model, "features": list(features.columns), "class_names": names}, "model.joblib")
    Path("metrics.json").write_text(json.dumps(metrics | {"class_names": names}, indent=2) + "\n")
    with Path("metrics.jsonl").open("w") as lines:
        for name, value in metrics.items():
            lines.write(json.dumps({"step": model.n_iter_, "name": name, "value": value}) + "\n")


if __name__ == "__main__":
    main()
