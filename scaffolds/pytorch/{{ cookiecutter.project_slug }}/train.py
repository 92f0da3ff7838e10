"""Train a small convolutional network to classify images.

Images are read from DATA/<class name>/*.png (or .jpg), as grey squares. Without a data folder it trains on shapes that
it draws itself, so that it runs before there is any data. Writes model.pt and metrics.json into the working directory;
stopped by SIGTERM it writes checkpoint.pt, from which `--resume checkpoint.pt` goes on.
"""

import argparse
import json
import signal
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

try:
    import trainpack  # in the image, and wherever trainpack is installed; training works without it
except ImportError:
    trainpack = None

SIZE = 32
SHAPES = ("circle", "square", "triangle")


class Stop:
    """Whether SIGTERM came: the machine is wanted back, and there are seconds left to save."""

    requested = False

    @classmethod
    def listen(cls):
        """Ask for an orderly stop at the next batch instead of ending at once."""

        def request(_number, _frame):
            cls.requested = True

        cls.requested = False
        signal.signal(signal.SIGTERM, request)


def parse_arguments(arguments=None):
    """The command line; trainpack.toml declares the same parameters."""
    parser = argparse.ArgumentParser(description="Train a small network to classify images.")
    parser.add_argument("--data-dir", type=Path, default=Path("data/train"), help="folder of class folders")
    parser.add_argument("--epochs", type=int, default=3, help="passes over the training images")
    parser.add_argument("--batch-size", type=int, default=32, help="images of one step")
    parser.add_argument("--learning-rate", type=float, default=0.002, help="step of the optimiser")
    parser.add_argument("--width", type=int, default=16, help="channels of the first layer")
    parser.add_argument("--samples", type=int, default=600, help="number of shapes to draw, without a data folder")
    parser.add_argument(
        "--augment", action=argparse.BooleanOptionalAction, default=True, help="mirror images at random"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the data, the split and the model")
    parser.add_argument("--resume", type=Path, help="checkpoint to go on from")
    return parser.parse_args(arguments)


def class_names():
    """The classes in the labelmap's order: the run's own in a container, else trainpack.toml's, else the shapes."""
    labelmap = trainpack.labelmap if trainpack else {}
    return [labelmap[index] for index in sorted(labelmap, key=int)] or list(SHAPES)


def draw(kind, rng):
    """One noisy grey image of a shape: 0 circle, 1 square, 2 triangle; size, place and brightness are random."""
    rows, columns = np.mgrid[0:SIZE, 0:SIZE]
    radius = rng.uniform(5, 11)
    y, x = rng.uniform(radius, SIZE - radius, size=2)
    down, across = rows - y, np.abs(columns - x)
    inside = (
        down**2 + across**2 <= radius**2,
        np.maximum(np.abs(down), across) <= radius * 0.8,
        (np.abs(down) <= radius * 0.9) & (across <= (down + radius) / 2),
    )[kind]
    return inside * rng.uniform(0.5, 1.0) + rng.normal(0, 0.1, (SIZE, SIZE))


def draw_shapes(count, names, seed):
    """Drawn images and the index of each one's class."""
    if len(names) > len(SHAPES):
        sys.exit(f"there are {len(SHAPES)} shapes to draw but {len(names)} labels: give images in --data-dir")
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(names), count)
    return np.stack([draw(label, rng) for label in labels]), labels


def read_images(folder, names):
    """The images of folder/<class name>/ and the index of each one's class."""
    files = [
        (file, label)
        for label, name in enumerate(names)
        for file in sorted((folder / name).glob("*"))
        if file.suffix.lower() in (".png", ".jpg", ".jpeg")
    ]
    if not files:
        sys.exit(f"there is no .png or .jpg in the folders {', '.join(names)} of {folder}")
    images = [np.asarray(Image.open(file).convert("L").resize((SIZE, SIZE))) / 255 for file, _ in files]
    return np.stack(images), np.array([label for _, label in files])


def load(options, names):
    """Training and test images (count, 1, SIZE, SIZE) with their labels, split 4 to 1."""
    if options.data_dir.exists():
        images, labels = read_images(options.data_dir, names)
    else:
        print(f"no folder {options.data_dir}: training on {options.samples} drawn shapes")
        images, labels = draw_shapes(options.samples, names, options.seed)
    if len(images) < 5:
        sys.exit(f"{len(images)} images are too few to train and test on: at least 5 are needed")
    order = np.random.default_rng(options.seed).permutation(len(images))
    x = torch.tensor(images[order], dtype=torch.float32).unsqueeze(1)
    y = torch.tensor(labels[order], dtype=torch.long)
    border = len(x) * 4 // 5
    return x[:border], y[:border], x[border:], y[border:]


def build_block(channels, features):
    """A convolution that halves the image. The running statistics follow fast: training takes few steps."""
    return (
        nn.Conv2d(channels, features, 3, padding=1),
        nn.BatchNorm2d(features, momentum=0.5),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )


def build_model(classes, width):
    """Three convolutions, the strongest answer of each feature wherever it is, and one linear layer."""
    return nn.Sequential(
        *build_block(1, width),
        *build_block(width, width * 2),
        *build_block(width * 2, width * 4),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(width * 4, classes),
    )


def train_epoch(model, optimizer, x, y, options):
    """One pass over the images; returns the mean loss, None when it was asked to stop."""
    model.train()
    losses = []
    for batch in torch.randperm(len(x)).split(options.batch_size):
        if Stop.requested:
            return None
        images = x[batch].flip(-1) if options.augment and torch.rand(()) < 0.5 else x[batch]
        loss = nn.functional.cross_entropy(model(images), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses) / len(losses)


def accuracy(model, x, y):
    """Share of the images whose class is predicted."""
    model.eval()
    with torch.inference_mode():
        return (model(x).argmax(1) == y).float().mean().item()


def save(state, path):
    """Write a file whole or not at all, even when the time to save runs out."""
    torch.save(state, f"{path}.tmp")
    Path(f"{path}.tmp").replace(path)


def report(epoch, **metrics):
    """Print the metrics of an epoch, and record them where trainpack collects them."""
    print(f"epoch {epoch}: " + ", ".join(f"{name} {value:.4f}" for name, value in metrics.items()), flush=True)
    for name, value in metrics.items():
        if trainpack:
            trainpack.log_metric(name, value, step=epoch)


def main(arguments=None):
    """Train, test, save."""
    options = parse_arguments(arguments)
    Stop.listen()
    torch.manual_seed(options.seed)
    names = class_names()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train_x, train_y, test_x, test_y = (tensor.to(device) for tensor in load(options, names))
    model = build_model(len(names), options.width).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=options.learning_rate)
    done, loss = 0, None
    if options.resume:
        state = torch.load(options.resume, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        done = state["epochs"]
    print(f"training on {len(train_x)} images of {', '.join(names)}, on {device}", flush=True)
    for epoch in range(done + 1, options.epochs + 1):
        loss = train_epoch(model, optimizer, train_x, train_y, options)
        if loss is None:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epochs": epoch - 1}
            save(state, "checkpoint.pt")
            print(f"stopped in epoch {epoch}: checkpoint.pt is saved", flush=True)
            sys.exit(128 + signal.SIGTERM)
        report(epoch, loss=loss, accuracy=accuracy(model, test_x, test_y))
    save({"model": model.state_dict(), "class_names": names, "size": SIZE, "width": options.width}, "model.pt")
    metrics = {"accuracy": accuracy(model, test_x, test_y), "loss": loss, "class_names": names}
    Path("metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")


if __name__ == "__main__":
    main()
