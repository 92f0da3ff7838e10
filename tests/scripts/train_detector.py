"""Fine-tune a detector; the options are those of the vision references of PyTorch."""

import argparse
import os
from pathlib import Path

import cv2
import numpy as np
import torch
import torchvision
import yaml
from PIL import Image
from torch.utils.data import DataLoader

try:
    import wandb
except ImportError:
    wandb = None

ARCHITECTURES = {"resnet18": torchvision.models.resnet18, "resnet50": torchvision.models.resnet50}


def get_args_parser(add_help=True):
    parser = argparse.ArgumentParser(description="PyTorch Detection Training", add_help=add_help)
    parser.add_argument("--data-path", default="/datasets/coco", type=str, help="dataset path")
    parser.add_argument("--model", default="resnet18", choices=ARCHITECTURES.keys())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", type=str)
    parser.add_argument("-b", "--batch-size", default=2, type=int, help="per GPU (default: %(default)s)")
    parser.add_argument("--epochs", default=26, type=int, metavar="N")
    parser.add_argument("-j", "--workers", default=os.cpu_count(), type=int)
    parser.add_argument("--lr", default=0.02, type=float)
    parser.add_argument("--lr-steps", default=[16, 22], nargs="+", type=int)
    parser.add_argument("--opt", choices=("sgd", "adam"), default="sgd")
    parser.add_argument("--amp", action="store_true", help="100%% mixed precision")
    parser.add_argument("--no-augment", dest="augment", action="store_false")
    parser.add_argument("--ema", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--resume", default="", type=str)
    parser.add_argument("--image-size", type=lambda text: int(text, 10), default=640)
    parser.add_argument("--hub-token", default="abc")
    parser.add_argument("--output-dir", default=Path("runs") / "train")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--verbose", "-v", action="count", default=0)
    return parser


def main(args):
    image = np.asarray(Image.open(args.data_path))
    cv2.imwrite("first.png", image)
    yaml.safe_dump(vars(args))
    DataLoader([])


if __name__ == "__main__":
    main(get_args_parser().parse_args())
