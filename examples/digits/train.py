"""Train a small neural network on scikit-learn's handwritten digits (8x8 images, ten classes)."""

import argparse
import csv
import json
import time
from pathlib import Path

import joblib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler

ACTIVATIONS = ("relu", "tanh", "logistic")


def parse_args():
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--epochs", type=int, default=30, help="passes over the training images")
    parser.add_argument("--lr", "--learning-rate", type=float, default=1e-3, help="initial learning rate")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--hidden", type=int, nargs="+", default=[64, 32], help="width of each hidden layer")
    parser.add_argument("--activation", choices=ACTIVATIONS, default="relu")
    parser.add_argument("--test-size", type=float, default=0.25, help="fraction kept for testing")
    parser.add_argument("--augment", action="store_true", help="add copies shifted by one pixel")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output-dir", default="runs/digits", help="where model and reports go")
    return parser.parse_args()


def shifted(images, labels):
    """The images, and a copy of each moved by one pixel in every direction."""
    copies = [images]
    for axis, step in ((1, 1), (1, -1), (2, 1), (2, -1)):
        copies.append(np.roll(images, step, axis=axis))
    return np.concatenate(copies), np.tile(labels, len(copies))


def main():
    args = parse_args()
    output_dir = Path(args.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)

    digits = load_digits()
    train_images, test_images, y_train, y_test = train_test_split(
        digits.images, digits.target, test_size=args.test_size, random_state=args.seed, stratify=digits.target
    )
    if args.augment:
        train_images, y_train = shifted(train_images, y_train)
    scaler = StandardScaler()
    x_train = scaler.fit_transform(train_images.reshape(len(train_images), -1))
    x_test = scaler.transform(test_images.reshape(len(test_images), -1))
    print(f"training on {len(x_train)} images, testing on {len(x_test)}")

    model = MLPClassifier(
        hidden_layer_sizes=tuple(args.hidden),
        activation=args.activation,
        learning_rate_init=args.lr,
        batch_size=args.batch_size,
        random_state=args.seed,
    )
    start = time.time()
    for epoch in range(1, args.epochs + 1):
        model.partial_fit(x_train, y_train, classes=digits.target_names)
        probabilities = model.predict_proba(x_test)
        accuracy = accuracy_score(y_test, probabilities.argmax(axis=1))
        loss = log_loss(y_test, probabilities)
        print(f"epoch {epoch:3d}/{args.epochs}  loss {loss:.4f}  accuracy {accuracy:.4f}", flush=True)

    predicted = model.predict(x_test)
    metrics = {
        "accuracy": accuracy_score(y_test, predicted),
        "f1_macro": f1_score(y_test, predicted, average="macro"),
        "loss": log_loss(y_test, model.predict_proba(x_test)),
        "epochs": args.epochs,
    }
    joblib.dump({"scaler": scaler, "model": model}, output_dir / "model.joblib")
    (output_dir / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    with (output_dir / "confusion.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["true \\ predicted", *digits.target_names])
        for name, row in zip(digits.target_names, confusion_matrix(y_test, predicted), strict=True):
            writer.writerow([name, *row])
    print(f"accuracy {metrics['accuracy']:.4f} after {time.time() - start:.1f} s, saved to {output_dir}")


if __name__ == "__main__":
    main()
